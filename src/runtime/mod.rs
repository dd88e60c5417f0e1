//! Sockets, clocks, threads and rings. The only layer that names tokio-uring and core_affinity;
//! what bytes mean is decided below, in `wire` and `engine`.
//!
//! * [`server`]: starts everything, accepts and deals out
//! * [`messages`]: message connections
//! * [`records`], [`admin`]: record connections; HTTP
//! * [`worker`]: what the connections of one worker share
//! * [`results`], [`host`]: the path after the socket; what the host allows
//! * [`connection`], [`tls`], [`ring`]: slots and deadlines; encryption; the io_uring

pub(crate) mod admin;
pub(crate) mod connection;
pub(crate) mod host;
pub(crate) mod messages;
pub(crate) mod records;
pub(crate) mod results;
pub(crate) mod ring;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod worker;
