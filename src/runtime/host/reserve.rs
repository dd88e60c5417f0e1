//! Whether the memory for a start can be had. A process that runs out of memory is aborted by the
//! allocator, without a word about the limit, so it is tried before anything needs it.

use super::finding::Finding;
use crate::config::{Config, PROGRAM_BYTES};
use bytesize::ByteSize;
use rustix::process::{Resource, getrlimit};
use std::collections::TryReserveError;

/// Address space of a thread: its stack, and a part of the allocator's own.
const THREAD_BYTES: usize = (2 << 20) + (64 << 10);

/// The system does not give the memory that a start takes.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reserve the {} that a start takes: {source}; raise the limit (ulimit -v, ulimit -d, \
     LimitAS=, LimitDATA=), or lower --registered-buffers or the number of --cores",
    ByteSize(*.bytes as u64)
)]
pub(crate) struct TooLittleMemory {
    bytes: usize,
    source: TryReserveError,
}

/// Reserves the memory of a start and gives it back.
///
/// # Errors
/// [`TooLittleMemory`], with the remedy.
pub(crate) fn reserve(
    config: &Config,
    workers: usize,
    threads: usize,
) -> Result<(), TooLittleMemory> {
    let bytes = config.memory(workers).at_start() + PROGRAM_BYTES + threads * THREAD_BYTES;
    let reserved = Vec::<u8>::new().try_reserve_exact(bytes);
    reserved.map_err(|source| TooLittleMemory { bytes, source })
}

/// The finding about limits of this process's own address space; `None` if there are none and the
/// memory can be had.
pub(crate) fn address_space(config: &Config, workers: usize, threads: usize) -> Option<Finding> {
    let limits = [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
    match reserve(config, workers, threads) {
        Err(error) => Some(Finding::fail_with_remedy("address_space", &error.to_string())),
        Ok(()) => {
            let limit = limits.into_iter().flatten().min()?;
            let found = format!("{} allowed, enough for a start", ByteSize(limit));
            Some(Finding::pass("address_space", found))
        }
    }
}
