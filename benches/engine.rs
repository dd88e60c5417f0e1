//! `cargo bench --bench engine`: what one thread of the engine does with bytes that are already
//! there: decoding, aggregation, frames. Opens no socket; `loopback` does.
//!
//! Each benchmark checks its answer before it is timed, against a computation that shares no code
//! with the engine. The figures are those of a single thread without anybody beside it.

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

/// Enough for a spread of a few per cent; all of it takes about a minute and a half.
fn settings() -> Criterion {
    // The engine's own pool has a thread for each worker; here is one.
    // SAFETY: criterion has made no thread yet: it analyses only what has been measured.
    unsafe { ringest::internals::create_pool(1) };
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
