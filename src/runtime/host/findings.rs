//! Checks what the host allows and gives each problem a remedy. Changes nothing but this process's
//! limit on open files.

use super::auth_file;
use super::cores;
use super::listener::{self, ADMIN, MESSAGES, RECORDS};
use crate::config::{ADMIN_CONNECTIONS, Config, REFUSED_LINGERING};
use crate::runtime::ring::{self, Buffers, RingError};
use crate::runtime::tls::config::load_certificates;
use bytesize::ByteSize;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::fs;
use std::io;
use std::thread;
use std::time::SystemTime;

/// Oldest kernel with every flag that the rings use (IORING_SETUP_SINGLE_ISSUER: see
/// io_uring_setup(2)).
const KERNEL_MIN: (u32, u32) = (6, 0);
/// Locked bytes of one ring of `RING_ENTRIES`: 16 KiB of entries and two queues, in whole pages.
/// Measured with `ulimit -l`: 32 KiB is enough for a ring, 24 KiB is not.
const RING_BYTES: usize = 32 << 10;
/// Descriptors besides those of connections and captures: standard streams, listeners, signals,
/// files that are reloaded, one file being written, admin connections and refused clients. Each
/// worker adds its ring, its epoll and its wake-ups.
const FILES_FIXED: usize = 48 + ADMIN_CONNECTIONS + REFUSED_LINGERING;
const FILES_PER_WORKER: usize = 8;
/// Bit of CAP_IPC_LOCK in a mask of capabilities (linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As required.
    Pass,
    /// The engine runs, but not as well as it could.
    Warn,
    /// The engine cannot run.
    Fail,
}

impl Verdict {
    /// The word that is printed.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was checked, one snake_case word.
    pub check: &'static str,
    /// Outcome.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; set unless the verdict is [`Verdict::Pass`].
    pub remedy: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:<15} {}", self.verdict.as_str(), self.check, self.found)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "\n      {:<15} remedy: {remedy}", "")?;
        }
        Ok(())
    }
}

fn pass(check: &'static str, found: String) -> Finding {
    Finding { check, verdict: Verdict::Pass, found, remedy: None }
}

fn warn(check: &'static str, found: String, remedy: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warn, found, remedy: Some(remedy.into()) }
}

fn fail(check: &'static str, found: String, remedy: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Fail, found, remedy: Some(remedy.into()) }
}

/// A failure whose message has the remedy after its last semicolon, as all messages here do.
fn fail_with_remedy(check: &'static str, message: &str) -> Finding {
    let (found, remedy) = message.rsplit_once("; ").unwrap_or((message, "see the log"));
    fail(check, found.to_owned(), remedy)
}

/// Checks everything that an engine with `config` needs.
pub(crate) fn examine(config: &Config) -> Vec<Finding> {
    let (cores, workers) = cores(config);
    let mut fitted = config.clone();
    let locked_memory = fit_locked_memory(&mut fitted);
    vec![
        kernel(),
        io_uring(&fitted),
        locked_memory,
        open_files(config, workers),
        cores,
        cpu_quota(workers),
        port(config),
        memory(config, workers),
    ]
    .into_iter()
    .chain(certificates(config))
    .chain(users(config))
    .collect()
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
            pass("kernel", format!("Linux {release}"))
        }
        (Some(Ok(_)), Some(Ok(_))) => fail("kernel", format!("Linux {release} is too old"), remedy),
        _ => warn("kernel", format!("cannot parse the release \"{release}\""), remedy),
    }
}

/// Creates a ring on a separate thread, with the flags and windows that a worker uses.
fn io_uring(config: &Config) -> Finding {
    let (count, bytes) = (config.registered_buffers, config.buffer_bytes);
    let attempt = thread::spawn(move || -> Result<(), RingError> {
        let runtime = ring::runtime()?;
        runtime.block_on(async {
            let _buffers = Buffers::register(count, bytes)?;
            tokio_uring::no_op().await.map_err(RingError::Create)
        })
    });
    match attempt.join() {
        Ok(Ok(())) => pass("io_uring", format!("a ring with {count} registered windows works")),
        Ok(Err(RingError::Create(error))) => ring_refused(
            &error,
            &Refusal { disabled: io_uring_disabled(), seccomp: under_seccomp() },
        ),
        Ok(Err(RingError::Register { bytes, source })) if ring::out_of_memory(&source) => warn(
            "io_uring",
            format!("a ring works, but {bytes} bytes of windows cannot be locked"),
            "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, --ulimit memlock=), which all \
             processes of a user share, or start with --registered-buffers 0",
        ),
        Ok(Err(error @ RingError::Register { .. })) => fail(
            "io_uring",
            error.to_string(),
            "start with --registered-buffers 0, which uses plain memory",
        ),
        Err(_) => fail("io_uring", "the check panicked".to_owned(), "please report this bug"),
    }
}

