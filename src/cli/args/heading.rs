//! The headings under which `--help` and the reference list options.

pub(crate) const LISTENERS: &str = "Listeners";
pub(crate) const RECORDS: &str = "Records";
pub(crate) const MESSAGES: &str = "Messages";
pub(crate) const TLS_AND_USERS: &str = "TLS and users";
pub(crate) const LIMITS: &str = "Limits";
pub(crate) const TIMEOUTS: &str = "Timeouts";
pub(crate) const HOST: &str = "Host";
pub(crate) const RESULTS: &str = "Results";
pub(crate) const CAPTURES_AND_PARTIALS: &str = "Captures and partials";
/// What a client connects to.
pub(crate) const SERVER: &str = "Server";
/// What a client sends, and how fast.
pub(crate) const SENDING: &str = "Sending";
