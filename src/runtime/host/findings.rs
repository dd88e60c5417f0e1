//! Checks what the host allows and gives each problem a remedy. Changes nothing but this process's
//! limit on open files.

use super::auth_file;
use super::control_groups::{ControlGroups, GroupLimit};
use super::cores::{self, CoresError};
use super::finding::{Finding, Verdict};
use super::listener::{self, ADMIN, MESSAGES, RECORDS};
use super::memory_limit::{memory_limit, share_of};
use super::proc_files::{memory_total_bytes, process_status};
use super::reserve::address_space;
use super::ring_check::io_uring;
use super::threads::{threads, threads_needed};
use crate::config::{ADMIN_CONNECTIONS, Config, PROGRAM_BYTES, REFUSED_LINGERING, memory::Memory};
use crate::runtime::tls::config::load_certificates;
use crate::wire::text::counted;
use bytesize::ByteSize;
use core_affinity::CoreId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;
use std::time::SystemTime;

/// Oldest kernel with every flag that the rings use (IORING_SETUP_SINGLE_ISSUER: see
/// io_uring_setup(2)).
const KERNEL_MIN: (u32, u32) = (6, 0);
/// Locked bytes of one ring of `RING_ENTRIES`: 16 KiB of entries and two queues, in whole pages.
/// Measured with `ulimit -l`: 32 KiB is enough for a ring, 24 KiB is not.
const RING_BYTES: usize = 32 << 10;
/// Descriptors besides those of connections and captures: standard streams, listeners, signals,
/// files that are reloaded, those being written with their directories, admin connections and
/// refused clients. Each worker adds its ring, its epoll and its wake-ups.
const FILES_FIXED: usize = 64 + ADMIN_CONNECTIONS + REFUSED_LINGERING;
const FILES_PER_WORKER: usize = 8;
/// Bit of CAP_IPC_LOCK in a mask of capabilities (linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// Checks everything that an engine with `config` needs, apart from its directories. Threads and
/// rings are tried as the engine starts them.
pub(crate) fn examine(config: &Config) -> Vec<Finding> {
    // As the engine does before anything else; the finding about it is below.
    let _ = raise_open_files(config);
    let (cores, chosen) = cores(config);
    let workers = workers(config);
    let need = threads_needed(config, workers);
    let groups = ControlGroups::of_this_process();
    let mut fitted = config.clone();
    let locked_memory = fit_locked_memory(&mut fitted);
    let space = address_space(config, workers, need);
    let mut findings = vec![kernel()];
    // Without the memory for a start, these trials would end the process.
    if space.as_ref().is_none_or(|space| space.verdict != Verdict::Fail) {
        findings.extend([threads(need), io_uring(&fitted, &chosen)]);
    }
    let rest = [
        locked_memory,
        open_files(config, workers),
        cores,
        cpu_quota(groups.cores.as_ref(), workers),
        port(config),
        memory(config, workers, groups.memory_bytes),
    ];
    findings.extend(rest);
    findings.extend(space);
    findings.extend(certificates(config));
    findings.extend(users(config));
    findings
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    kernel_finding(&release)
}

fn kernel_finding(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>());
    let (min_major, min_minor) = KERNEL_MIN;
    let remedy = format!("run Linux {min_major}.{min_minor} or later");
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => {
            Finding::pass("kernel", format!("Linux {release}"))
        }
        (Some(Ok(_)), Some(Ok(_))) => {
            Finding::fail("kernel", format!("Linux {release} is too old"), remedy)
        }
        _ => Finding::warn("kernel", format!("cannot parse the release \"{release}\""), remedy),
    }
}

