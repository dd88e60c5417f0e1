//! Programs under test as processes on chosen cores, and the processor time that they take. Sends
//! them nothing and knows none of them.

#![allow(dead_code, reason = "each benchmark uses its own part")]

use rustix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The build of ringest that the benchmark was built with.
pub const RINGEST: &str = env!("CARGO_BIN_EXE_ringest");

/// A running program, ended when it is dropped.
pub struct Process {
    child: Child,
    clock: ClockOfProcess,
}

impl Process {
    /// Starts it. Its clock is looked up now, so that a wrong system is noticed at once.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot start {:?}: {error}", command.get_program()),
            )
        })?;
        match ClockOfProcess::of(child.id()) {
            Ok(clock) => Ok(Process { child, clock }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait().map(drop));
                Err(error)
            }
        }
    }

    /// Processor time of all its threads so far, of those that have ended, too.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.clock.now()
    }

    /// What it says, where that is piped; only once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// What it complains of, where that is piped; only once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The clock of a process's processor time. Not /proc/PID/stat, which counts hundredths of a second,
/// and not the threads' schedstat, which forgets threads that have ended.
#[derive(Clone, Copy)]
struct ClockOfProcess(libc::clockid_t);

impl ClockOfProcess {
    fn of(pid: u32) -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the pointer is valid for the write of one clockid_t.
        let error = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
        match error {
            0 => Ok(ClockOfProcess(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn now(self) -> io::Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is valid for the write of one timespec.
        match unsafe { libc::clock_gettime(self.0, &raw mut time) } {
            0 => Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Processor time of this process so far.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// A command that runs on these cores alone (a list as `taskset -c` takes it), with nothing to say
/// on stdout, and without settings of the caller's own engines.
pub fn pinned(cores: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program).stdin(Stdio::null()).stdout(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy().starts_with("RINGEST_");
        if ours || ["RUST_LOG", "MAX_CONNECTIONS", "RATE_LIMIT"].iter().any(|&own| name == own) {
            command.env_remove(name);
        }
    }
    command
}

/// The calling thread, and every thread that it makes, runs on one core.
pub fn pin(core: usize) -> Result<(), Box<dyn Error>> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores)
        .map_err(|error| format!("the client cannot run on core {core}: {error}").into())
}

/// As many open files as the system allows; programs inherit it.
pub fn raise_open_files() -> Result<(), Box<dyn Error>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The program of this name in PATH.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The address that a program says on stderr it is ready for `what` on. What it says later is read
/// and dropped.
///
/// # Errors
/// All that it said, where it ended without that.
pub fn announced(
    mut stderr: impl BufRead + Send + 'static,
    what: &str,
) -> Result<SocketAddr, String> {
    let ready = format!("ready for {what} on ");
    let mut said = String::new();
    loop {
        let begin = said.len();
        match stderr.read_line(&mut said) {
            Ok(0) => return Err(said),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        let Some((_, rest)) = said[begin..].split_once(&ready) else { continue };
        let address = rest.split_whitespace().next().unwrap_or("");
        let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
        std::thread::spawn(move || io::copy(&mut stderr, &mut io::sink()));
        return Ok(address);
    }
}
