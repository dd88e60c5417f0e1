//! Runs programs under test as processes on chosen cores, and measures their processor time.

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

/// A running program, killed when dropped.
pub struct Process {
    child: Child,
    clock: ClockOfProcess,
}

impl Process {
    /// Starts the program. Looks up its clock now, so that an unsuitable system fails early.
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

    /// Processor time so far of all its threads, including those that have ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.clock.now()
    }

    /// Its stdout, if piped; only the first call returns it.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its stderr, if piped; only the first call returns it.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Its exit status, if it has ended.
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

/// The clock of a process's processor time. /proc/PID/stat is too coarse (hundredths of a second),
/// and the threads' schedstat loses threads that have ended.
#[derive(Clone, Copy)]
struct ClockOfProcess(libc::clockid_t);

impl ClockOfProcess {
    fn of(pid: u32) -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the pointer is valid for writing one clockid_t.
        let error = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
        match error {
            0 => Ok(ClockOfProcess(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn now(self) -> io::Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is valid for writing one timespec.
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

/// A command restricted to these cores (a list as for `taskset -c`), with stdin and stdout closed,
/// and without engine settings from the caller's environment.
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

/// Pins the calling thread, and every thread it will start, to one core.
pub fn pin(core: usize) -> Result<(), Box<dyn Error>> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores)
        .map_err(|error| format!("cannot pin the client to core {core}: {error}").into())
}

/// Raises the limit of open files to the hard limit. Started programs inherit it.
pub fn raise_open_files() -> Result<(), Box<dyn Error>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Finds a program in PATH.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Waits until a program announces on stderr that it is ready for `what`, and returns the address.
/// Later output is read and discarded.
///
/// # Errors
/// The whole output, if the program ends without that line.
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
