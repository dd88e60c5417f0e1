//! The parts of the engine that the project's own tests and benchmarks use. Not a public interface:
//! any release may change it.

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(feature = "aggregate")]
pub use crate::cli::commands::certs::{
    CertSpec, Generated, Pair, generate as generate_certificates,
};
pub use crate::config::{
    AggregateMode, Config, FOLD_ROWS, FOLD_ROWS_MAX, SCHEMA_FILE_BYTES_MAX, TlsOptions, limits,
};
#[cfg(feature = "aggregate")]
pub use crate::engine::aggregate::{GroupAggregate, Grouped, Value, create_pool};
pub use crate::engine::decode::decoder::Decoder;
pub use crate::engine::decode::texts::Texts;
pub use crate::engine::groups::columns::{Column, ColumnSet};
pub use crate::engine::groups::plan::Plan;
pub use crate::engine::groups::table::GroupTable;
pub use crate::engine::observe::counters::{Counters, TallyWriter, TallyWriters, WorkerTally};
pub use crate::engine::observe::metrics::exposition;
pub use crate::engine::observe::snapshot::{EngineState, Facts, Rates, Snapshot};
pub use crate::engine::stream::received::{BufferKind, Reason};
pub use crate::runtime::admin::listener::{AdminState, start as start_admin};
pub use crate::runtime::host::listener::{RECORDS, listen};
#[cfg(feature = "aggregate")]
pub use crate::runtime::results::report::Report;
#[cfg(feature = "aggregate")]
pub use crate::runtime::results::reporter::Sink;
pub use crate::runtime::ring::{Buffers, read, runtime as ring_runtime};
#[cfg(feature = "aggregate")]
pub use crate::runtime::server::engine::Engine;
pub use crate::wire::messages::fault::Fault;
pub use crate::wire::records::packets::{
    Ends, PacketParser, RecordForm, Run, RunList, Stop, begins_with_packet, check_whole_packets,
};
pub use crate::wire::text::{Padding, ShownText, TextEncoding, trim_padding};

/// What a simulation is made of; only with the feature `simulation`.
#[cfg(feature = "simulation")]
pub mod simulation {
    pub use crate::engine::observe::counters::Protocol;
    pub use crate::engine::stream::intake::Counts;
    pub use crate::engine::stream::received::Status;
    pub use crate::runtime::network::simulated::{LineQuality, LineWitness, PeerEnd};
    pub use crate::runtime::network::simulated_accept::Dialer;
    pub use crate::runtime::server::simulated_engine::{
        EngineRemains, SimulatedEngine, SimulatedReport, ThreadDelays,
    };
    pub use crate::runtime::world::{
        Stuck, VirtualSleep, WorldSettings, dice, note, now, plan_panic, run_world,
        step_wall_clock, take_log,
    };
}

/// A disk that fails, fills up and loses power; only with the feature `simulated-disk`.
#[cfg(feature = "simulated-disk")]
pub mod disk {
    pub use crate::runtime::disk::faults::{Crash, DiskCall, DiskFaults, FailingCalls};
    pub use crate::runtime::disk::simulated::SimulatedDisk;
}
