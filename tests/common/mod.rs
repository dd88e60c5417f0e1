//! What the end-to-end tests share: an engine as a process, raw senders, and naive oracles. Shares
//! no code with the engine.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod beside;
pub mod oracle;
pub mod proxy;
pub mod wire;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The program under test.
pub const RINGEST: &str = env!("CARGO_BIN_EXE_ringest");
/// Longer than anything here takes; a test that reaches it fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The clone that is tested, as cargo names it at run time: a test may have been compiled in a
/// second one with the same directory for what it builds.
pub fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo test sets it"))
}

/// A device like /dev/null: where it may be made, one of the tests' own, since a program that is
/// wrong and runs as root may replace it.
pub fn null_device(directory: &Path) -> PathBuf {
    let own = directory.join("null");
    let _ = Command::new("mknod").arg(&own).args(["c", "1", "3"]).output();
    let writable = File::options().write(true).open(&own).is_ok();
    if writable { own } else { "/dev/null".into() }
}

/// A command of the program without any of the caller's settings.
pub fn ringest() -> Command {
    let mut command = Command::new(RINGEST);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGEST_")) {
        command.env_remove(name);
    }
    for name in ["RUST_LOG", "MAX_CONNECTIONS", "RATE_LIMIT"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

pub fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first core that this process may use: an engine on it has one worker, so that all
/// connections share it.
pub fn one_core() -> String {
    core_affinity::get_core_ids().expect("cores")[0].id.to_string()
}

/// An address at which nobody listens, and what keeps other processes from it: a port that a test
/// has given up may be another test's a moment later.
pub fn nobody() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().expect("its address");
    (address.as_socket().expect("an address of IP"), socket)
}

/// Limits of an engine's patience with its peers, here the tests, which may take longer on a busy
/// machine than the defaults allow. A test of such a limit sets it by its option, which prevails.
const PATIENT: [(&str, &str); 6] = [
    ("RINGEST_ADMIT_TIMEOUT", "1h"),
    ("RINGEST_AUTH_TIMEOUT", "1h"),
    ("RINGEST_FRAME_TIMEOUT", "1h"),
    ("RINGEST_HANDSHAKE_TIMEOUT", "1h"),
    ("RINGEST_IDLE_TIMEOUT", "1h"),
    ("RINGEST_PACKET_TIMEOUT", "1h"),
];

