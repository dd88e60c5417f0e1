//! How much memory peers may make an engine take: `--memory-limit`, or what follows from the host.

use super::control_groups::{ControlGroups, GroupLimit};
use super::proc_files::memory_total_bytes;
use crate::config::{Config, MEMORY_LIMIT_SHARE};
use bytesize::ByteSize;
use rustix::process::{Resource, getrlimit};

/// `--memory-limit` is too low for the other options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--memory-limit is {}, but {} are needed to receive a single stream; raise it, or lower \
     --registered-buffers or --buffer-bytes",
    ByteSize(*.limit), ByteSize(*.least)
)]
pub struct LimitTooLow {
    limit: u64,
    least: u64,
}

/// The limit of an engine with `config`.
///
/// # Errors
/// [`LimitTooLow`], never without `--memory-limit`.
pub(crate) fn memory_limit(config: &Config, workers: usize) -> Result<u64, LimitTooLow> {
    let groups = ControlGroups::of_this_process();
    let own = [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
    let available = available(groups.memory_bytes.as_ref());
    let available = own.into_iter().flatten().fold(available, u64::min);
    limit_within(config, workers, available)
}

/// Memory of the host, or of the tightest control group if that has less.
pub(crate) fn available(group: Option<&GroupLimit<u64>>) -> u64 {
    let host = memory_total_bytes().unwrap_or(u64::MAX);
    group.map_or(host, |group| host.min(group.value))
}

/// The default where so many bytes are available.
pub(crate) fn share_of(available: u64) -> u64 {
    let (numerator, denominator) = MEMORY_LIMIT_SHARE;
    available / denominator * numerator
}

/// The limit where so many bytes are available.
///
/// # Errors
/// [`LimitTooLow`], never without `--memory-limit`.
pub(crate) fn limit_within(
    config: &Config,
    workers: usize,
    available: u64,
) -> Result<u64, LimitTooLow> {
    let least = config.memory(workers).least() as u64;
    match config.memory_limit {
        Some(limit) if limit < least => Err(LimitTooLow { limit, least }),
        Some(limit) => Ok(limit),
        None => Ok(share_of(available).max(least)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_three_quarters_of_what_there_is() {
        let config = Config::default();
        assert_eq!(limit_within(&config, 2, 1 << 30), Ok(768 << 20));
        let least = config.memory(2).least() as u64;
        assert_eq!(limit_within(&config, 2, 16 << 20), Ok(least));
        let set = |limit| Config { memory_limit: Some(limit), ..Config::default() };
        assert_eq!(limit_within(&set(least), 2, 1 << 30), Ok(least));
        let error = limit_within(&set(least - 1), 2, 1 << 30).unwrap_err();
        assert_eq!(error, LimitTooLow { limit: least - 1, least });
        assert!(error.to_string().contains("; raise it"));
    }
}
