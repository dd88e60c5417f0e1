//! Starts the servers that are compared, each pinned to the same core, and reads their processor
//! time. Sends them nothing.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time that a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Units of /proc/PID/stat in a second: USER_HZ, 100 on every architecture that Linux has today.
const STAT_TICKS_PER_S: u64 = 100;

/// A running server, ended when it is dropped.
pub struct Server {
    /// Its name in the tables.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// `ringest serve` of this build, with one worker and no limits.
    pub fn ringest(core: usize) -> Result<Self, Box<dyn Error>> {
        Self::ringest_at("ringest", env!("CARGO_BIN_EXE_ringest"), core)
    }

    /// The same of any build.
    pub fn ringest_at(
        name: &'static str,
        program: &str,
        core: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(core, program);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", "0", "--admin-port", "0"])
            .args(["--no-records", "--rate-limit", "0", "--global-rate-limit", "0"])
            .args(["--max-connections", "2000", "--idle-timeout", "60s"])
            .args(["--cores", &core.to_string()])
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = BufReader::new(child.stderr.take().expect("it was piped"));
        match announced(stderr) {
            Ok(address) => Ok(Server { name, address, child }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait().map(drop));
                Err(format!("{program} did not start: {error}").into())
            }
        }
    }

    /// `redis-server` from PATH that keeps nothing on disk.
    pub fn redis(core: usize) -> Result<Self, Box<dyn Error>> {
        let port = free_port()?;
        let mut command = pinned(core, "redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]).args([
            "--appendonly",
            "no",
            "--maxclients",
            "4000",
        ]);
        Self::listening("redis", command, port)
    }

    /// `nats-server` from PATH, as it comes.
    pub fn nats(core: usize) -> Result<Self, Box<dyn Error>> {
        let port = free_port()?;
        let mut command = pinned(core, "nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).stderr(Stdio::null());
        Self::listening("nats", command, port)
    }

    fn listening(
        name: &'static str,
        mut command: Command,
        port: u16,
    ) -> Result<Self, Box<dyn Error>> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server { name, address, child: command.spawn()? };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{name} did not start: {status}").into());
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(format!("{name} does not listen after {START_TIMEOUT:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Processor time of all its threads so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu_of(&self.child.id().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether PATH holds a program of this name.
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Processor time of this process so far.
pub fn own_cpu() -> io::Result<Duration> {
    cpu_of("self")
}

fn cpu_of(process: &str) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses, which may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
    match (next(), next()) {
        (Some(user), Some(system)) => {
            Ok(Duration::from_millis((user + system) * (1000 / STAT_TICKS_PER_S)))
        }
        _ => Err(io::Error::other(format!("/proc/{process}/stat is not understood: {stat:?}"))),
    }
}

/// A command that runs on one core, with nothing to say on stdout.
fn pinned(core: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The address that ringest says it listens on. What it says later is read and dropped.
fn announced(mut stderr: impl BufRead + Send + 'static) -> Result<SocketAddr, String> {
    let mut said = String::new();
    loop {
        let begin = said.len();
        match stderr.read_line(&mut said) {
            Ok(0) => return Err(said),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        let Some((_, rest)) = said[begin..].split_once("ready for messages on ") else { continue };
        let address = rest.split(' ').next().unwrap_or("");
        let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
        std::thread::spawn(move || io::copy(&mut stderr, &mut io::sink()));
        return Ok(address);
    }
}