/// Locked memory that this process may use; `None` if there is no limit.
fn locked_bytes_allowed() -> Option<u64> {
    let mask = process_status("CapEff:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    let exempt = mask.is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1);
    getrlimit(Resource::Memlock).current.filter(|_| !exempt)
}

/// Lowers the number of registered windows to what RLIMIT_MEMLOCK allows, so that an engine starts
/// on a host with more cores than its limit was made for; the other windows are plain memory. The
/// finding then says so and is not a [`Verdict::Pass`].
pub(crate) fn fit_locked_memory(config: &mut Config) -> Finding {
    let workers = workers(config);
    let (windows, finding) = locked_memory(config, workers, locked_bytes_allowed());
    config.registered_buffers = windows;
    finding
}

/// How many windows each worker can register, and the finding about it.
fn locked_memory(config: &Config, workers: usize, allowed: Option<u64>) -> (usize, Finding) {
    const REMEDY: &str = "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, --ulimit memlock=), or \
                          lower --registered-buffers: 0 uses plain memory";
    let asked = config.registered_buffers;
    let rings = (workers * RING_BYTES) as u64;
    let needed = config.memory(workers).registered as u64 + rings;
    let Some(allowed) = allowed else {
        return (asked, Finding::pass("memlock", format!("no limit; {} needed", ByteSize(needed))));
    };
    let found = format!("{} allowed, {} needed", ByteSize(allowed), ByteSize(needed));
    if allowed >= needed {
        return (asked, Finding::pass("memlock", found));
    }
    let Some(left) = allowed.checked_sub(rings) else {
        return (
            0,
            Finding::fail(
                "memlock",
                format!("{found}, {} for rings alone", ByteSize(rings)),
                REMEDY,
            ),
        );
    };
    let windows = left as usize / (workers * config.buffer_bytes);
    let found =
        format!("{found}: each worker registers {} instead of {asked}", counted(windows, "window"));
    (windows, Finding::warn("memlock", found, REMEDY))
}

/// Descriptors that an engine with `config` may need.
fn files_needed(config: &Config, workers: usize) -> u64 {
    let captures = match config.capture {
        Some(_) => config.max_streams,
        None => 0,
    };
    (config.max_connections + captures + FILES_FIXED + workers * FILES_PER_WORKER) as u64
}

fn open_files(config: &Config, workers: usize) -> Finding {
    let need = files_needed(config, workers);
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < need => {
            let error = TooFewFiles { need, limit, max_connections: config.max_connections };
            Finding::fail_with_remedy("nofile", &error.to_string())
        }
        limit => {
            let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
            Finding::pass("nofile", format!("{limit} descriptors allowed, {need} needed"))
        }
    }
}

/// The process may not open as many files as it needs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{need} file descriptors are needed for --max-connections {max_connections}, but {limit} are \
     allowed; raise the hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=) or lower \
     --max-connections"
)]
pub(crate) struct TooFewFiles {
    need: u64,
    limit: u64,
    max_connections: usize,
}

/// Raises the soft limit on open files to what the connections may need, within the hard limit.
///
/// # Errors
/// [`TooFewFiles`] if the hard limit is too low.
pub(crate) fn raise_open_files(config: &Config) -> Result<(), TooFewFiles> {
    let workers = workers(config);
    let need = files_needed(config, workers);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    let refused = |limit| TooFewFiles { need, limit, max_connections: config.max_connections };
    if let Some(maximum) = maximum.filter(|&maximum| maximum < need) {
        return Err(refused(maximum));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum })
        .map_err(|_| refused(current.unwrap_or(0)))
}

/// How many workers an engine with `config` has; on an error, as many as were asked for.
pub(crate) fn workers(config: &Config) -> usize {
    chosen_cores(config).map_or(config.cores.len(), |(chosen, _)| chosen.len()).max(1)
}

/// The cores of the workers, and those that are allowed.
fn chosen_cores(config: &Config) -> Result<(Vec<CoreId>, String), CoresError> {
    let allowed = cores::allowed()?;
    Ok((cores::choose(&config.cores, &allowed)?, cores::cpu_list(&allowed)))
}

/// The finding about cores, and those to try workers on.
fn cores(config: &Config) -> (Finding, Vec<CoreId>) {
    match chosen_cores(config) {
        Ok((chosen, allowed)) => {
            let found = format!("{}; allowed cores: {allowed}", counted(chosen.len(), "worker"));
            (Finding::pass("cores", found), chosen)
        }
        Err(error) => {
            let remedy = "choose from the allowed cores, or leave --cores out to use them all";
            let allowed = cores::allowed().unwrap_or_default();
            let allowed = allowed.into_iter().map(|id| CoreId { id }).collect();
            (Finding::fail("cores", error.to_string(), remedy), allowed)
        }
    }
}

/// The tightest quota over all levels of control groups, in cores.
fn cpu_quota(quota: Option<&GroupLimit<f64>>, workers: usize) -> Finding {
    let Some(quota) = quota else { return Finding::pass("cpu_quota", "none".to_owned()) };
    let found = format!("{:.2} cores' worth of CPU time", quota.value);
    if quota.value >= workers as f64 {
        return Finding::pass("cpu_quota", found);
    }
    Finding::warn(
        "cpu_quota",
        format!("{found} for {} ({quota})", counted(workers, "worker")),
        "the kernel stops all workers once the quota is used up: raise it (CPUQuota=, --cpus), or \
         name fewer cores with --cores",
    )
}

/// Binds all ports at once, since two may be the same by mistake.
fn port(config: &Config) -> Finding {
    let wanted = [
        (RECORDS, &config.host, config.records_port, "records"),
        (MESSAGES, &config.host, config.port, "messages"),
        (ADMIN, &config.admin_host, Some(config.admin_port()), "admin"),
    ];
    let (mut found, mut held) = (Vec::new(), Vec::new());
    for (place, host, port, what) in wanted {
        let Some(port) = port else { continue };
        match listener::listen_on_all(place, host, port) {
            Ok(listeners) => held.push(listeners),
            Err(error) => return Finding::fail_with_remedy("port", &error.to_string()),
        }
        found.push(match port {
            0 => format!("any free port for {what}"),
            port => format!("{port} is free for {what}"),
        });
    }
    Finding::pass("port", found.join(", "))
}

