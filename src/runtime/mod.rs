//! Sockets, clocks, threads and rings. The only layer that uses tokio-uring and core_affinity;
//! `wire` and `engine` interpret the bytes.
//!
//! * [`server`]: starts the engine, accepts connections and assigns them to workers
//! * [`messages`]: message connections
//! * [`records`], [`admin`]: record connections; HTTP
//! * [`worker`]: what the connections of one worker share
//! * [`results`], [`host`]: aggregation, reports and files; what the host allows
//! * [`connection`], [`tls`], [`ring`]: slots and deadlines; encryption; the io_uring
//! * [`network`], [`clock`]: what the kernel or a simulation provides
//! * [`disk`], [`failpoint`]: the calls of files; where tests make it fail

pub(crate) mod admin;
pub(crate) mod clock;
pub(crate) mod connection;
pub(crate) mod disk;
pub(crate) mod failpoint;
pub(crate) mod host;
#[cfg(feature = "aggregate")]
pub(crate) mod messages;
pub(crate) mod network;
#[cfg(feature = "aggregate")]
pub(crate) mod records;
#[cfg(feature = "aggregate")]
pub(crate) mod results;
pub(crate) mod ring;
#[cfg(feature = "aggregate")]
pub(crate) mod server;
pub(crate) mod tls;
#[cfg(feature = "aggregate")]
pub(crate) mod worker;
#[cfg(feature = "simulation")]
pub(crate) mod world;
