//! What becomes of decoded bytes: column sets, aggregation, latency, reports. Opens no socket and
//! runs no async code.
//!
//! * [`columns`]: preallocated columns of one batch
//! * [`intern`], [`text_cache`], [`text_tag`], [`zero_bytes`]: texts to codes
//! * [`decode`]: runs of records into columns, one loop a field
//! * [`paged`]: a hash table that grows page by page
//! * [`groups`]: rows into the group partials of one connection, on its worker
//! * [`intake`]: one stream from received bytes to rows or groups, the above put together
//! * [`aggregate`]: column sets to mergeable partials to a result; the one module that names Polars
//! * [`coalesce`]: when small reads are worth being gathered into large ones
//! * [`latency`]: durations into histograms
//! * [`counters`]: what all threads have counted since the start
//! * [`outbox`]: what waits to be written to one receiver
//! * [`snapshot`]: all of that at one moment, as plain values
//! * [`metrics`]: the same as the text that Prometheus reads
//! * [`report`]: what is said about a finished connection
//! * `oracle`: what results must be, the slow way, for tests
//! * [`auth`], [`token`]: users of the message server, and how their tokens are made
//! * [`user_buckets`]: one rate limit a user, whichever worker serves it

pub mod aggregate;
pub mod auth;
pub mod block;
pub mod coalesce;
pub mod columns;
pub mod counters;
pub mod decode;
pub mod groups;
pub mod intake;
pub mod intern;
pub mod lanes;
pub mod latency;
pub mod metrics;
pub mod number;
#[cfg(test)]
pub mod oracle;
pub mod outbox;
pub mod paged;
pub mod plan;
pub mod report;
pub mod snapshot;
#[cfg(test)]
mod stream_tests;
pub mod text_cache;
pub mod text_tag;
pub mod token;
pub mod user_buckets;
pub mod zero_bytes;
