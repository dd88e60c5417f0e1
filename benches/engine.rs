//! `cargo bench --bench engine`: decoding, aggregation and message frames on a single thread, from
//! bytes in memory. The benchmark `loopback` includes sockets.
//!
//! Before timing, each benchmark checks its answer against a computation that shares no code with
//! the engine.

#[path = "engine/aggregate.rs"]
mod aggregate;
#[path = "engine/decode.rs"]
mod decode;
#[path = "engine/frame.rs"]
mod frame;
#[path = "engine/schemas.rs"]
mod schemas;

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

/// Enough for a spread of a few per cent; everything takes about a minute and a half.
fn settings() -> Criterion {
    // The engine's pool has one thread for each worker; one is enough here.
    // SAFETY: criterion has started no thread yet; it does so only to analyse measurements.
    unsafe { ringest::internals::create_pool(1) }.expect("threads");
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = engine;
    config = settings();
    targets = decode::bench, schemas::bench, aggregate::bench, frame::bench
}
criterion_main!(engine);
