//! Runs the program under limits that a host may set: numbers of threads, files and bytes, and
//! system calls that a filter refuses.

use crate::common::{PATIENCE, RINGEST, ringest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

/// Sets limits and filters in its own process, which then becomes the program. Limits on threads
/// count per user and do not hold for root, who becomes a user without other processes.
const LAUNCHER: &str = r#"
import ctypes, json, os, resource, struct, sys

wanted, program = json.loads(sys.argv[1]), os.open(sys.argv[2], os.O_RDONLY)
if wanted["refused"]:
    libc = ctypes.CDLL(None, use_errno=True)
    def step(code, if_so, if_not, value):
        return struct.pack("HBBI", code, if_so, if_not, value)
    filters = step(0x20, 0, 0, 0)
    for call, errno in wanted["refused"]:
        filters += step(0x15, 0, 1, call) + step(0x06, 0, 0, 0x00050000 | errno)
    filters += step(0x06, 0, 0, 0x7fff0000)
    text = ctypes.create_string_buffer(filters)
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.c_void_p)]
    pointed = Program(len(filters) // 8, ctypes.addressof(text))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(pointed)):
        sys.exit("cannot install a filter")
if "NPROC" in wanted["limits"] and os.getuid() == 0:
    os.setgroups([])
    os.setgid(wanted["user"])
    os.setuid(wanted["user"])
for name, limit in wanted["limits"].items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
os.execve(program, ["ringest", *sys.argv[3:]], os.environ)
"#;

/// Numbers of system calls on x86_64 and aarch64, which have them in common since 2019.
pub const IO_URING_ENTER: u32 = 426;
pub const IO_URING_REGISTER: u32 = 427;
/// Errors of system calls.
pub const EPERM: u32 = 1;
pub const ENOSYS: u32 = 38;

/// What the program may have.
#[derive(Clone, Default)]
pub struct Confined {
    limits: serde_json::Map<String, Value>,
    refused: Vec<(u32, u32)>,
}

impl Confined {
    /// Under a limit, by its name without `RLIMIT_`.
    pub fn limit(name: &str, value: u64) -> Self {
        Confined {
            limits: [(name.to_owned(), value.into())].into_iter().collect(),
            refused: vec![],
        }
    }

    /// Behind a filter that answers these system calls with an error.
    pub fn refusing(refused: &[(u32, u32)]) -> Self {
        Confined { refused: refused.to_vec(), ..Confined::default() }
    }

    /// The program, to be given its arguments.
    pub fn command(&self) -> Command {
        // One that no other test has at the same time.
        let user = 100_000 + std::process::id() % 1_000_000;
        let wanted = json!({ "limits": self.limits, "refused": self.refused, "user": user });
        let mut command = Command::new(python());
        let cleared = ringest();
        for (name, value) in cleared.get_envs() {
            assert!(value.is_none(), "variables are only removed");
            command.env_remove(name);
        }
        command.args(["-c", LAUNCHER, &wanted.to_string(), RINGEST]).stdin(Stdio::null());
        command
    }
}

/// The interpreter itself: what is called python3 may be a script that looks for it, and takes most
/// of a second each time.
fn python() -> &'static OsStr {
    static PYTHON: OnceLock<OsString> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let asked =
            Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let path = asked.expect("python3").stdout;
        OsStr::from_bytes(path.trim_ascii_end()).to_owned()
    })
}

/// How a command that may serve came out.
#[derive(Debug)]
pub enum Outcome {
    /// It got ready and was stopped.
    Ready(ExitStatus, String),
    /// It ended before.
    Ended(ExitStatus, String),
}

/// Starts an engine on free ports; stops it once it is ready.
pub fn serve(mut command: Command, options: &[&str]) -> Outcome {
    let ports = ["--port", "0", "--records-port", "0", "--admin-port", "0"];
    command.args(["serve", "--host", "127.0.0.1"]).args(ports).args(options);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("python3");
    let id = Pid::from_child(&child);
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    // A command that neither gets ready nor ends is killed, and fails the test by that.
    let (ended, watched) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if watched.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(id, Signal::KILL);
        }
    });
    let (mut log, mut ready) = (String::new(), false);
    while stderr.read_line(&mut log).expect("text") > 0 {
        if log.contains("ready for records on ") {
            ready = true;
            kill_process(id, Signal::TERM).expect("it runs");
            break;
        }
    }
    stderr.read_to_string(&mut log).expect("text");
    let status = child.wait().expect("a child");
    drop(ended);
    watchdog.join().expect("no panic");
    if ready { Outcome::Ready(status, log) } else { Outcome::Ended(status, log) }
}
