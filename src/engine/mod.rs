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

pub(crate) mod aggregate;
pub(crate) mod blocks;
pub(crate) mod decode;
pub(crate) mod groups;
pub(crate) mod messages;
pub(crate) mod observe;
#[cfg(test)]
pub(crate) mod oracle;
pub(crate) mod stream;