/// What distinguishes the causes of a refusal.
struct Refusal {
    /// Value of the sysctl `kernel.io_uring_disabled`, if it exists.
    disabled: Option<u32>,
    /// Whether a seccomp filter applies to this process.
    seccomp: bool,
}

fn ring_refused(error: &io::Error, refusal: &Refusal) -> Finding {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    let found = format!("io_uring_setup fails: {error}");
    let disabled = refusal.disabled.unwrap_or(0);
    if errno == Some(Errno::PERM) && disabled == 2 {
        let remedy = "kernel.io_uring_disabled is 2, which forbids io_uring to all processes: \
                      `sysctl kernel.io_uring_disabled=0` on the host";
        return fail("io_uring", found, remedy);
    }
    if errno == Some(Errno::PERM) && disabled == 1 {
        let remedy = "kernel.io_uring_disabled is 1, which reserves io_uring for CAP_SYS_ADMIN \
                      and the group kernel.io_uring_group: join that group, or \
                      `sysctl kernel.io_uring_disabled=0` on the host";
        return fail("io_uring", found, remedy);
    }
    let seccomp = "a seccomp profile forbids io_uring (Docker's default does, since engine 25): \
                   start the container with --security-opt \
                   seccomp=deploy/docker/seccomp-ringest.json";
    let remedy = match errno {
        Some(Errno::PERM) if refusal.seccomp => seccomp.to_owned(),
        Some(Errno::PERM) => format!("a security module forbids it, or {seccomp}"),
        Some(Errno::NOSYS) if refusal.seccomp => {
            format!("{seccomp}; podman's profile and kernels without io_uring give the same error")
        }
        Some(Errno::NOSYS) => "this kernel has no io_uring: run Linux 6.0 or later, built with \
                               CONFIG_IO_URING"
            .to_owned(),
        Some(Errno::NOMEM) => "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, --ulimit \
                               memlock=): rings and registered windows of all workers count"
            .to_owned(),
        Some(Errno::INVAL) => "this kernel does not know the flags SINGLE_ISSUER and \
                               COOP_TASKRUN: run Linux 6.0 or later"
            .to_owned(),
        _ => "see io_uring_setup(2) for this error".to_owned(),
    };
    fail("io_uring", found, remedy)
}

fn io_uring_disabled() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn under_seccomp() -> bool {
    process_status("Seccomp:").is_some_and(|mode| mode != "0")
}

/// A field of /proc/self/status, by its name with the colon.
fn process_status(name: &str) -> Option<String> {
    proc_field(&fs::read("/proc/self/status").ok()?, name)
}

/// The rest of the line that begins with `name`, without white space around it.
fn proc_field(file: &[u8], name: &str) -> Option<String> {
    let at = memchr::memmem::find_iter(file, name.as_bytes())
        .find(|&at| at == 0 || file[at - 1] == b'\n')?;
    let rest = &file[at + name.len()..];
    let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

/// Resident memory of this process; `None` if the kernel does not report it.
pub(crate) fn resident_bytes() -> Option<u64> {
    kib(&process_status("VmRSS:")?)
}

/// Bytes of a size as /proc files print it: `1234 kB`.
fn kib(size: &str) -> Option<u64> {
    Some(size.strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
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
        return (asked, pass("memlock", format!("no limit; {} needed", ByteSize(needed))));
    };
    let found = format!("{} allowed, {} needed", ByteSize(allowed), ByteSize(needed));
    if allowed >= needed {
        return (asked, pass("memlock", found));
    }
    let Some(left) = allowed.checked_sub(rings) else {
        return (
            0,
            fail("memlock", format!("{found}, {} for rings alone", ByteSize(rings)), REMEDY),
        );
    };
    let windows = left as usize / (workers * config.buffer_bytes);
    let found = format!("{found}: each worker registers {windows} windows instead of {asked}");
    (windows, warn("memlock", found, REMEDY))
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
            fail_with_remedy("nofile", &error.to_string())
        }
        limit => {
            let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
            pass("nofile", format!("{limit} descriptors allowed, {need} needed"))
        }
    }
}

/// The process may not open as many files as it needs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{max_connections} connections need {need} file descriptors, but {limit} are allowed; \
     raise the hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=) or lower --max-connections"
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
    cores(config).1
}

