//! Which cores the process may use, and which the workers get. Pins no thread.

use core_affinity::CoreId;

/// A core that may not be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    /// A listed core is outside the process's affinity mask.
    #[error("--cores: this process may not use core {core}; allowed: {allowed}")]
    NotAllowed {
        /// The core.
        core: usize,
        /// The allowed set, as a CPU list.
        allowed: String,
    },
    /// The mask could not be read.
    #[error("cannot find out which cores this process may use (sched_getaffinity failed)")]
    Unknown,
}

/// The cores that this process may use. Call it from a thread that is not pinned: it reads the
/// caller's mask.
///
/// # Errors
/// [`CoresError::Unknown`].
pub(crate) fn allowed() -> Result<Vec<usize>, CoresError> {
    let cores = core_affinity::get_core_ids().ok_or(CoresError::Unknown)?;
    Ok(cores.into_iter().map(|core| core.id).collect())
}

/// The cores that get a worker each: those asked for, or all allowed ones if none was named.
///
/// # Errors
/// [`CoresError`], naming the allowed set.
pub(crate) fn choose(asked: &[usize], allowed: &[usize]) -> Result<Vec<CoreId>, CoresError> {
    let chosen = if asked.is_empty() { allowed } else { asked };
    if let Some(&core) = chosen.iter().find(|core| !allowed.contains(core)) {
        return Err(CoresError::NotAllowed { core, allowed: cpu_list(allowed) });
    }
    Ok(chosen.iter().map(|&id| CoreId { id }).collect())
}

/// A CPU list as `taskset -c` writes it, `0,2-5`, from ascending numbers.
pub(crate) fn cpu_list(cores: &[usize]) -> String {
    let ranges = cores.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    ranges.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_ranges() {
        assert_eq!(cpu_list(&[0, 2, 3, 4, 5, 8, 9]), "0,2-5,8-9");
        assert_eq!(cpu_list(&[]), "");
    }

    #[test]
    fn a_core_outside_the_mask_is_refused_with_the_allowed_set() {
        let error = choose(&[1, 7], &[0, 1, 2, 3]).unwrap_err();
        assert_eq!(error.to_string(), "--cores: this process may not use core 7; allowed: 0-3");
        let chosen = choose(&[3, 1], &[0, 1, 2, 3]).unwrap();
        assert_eq!(chosen, [CoreId { id: 3 }, CoreId { id: 1 }]);
        assert_eq!(choose(&[], &[2, 4]).unwrap(), [CoreId { id: 2 }, CoreId { id: 4 }]);
    }
}
