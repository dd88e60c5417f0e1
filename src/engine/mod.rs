//! What becomes of decoded bytes: column sets, aggregation, latency, what is known of its. Opens no socket and
//! runs no async code.
//!
//! * [`observe`]: counters, a snapshot of them, their Prometheus text
//! * [`stream`]: one stream: intake, latency, what is known of it
//! * [`aggregate`]: column sets to mergeable partials to a result; the one room that names Polars
//! * [`decode`]: records to keys and values, one loop a field
//! * [`groups`]: where a group lives and how values fold into it
//! * [`blocks`]: what decoding and grouping share
//! * [`messages`]: users, tokens, rate limits and outboxes of the message server
//! * `oracle`: what results must be, the slow way, for tests

pub mod aggregate;
pub mod blocks;
pub mod decode;
pub mod groups;
pub mod messages;
pub mod observe;
#[cfg(test)]
pub mod oracle;
pub mod stream;
