//! Tries what each worker does at its start: is pinned, creates a ring, registers windows, lets the
//! ring do an operation. All workers at the same time, since they share what the system allows.

use super::finding::Finding;
use super::proc_files::process_status;
use crate::config::{Config, RING_PATIENCE};
use crate::runtime::ring::{self, Buffers, RingError};
use core_affinity::CoreId;
use rustix::io::Errno;
use std::fs;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("cannot pin a worker to core {0}: the kernel refused")]
    Pin(usize),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("the check did not end within {:?}", 2 * RING_PATIENCE)]
    Late,
    #[error("the check panicked")]
    Panicked,
}

/// The finding about the rings of workers on `cores`.
pub(crate) fn io_uring(config: &Config, cores: &[CoreId]) -> Finding {
    let count = config.registered_buffers;
    match rehearse(config, cores) {
        Ok(()) => {
            Finding::pass("io_uring", format!("a ring with {count} registered windows works"))
        }
        Err(unready) => unready_finding(&unready),
    }
}

fn unready_finding(unready: &Unready) -> Finding {
    let failed = |remedy: &str| Finding::fail("io_uring", unready.to_string(), remedy);
    match unready {
        Unready::Ring(RingError::Create(error)) => {
            refused("io_uring_setup", error, &Refusal::of_this_process())
        }
        Unready::Ring(RingError::Refused { call, source }) => {
            refused(call, source, &Refusal::of_this_process())
        }
        Unready::Ring(RingError::Register { bytes, source }) if ring::out_of_memory(source) => {
            Finding::warn(
                "io_uring",
                format!("a ring works, but {bytes} bytes of windows cannot be locked"),
                "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, --ulimit memlock=), which all \
                 processes of a user share, or start with --registered-buffers 0",
            )
        }
        Unready::Ring(RingError::Register { .. }) => {
            failed("start with --registered-buffers 0, which uses plain memory")
        }
        Unready::Ring(RingError::Silent) | Unready::Late => {
            failed("a filter, a security module or the kernel holds operations back: see dmesg")
        }
        Unready::Pin(_) => failed("leave that core out of --cores"),
        Unready::Thread(_) => failed("raise the limit of processes (ulimit -u)"),
        Unready::Panicked => failed("please report this bug"),
    }
}

fn rehearse(config: &Config, cores: &[CoreId]) -> Result<(), Unready> {
    let (ready, outcomes) = mpsc::channel();
    // Dropping these ends the threads.
    let mut holds = Vec::new();
    for &core in cores {
        let (hold, held) = mpsc::channel::<()>();
        holds.push(hold);
        let (ready, config) = (ready.clone(), config.clone());
        thread::Builder::new()
            .spawn(move || start_as_worker(core, &config, &ready, &held))
            .map_err(Unready::Thread)?;
    }
    drop(ready);
    let end = Instant::now() + 2 * RING_PATIENCE;
    for _ in cores {
        let left = end.saturating_duration_since(Instant::now());
        match outcomes.recv_timeout(left) {
            Ok(outcome) => outcome?,
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(Unready::Late),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Unready::Panicked),
        }
    }
    Ok(())
}

/// Does as a worker does and reports; keeps its ring until all others have theirs.
fn start_as_worker(
    core: CoreId,
    config: &Config,
    ready: &Sender<Result<(), Unready>>,
    held: &Receiver<()>,
) {
    let start = || -> Result<(), Unready> {
        if !core_affinity::set_for_current(core) {
            return Err(Unready::Pin(core.id));
        }
        let runtime = ring::runtime()?;
        runtime.block_on(async {
            let _buffers = Buffers::register(config.registered_buffers, config.buffer_bytes)?;
            ring::prove().await?;
            let _ = ready.send(Ok(()));
            let _ = held.recv();
            Ok(())
        })
    };
    if let Err(unready) = start() {
        let _ = ready.send(Err(unready));
    }
}

/// What distinguishes the causes of a refusal.
struct Refusal {
    /// Value of the sysctl `kernel.io_uring_disabled`, if it exists.
    disabled: Option<u32>,
    /// Whether a seccomp filter applies to this process.
    seccomp: bool,
}

impl Refusal {
    fn of_this_process() -> Self {
        let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        Refusal {
            disabled: disabled.ok().and_then(|text| text.trim().parse().ok()),
            seccomp: process_status("Seccomp:").is_some_and(|mode| mode != "0"),
        }
    }
}

