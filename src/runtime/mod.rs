//! Sockets, clocks, threads and rings. The only layer that names tokio-uring and core_affinity;
//! what bytes mean is decided below, in `wire` and `engine`.
//!
//! * [`server`]: starts and stops the threads below
//! * [`listener`], [`acceptor`], [`slots`], [`refusal`]: connections in, each dealt to the least
//!   loaded worker
//! * [`worker`], [`ring`], [`deadlines`], [`presence`]: a pinned thread and its connections
//! * [`record_conn`], [`record_stream`], [`transport`]: connections that carry records
//! * [`coalescer`]: their small reads, gathered into large ones for a bounded time
//! * [`message_conn`], [`message_input`], [`peer`], [`messages`], [`hub`], [`gate`]: connections
//!   that carry messages, and broadcasts between them
//! * [`tls`], [`tls_config`], [`certs`]: encryption
//! * [`capture`], [`whole_file`]: the raw bytes of streams to files that are whole or not there
//! * [`pool`]: the column sets that go round between workers and aggregation
//! * [`aggregator`], [`reporter`]: plain threads that make and hand out results
//! * [`partial_files`], [`whole_file`], `open_batch`: what streams leave in a directory for a merge
//! * [`admin`]: metrics, health and state over HTTP, on a thread of its own
//! * [`cores`], [`host`], [`signals`], [`stdio`]: what the host allows, lacks and asks for

pub mod acceptor;
pub mod admin;
mod admin_conn;
mod admin_site;
pub mod aggregator;
pub mod capture;
pub mod certs;
pub mod coalescer;
pub mod cores;
pub mod deadlines;
pub mod gate;
pub mod host;
pub mod hub;
pub mod listener;
mod low_water;
pub mod message_conn;
pub mod message_input;
pub mod messages;
mod open_batch;
pub mod partial_files;
pub mod peer;
pub mod pool;
pub mod presence;
pub mod record_conn;
pub mod record_stream;
pub mod refusal;
pub mod reporter;
pub mod ring;
pub mod server;
pub mod signals;
pub mod slots;
pub mod stdio;
pub mod tls;
pub mod tls_config;
#[cfg(test)]
mod tls_peer;
pub mod transport;
pub mod whole_file;
pub mod worker;
