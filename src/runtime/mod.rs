//! Sockets, clocks, threads and rings. The only layer that names tokio-uring and core_affinity;
//! what bytes mean is decided below, in `wire` and `engine`.
//!
//! * [`server`]: starts everything, accepts and deals out
//! * [`messages`]: message connections
//! * [`records`], [`admin`]: record connections; HTTP
//! * [`results`], [`host`]: the path after the socket; what the host allows
//! * [`connection`], [`tls`], [`ring`]: slots and deadlines; encryption; the io_uring

pub mod admin;
pub mod connection;
pub mod host;
pub mod messages;
pub mod records;
pub mod results;
pub mod ring;
pub mod server;
pub mod tls;