fn refused(call: &str, error: &io::Error, refusal: &Refusal) -> Finding {
    let errno = Errno::from_io_error(error);
    let found = format!("{call} fails: {error}");
    let disabled = refusal.disabled.unwrap_or(0);
    if errno == Some(Errno::PERM) && disabled == 2 {
        let remedy = "kernel.io_uring_disabled is 2, which forbids io_uring to all processes: \
                      `sysctl kernel.io_uring_disabled=0` on the host";
        return Finding::fail("io_uring", found, remedy);
    }
    if errno == Some(Errno::PERM) && disabled == 1 {
        let remedy = "kernel.io_uring_disabled is 1, which reserves io_uring for CAP_SYS_ADMIN \
                      and the group kernel.io_uring_group: join that group, or \
                      `sysctl kernel.io_uring_disabled=0` on the host";
        return Finding::fail("io_uring", found, remedy);
    }
    let seccomp = "a seccomp profile forbids io_uring (Docker's default does, since engine 25): \
                   start the container with --security-opt \
                   seccomp=deploy/docker/seccomp-ringest.json";
    let remedy = match errno {
        Some(Errno::PERM | Errno::ACCESS) if refusal.seccomp => seccomp.to_owned(),
        Some(Errno::PERM | Errno::ACCESS) => format!("a security module forbids it, or {seccomp}"),
        Some(Errno::NOSYS) if refusal.seccomp => {
            format!("{seccomp}; podman's profile and kernels without io_uring give the same error")
        }
        Some(Errno::NOSYS) => "this kernel has no io_uring: run Linux 6.0 or later, built with \
                               CONFIG_IO_URING"
            .to_owned(),
        Some(Errno::NOMEM) => "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, --ulimit \
                               memlock=): rings and registered windows of all workers count"
            .to_owned(),
        Some(Errno::MFILE | Errno::NFILE) => "raise the limit of open files (ulimit -n, \
                                              LimitNOFILE=, --ulimit nofile=)"
            .to_owned(),
        Some(Errno::INVAL) => "this kernel does not know the flags SINGLE_ISSUER and \
                               COOP_TASKRUN: run Linux 6.0 or later"
            .to_owned(),
        _ => format!("see {call}(2) for this error"),
    };
    Finding::fail("io_uring", found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::host::finding::Verdict;

    #[test]
    fn each_refusal_of_a_ring_has_its_own_remedy() {
        let remedy = |errno: Errno, disabled, seccomp| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let finding = refused("io_uring_setup", &error, &Refusal { disabled, seccomp });
            assert_eq!(finding.verdict, Verdict::Fail);
            finding.remedy.unwrap()
        };
        assert!(remedy(Errno::PERM, Some(2), true).contains("io_uring_disabled is 2"));
        assert!(remedy(Errno::PERM, Some(1), false).contains("kernel.io_uring_group"));
        assert!(remedy(Errno::PERM, Some(0), true).starts_with("a seccomp profile"));
        assert!(remedy(Errno::PERM, None, false).contains("security module"));
        assert!(remedy(Errno::NOSYS, None, false).contains("CONFIG_IO_URING"));
        assert!(remedy(Errno::NOSYS, Some(0), true).contains("podman"));
        assert!(remedy(Errno::NOMEM, Some(0), false).contains("RLIMIT_MEMLOCK"));
        assert!(remedy(Errno::MFILE, Some(0), false).contains("ulimit -n"));
        assert!(remedy(Errno::INVAL, Some(0), false).contains("SINGLE_ISSUER"));
    }

    #[test]
    fn every_failure_of_a_worker_has_a_remedy() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let register =
            |errno| Unready::Ring(RingError::Register { bytes: 8192, source: error(errno) });
        for (unready, verdict, said) in [
            (register(Errno::NOMEM), Verdict::Warn, "8192 bytes of windows cannot be locked"),
            (register(Errno::PERM), Verdict::Fail, "cannot register 8192 bytes"),
            (Unready::Ring(RingError::Silent), Verdict::Fail, "did not complete within 10s"),
            (Unready::Late, Verdict::Fail, "did not end within 20s"),
            (Unready::Pin(3), Verdict::Fail, "core 3"),
            (Unready::Thread(error(Errno::AGAIN)), Verdict::Fail, "cannot start a thread"),
            (Unready::Panicked, Verdict::Fail, "panicked"),
        ] {
            let finding = unready_finding(&unready);
            assert_eq!(finding.verdict, verdict, "{finding}");
            assert!(finding.found.contains(said) && finding.remedy.is_some(), "{finding}");
        }
    }
}