/// The finding about cores, and how many workers there would be.
fn cores(config: &Config) -> (Finding, usize) {
    let chosen = cores::allowed().and_then(|allowed| {
        let chosen = cores::choose(&config.cores, &allowed)?;
        Ok((chosen.len(), cores::cpu_list(&allowed)))
    });
    match chosen {
        Ok((workers, allowed)) => {
            (pass("cores", format!("{workers} workers; allowed cores: {allowed}")), workers)
        }
        Err(error) => {
            let remedy = "choose from the allowed cores, or leave --cores out to use them all";
            (fail("cores", error.to_string(), remedy), config.cores.len().max(1))
        }
    }
}

fn cpu_quota(workers: usize) -> Finding {
    // In a container, the process's own group is the root of what it sees.
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    let read = |group: &str| fs::read_to_string(format!("/sys/fs/cgroup{group}/cpu.max")).ok();
    cpu_quota_finding(read(&group).or_else(|| read("")).as_deref(), workers)
}

/// `cpu_max` is the content of the control group's file: `max 100000` or `150000 100000`.
fn cpu_quota_finding(cpu_max: Option<&str>, workers: usize) -> Finding {
    let mut words = cpu_max.unwrap_or("max").split_whitespace();
    let quota: Option<f64> = words.next().and_then(|word| word.parse().ok());
    let period: Option<f64> = words.next().and_then(|word| word.parse().ok());
    match (quota, period) {
        (Some(quota), Some(period)) if quota / period < workers as f64 => warn(
            "cpu_quota",
            format!("{:.2} cores' worth of CPU time for {workers} workers", quota / period),
            "the kernel stops all workers once the quota is used up: raise it (--cpus), or name \
             fewer cores with --cores",
        ),
        (Some(quota), Some(period)) => {
            pass("cpu_quota", format!("{:.2} cores' worth of CPU time", quota / period))
        }
        _ => pass("cpu_quota", "none".to_owned()),
    }
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
            Err(error) => return fail_with_remedy("port", &error.to_string()),
        }
        found.push(match port {
            0 => format!("any free port for {what}"),
            port => format!("{port} is free for {what}"),
        });
    }
    pass("port", found.join(", "))
}

/// Only with TLS: one finding, or one for each certificate whose dates are a problem.
fn certificates(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "certificates";
    let certificates = match load_certificates(config) {
        Ok(None) => return Vec::new(),
        Ok(Some(certificates)) => certificates,
        Err(error) => return vec![fail_with_remedy(CHECK, &error.to_string())],
    };
    let doubtful = certificates.doubtful(SystemTime::now());
    if doubtful.is_empty() {
        return vec![pass(CHECK, "key and certificates are usable".to_owned())];
    }
    let warning =
        |message: String| Finding { verdict: Verdict::Warn, ..fail_with_remedy(CHECK, &message) };
    doubtful.into_iter().map(|dated| warning(dated.to_string())).collect()
}

/// Only with --auth-file.
fn users(config: &Config) -> Option<Finding> {
    Some(match auth_file::load(config.auth_file.as_ref()?) {
        Ok(table) if table.is_empty() => {
            let remedy = "add one with `ringest token USER --auth-file FILE`";
            warn("auth_file", "it lists no user".to_owned(), remedy)
        }
        Ok(table) => match table.doubtful() {
            Some(doubtful) => Finding {
                verdict: Verdict::Warn,
                ..fail_with_remedy("auth_file", &doubtful.to_string())
            },
            None => pass("auth_file", format!("{} users", table.len())),
        },
        Err(error) => fail_with_remedy("auth_file", &error.to_string()),
    })
}

fn memory(config: &Config, workers: usize) -> Finding {
    let memory = config.memory(workers);
    let total = fs::read("/proc/meminfo").ok();
    let total = total.and_then(|file| kib(&proc_field(&file, "MemTotal:")?));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    let available = total.into_iter().chain(group).min().unwrap_or(u64::MAX);
    let bytes = |bytes: usize| ByteSize(bytes as u64);
    let found = format!(
        "{} at start; {} with {} streams sending and {} clients waiting; {} if each stream also \
         reaches --groups-limit and --strings-bytes-limit and each client is busy; the host has {}",
        bytes(memory.at_start()),
        bytes(memory.all_receiving()),
        memory.streams,
        memory.connections,
        bytes(memory.worst()),
        ByteSize(available),
    );
    if memory.all_receiving() as u64 > available {
        return fail("memory", found, "lower --max-streams, --batch-rows or --buffer-bytes");
    }
    if memory.worst() as u64 > available {
        let remedy = "untrusted peers could exhaust this host: lower --groups-limit, \
                      --strings-bytes-limit or --max-streams";
        return warn("memory", found, remedy);
    }
    pass("memory", found)
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