/// Connects from an address that no other such connection of this process has or had: over loopback
/// a port is used again after a second, and results say no more than the peer's address.
pub fn connect_as_new(engine: SocketAddr) -> std::io::Result<TcpStream> {
    static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
    let [_, high, middle, low] = CONNECTIONS.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let own = SocketAddr::from(([127, 64 + high, middle, low], 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&own.into()).expect("every address of 127.0.0.0/8 is this host's");
    socket.connect(&engine.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Which listeners an engine has, each on a free port.
const RECORDS_ONLY: &[&str] = &["--records-port", "0", "--no-messages"];
const MESSAGES_ONLY: &[&str] = &["--port", "0", "--no-records"];
const BOTH: &[&str] = &["--port", "0", "--records-port", "0"];

/// A running `ringest serve --format ndjson` on free ports. Ended by id when dropped.
pub struct Engine {
    pub child: Child,
    /// Of the record listener, or of the message listener where that is the only one.
    pub address: SocketAddr,
    directory: tempfile::TempDir,
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts one that takes record streams, with further options, and waits until it is ready.
    /// Its results go to a file.
    pub fn start(options: &[&str]) -> Engine {
        Engine::start_command(ringest(), RECORDS_ONLY, options)
    }

    /// One that takes messages.
    pub fn start_messages(options: &[&str]) -> Engine {
        Engine::start_command(ringest(), MESSAGES_ONLY, options)
    }

    /// One that takes both.
    pub fn start_both(options: &[&str]) -> Engine {
        Engine::start_command(ringest(), BOTH, options)
    }

    /// One that takes messages, with variables of the environment.
    pub fn start_messages_in(environment: &[(&str, &str)], options: &[&str]) -> Engine {
        let mut command = ringest();
        command.envs(environment.iter().copied());
        Engine::start_command(command, MESSAGES_ONLY, options)
    }

    /// One that takes both, with variables of the environment.
    pub fn start_both_in(environment: &[(&str, &str)], options: &[&str]) -> Engine {
        let mut command = ringest();
        command.envs(environment.iter().copied());
        Engine::start_command(command, BOTH, options)
    }

    fn start_command(command: Command, listeners: &[&str], options: &[&str]) -> Engine {
        let directory = tempfile::tempdir().expect("a directory");
        let results = File::create(directory.path().join("results")).expect("a file");
        let options = [listeners, options].concat();
        let (mut engine, stderr) = Engine::spawn(command, &options, results.into(), directory);
        engine.read_log(stderr);
        engine
    }

    /// Keeps what comes on stderr from now on.
    pub fn read_log(&mut self, mut stderr: BufReader<ChildStderr>) {
        let log = Arc::clone(&self.log);
        self.log_reader = Some(thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                log.lock().unwrap().push_str(&line);
                line.clear();
            }
        }));
    }

    /// One that takes record streams, with another stdout; also gives what follows on its stderr.
    pub fn start_with(options: &[&str], stdout: Stdio) -> (Engine, BufReader<ChildStderr>) {
        Engine::start_command_with(ringest(), options, stdout)
    }

    /// One that takes both, with another stdout; also gives what follows on its stderr.
    pub fn start_both_with(options: &[&str], stdout: Stdio) -> (Engine, BufReader<ChildStderr>) {
        let options = [BOTH, options].concat();
        Engine::spawn(ringest(), &options, stdout, tempfile::tempdir().expect("a directory"))
    }

    /// The same, where a command of the test's own runs the program.
    pub fn start_command_with(
        command: Command,
        options: &[&str],
        stdout: Stdio,
    ) -> (Engine, BufReader<ChildStderr>) {
        let options = [RECORDS_ONLY, options].concat();
        Engine::spawn(command, &options, stdout, tempfile::tempdir().expect("a directory"))
    }

    fn spawn(
        mut command: Command,
        options: &[&str],
        stdout: Stdio,
        directory: tempfile::TempDir,
    ) -> (Engine, BufReader<ChildStderr>) {
        let loopback: &[_] =
            if options.contains(&"--host") { &[] } else { &["--host", "127.0.0.1"] };
        for (name, value) in PATIENT {
            if command.get_envs().all(|(given, _)| given != name) {
                command.env(name, value);
            }
        }
        let mut child = command
            .args(["serve", "--admin-port", "0", "--format", "ndjson"])
            .args(loopback)
            .args(options)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the engine starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut log = String::new();
        // Records are announced after messages.
        let last = if options.contains(&"--no-records") { "messages" } else { "records" };
        let address = loop {
            if let Some(address) = ready_for(last, &log) {
                break address;
            }
            let bytes = stderr.read_line(&mut log).expect("text");
            assert!(bytes > 0, "the engine did not get ready: {log}");
        };
        let log = Arc::new(Mutex::new(log));
        (Engine { child, address, directory, log, log_reader: None }, stderr)
    }

    /// Where the engine is ready for messages.
    pub fn messages(&self) -> SocketAddr {
        ready_for("messages", &self.log()).expect("a message listener")
    }

    /// Where the engine is ready for questions about itself.
    pub fn admin(&self) -> SocketAddr {
        let mut address = None;
        until("the admin listener", || {
            address = ready_for("admin", &self.log());
            address.is_some()
        });
        address.unwrap()
    }

    pub fn results_path(&self) -> PathBuf {
        self.directory.path().join("results")
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the engine accepts");
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).expect("the engine runs");
    }

    /// What stands on stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The results printed so far.
    pub fn results(&self) -> Vec<Value> {
        read_results(&self.results_path())
    }

    /// Waits until `count` results are there.
    pub fn wait_for_results(&self, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        until("results", || {
            found = self.results();
            found.len() >= count
        });
        found
    }

    /// Peak resident memory in KiB.
    pub fn memory_peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    /// Resident memory in KiB.
    pub fn memory_resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// Waits for the engine's own end; gives its exit status, results and log.
    pub fn wait(mut self) -> (ExitStatus, Vec<Value>, String) {
        let status = self.wait_for_end();
        self.log_reader.take().unwrap().join().unwrap();
        (status, self.results(), self.log())
    }

    /// Waits for the engine's own end.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the engine's end", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that a log says to be ready for `what`.
fn ready_for(what: &str, log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(&format!("ready for {what} on "))?;
    let (line, _) = rest.split_once('\n')?;
    let address = line.split(' ').next().unwrap_or(line);
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    Some(address.parse().expect("an address"))
}

/// Waits until `done`, and fails the test if that never comes.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(10));
    }
}

pub fn read_results(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("results");
    let finished = text.rfind('\n').map_or("", |end| &text[..end]);
    finished
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).expect("a result is a JSON object"))
        .collect()
}

/// Sends bytes and closes; gives the sender's address.
pub fn send(engine: &Engine, bytes: &[u8]) -> SocketAddr {
    let mut stream = engine.connect();
    let local = stream.local_addr().unwrap();
    stream.write_all(bytes).expect("the engine reads");
    local
}

/// Waits until the engine has closed the connection.
pub fn wait_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Ok(_) => panic!("the engine sends nothing"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// The result of one sender.
pub fn result_of(results: &[Value], peer: SocketAddr) -> &Value {
    let peer = peer.to_string();
    let mut found = results.iter().filter(|result| result["peer"] == peer.as_str());
    let result = found.next().unwrap_or_else(|| panic!("no result of {peer}"));
    assert!(found.next().is_none(), "{peer} is reported twice");
    result
}
