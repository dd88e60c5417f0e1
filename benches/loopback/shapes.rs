//! The shapes of streams to measure: a base, and variations along one axis each.

use serde::{Deserialize, Serialize};

/// Write size of senders that keep system calls few.
pub const BULK_WRITE_BYTES: usize = 256 << 10;
/// Write size of the devices in the field: one packet of four records.
pub const FIELD_WRITE_BYTES: usize = 4 + 4 * 267;

/// Where the engine's threads may run. The worker always has the server's core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cores {
    /// The whole engine on the server's core.
    One,
    /// The aggregation may use another core.
    FreeCore,
}

/// How records are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its name in tables and for `--only`.
    pub name: String,
    /// Number of concurrent connections.
    pub connections: usize,
    /// Distinct (A, E) on each connection.
    pub groups: u32,
    /// Records in each packet.
    pub packet_records: usize,
    /// Bytes of each write of the sender.
    pub write_bytes: usize,
    /// Where the engine may run.
    pub cores: Cores,
    /// Whether the numpy + pandas servers take part.
    pub pandas: bool,
}

impl Shape {
    /// One connection of large packets and large writes, 125 groups, the whole engine on one core.
    fn bulk(name: &str) -> Self {
        Shape {
            name: name.to_owned(),
            connections: 1,
            groups: 125,
            packet_records: 960,
            write_bytes: BULK_WRITE_BYTES,
            cores: Cores::One,
            pandas: false,
        }
    }

    /// Packets of four records.
    fn field(name: &str, connections: usize, write_bytes: usize) -> Self {
        Shape { connections, packet_records: 4, write_bytes, ..Shape::bulk(name) }
    }

    fn with_groups(name: &str, groups: u32) -> Self {
        Shape { groups, ..Shape::bulk(name) }
    }

    fn with_connections(name: &str, connections: usize) -> Self {
        Shape { connections, ..Shape::bulk(name) }
    }

    fn free(self) -> Self {
        Shape { cores: Cores::FreeCore, ..self }
    }
}

/// Every shape, in the order of the tables.
pub fn shapes() -> Vec<Shape> {
    vec![
        Shape { pandas: true, ..Shape::bulk("bulk") },
        Shape::with_connections("connections-10", 10),
        Shape::with_connections("connections-100", 100),
        Shape::with_groups("groups-10000", 10_000),
        Shape::with_groups("groups-100000", 100_000),
        Shape::with_groups("groups-1000000", 1_000_000),
        Shape::field("small-packets", 1, BULK_WRITE_BYTES),
        Shape::field("field", 1, FIELD_WRITE_BYTES),
        Shape::field("field-10", 10, FIELD_WRITE_BYTES),
        Shape::bulk("free-core").free(),
        Shape::with_connections("free-core-connections-10", 10).free(),
        Shape::with_groups("free-core-groups-100000", 100_000).free(),
        Shape::with_groups("free-core-groups-1000000", 1_000_000).free(),
    ]
}
