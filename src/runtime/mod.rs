//! Sockets, clocks, threads and rings. The only layer that names tokio-uring and core_affinity;
//! what bytes mean is decided below, in `wire` and `engine`.
//!
//! * [`server`]: starts and stops the threads below
//! * [`listener`], [`acceptor`], [`slots`]: connections in, each dealt to the least loaded worker
//! * [`worker`], [`ring`], [`record_conn`], [`deadlines`]: a pinned thread and its connections
//! * [`pool`]: the column sets that go round between workers and aggregation
//! * [`aggregator`], [`reporter`]: plain threads that make and hand out results
//! * [`admin`]: metrics, health and state over HTTP, on a thread of its own
//! * [`cores`], [`host`], [`signals`], [`stdio`]: what the host allows, lacks and asks for

pub mod acceptor;
pub mod admin;
mod admin_conn;
mod admin_site;
pub mod aggregator;
pub mod cores;
pub mod deadlines;
pub mod host;
pub mod listener;
pub mod pool;
pub mod record_conn;
pub mod reporter;
pub mod ring;
pub mod server;
pub mod signals;
pub mod slots;
pub mod stdio;
pub mod worker;