/// Only with TLS: one finding, or one for each certificate whose dates are a problem.
fn certificates(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "certificates";
    let certificates = match load_certificates(config) {
        Ok(None) => return Vec::new(),
        Ok(Some(certificates)) => certificates,
        Err(error) => return vec![Finding::fail_with_remedy(CHECK, &error.to_string())],
    };
    let doubtful = certificates.doubtful(SystemTime::now());
    if doubtful.is_empty() {
        return vec![Finding::pass(CHECK, "key and certificates are usable".to_owned())];
    }
    let warning = |message: String| Finding {
        verdict: Verdict::Warn,
        ..Finding::fail_with_remedy(CHECK, &message)
    };
    doubtful.into_iter().map(|dated| warning(dated.to_string())).collect()
}

/// Only with --auth-file.
fn users(config: &Config) -> Option<Finding> {
    Some(match auth_file::load(config.auth_file.as_ref()?) {
        Ok(table) if table.is_empty() => {
            let remedy = "add one with `ringest token USER --auth-file FILE`";
            Finding::warn("auth_file", "it lists no user".to_owned(), remedy)
        }
        Ok(table) => match table.doubtful() {
            Some(doubtful) => Finding {
                verdict: Verdict::Warn,
                ..Finding::fail_with_remedy("auth_file", &doubtful.to_string())
            },
            None => Finding::pass("auth_file", counted(table.len(), "user")),
        },
        Err(error) => Finding::fail_with_remedy("auth_file", &error.to_string()),
    })
}

fn memory(config: &Config, workers: usize, group: Option<GroupLimit<u64>>) -> Finding {
    let host = memory_total_bytes().unwrap_or(u64::MAX);
    match memory_limit(config, workers) {
        Err(error) => Finding::fail_with_remedy("memory", &error.to_string()),
        Ok(limit) => {
            let group = group.filter(|group| group.value < host);
            memory_finding(&config.memory(workers), limit, host, group)
        }
    }
}

/// `group` is the tightest limit of the control groups, if that is less than the host has.
fn memory_finding(
    memory: &Memory,
    limit: u64,
    host: u64,
    group: Option<GroupLimit<u64>>,
) -> Finding {
    let bytes = |bytes: usize| ByteSize(bytes as u64);
    let available = group.as_ref().map_or(host, |group| group.value);
    let has = match &group {
        Some(group) => format!("{} are allowed ({group})", ByteSize(group.value)),
        None => format!("the host has {}", ByteSize(host)),
    };
    let found = format!(
        "{} at start; {} with {} sending and {} waiting; {} if each stream also \
         reaches --groups-limit and --strings-bytes-limit and each client is busy; --memory-limit \
         ends the largest stream at {}; {has}",
        bytes(memory.at_start()),
        bytes(memory.all_receiving()),
        counted(memory.streams, "stream"),
        counted(memory.connections, "client"),
        bytes(memory.worst()),
        ByteSize(limit),
    );
    let needs = |bytes: usize| bytes.saturating_add(PROGRAM_BYTES) as u64;
    let raise = match group {
        Some(_) => ", or raise that limit (MemoryMax=, --memory)",
        None => "",
    };
    if needs(memory.all_receiving()) > available {
        let remedy = format!(
            "lower --max-streams, --max-connections or --buffer-bytes{raise}; the program itself \
             takes up to {}",
            bytes(PROGRAM_BYTES)
        );
        return Finding::fail("memory", found, remedy);
    }
    if needs(memory.worst()).min(limit) > share_of(available).max(memory.least() as u64) {
        let remedy = format!(
            "leave a quarter for what is not counted (the allocator, Polars, the kernel's \
             sockets): lower --memory-limit to {}{raise}",
            ByteSize(share_of(available))
        );
        return Finding::warn("memory", found, remedy);
    }
    if needs(memory.all_receiving()) > limit {
        let remedy = "streams would end as memory_limit before all of them send: raise \
                      --memory-limit, or lower --max-streams or --max-connections";
        return Finding::warn("memory", found, remedy);
    }
    Finding::pass("memory", found)
}

/// Whether a TCP socket listens on `port` in this network namespace, from the kernel's tables.
///
/// # Errors
/// If neither table can be read.
pub(crate) fn is_listening(port: u16) -> io::Result<bool> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    if let [Err(error), Err(_)] = tables {
        return Err(error);
    }
    Ok(tables.iter().flatten().any(|table| table_has_listener(table, port)))
}

/// Columns of the table: number, local address:port in hexadecimal, remote, state (0A: listening).
fn table_has_listener(table: &str, port: u16) -> bool {
    let port = format!("{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _remote, state) = (words.next(), words.next(), words.next());
        state == Some("0A") && local.and_then(|local| local.rsplit(':').next()) == Some(&port)
    })
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
