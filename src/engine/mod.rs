//! Decoding, grouping and aggregation of record streams, and the pure parts of the message server.
//! Opens no socket and runs no async code.
//!
//! * [`observe`]: counters, their snapshots and the Prometheus text
//! * [`stream`]: one stream: intake, latency, status
//! * [`aggregate`]: column sets to mergeable partials to a result; the only folder that uses Polars
//! * [`decode`]: records to keys and values, one loop per field
//! * [`groups`]: the hash table of groups and the accumulators in it
//! * [`blocks`]: what decoding and grouping share
//! * [`memory`]: the account of what peers make the engine take
//! * [`messages`]: users, tokens, rate limits and outboxes of the message server
//! * `oracle`: slow reference implementations for tests

#[cfg(feature = "aggregate")]
pub(crate) mod aggregate;
pub(crate) mod blocks;
pub(crate) mod decode;
pub(crate) mod groups;
pub(crate) mod memory;
pub(crate) mod messages;
pub(crate) mod observe;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
pub(crate) mod stream;
