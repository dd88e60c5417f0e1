//! Starts the servers that are compared, all pinned to the same core.

use crate::process::{Process, RINGEST, announced, pinned};
use std::error::Error;
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start listening.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server, killed when dropped.
pub struct Server {
    /// Its name in the tables.
    pub name: &'static str,
    /// Its listening address.
    pub address: SocketAddr,
    process: Process,
}

impl Server {
    /// `ringest serve` of this build, with one worker and no limits.
    pub fn ringest(core: usize) -> Result<Self, Box<dyn Error>> {
        Self::ringest_at("ringest", RINGEST, core)
    }

    /// The same with any build of ringest.
    pub fn ringest_at(
        name: &'static str,
        program: &str,
        core: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(&core.to_string(), program);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", "0", "--admin-port", "0"])
            .args(["--no-records", "--rate-limit", "0", "--global-rate-limit", "0"])
            .args(["--max-connections", "2000", "--idle-timeout", "60s"])
            .args(["--cores", &core.to_string()])
            .stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stderr = BufReader::new(process.stderr().expect("it was piped"));
        match announced(stderr, "messages") {
            Ok(address) => Ok(Server { name, address, process }),
            Err(error) => Err(format!("{program} did not start: {error}").into()),
        }
    }

    /// `redis-server` from PATH, without persistence.
    pub fn redis(core: usize) -> Result<Self, Box<dyn Error>> {
        let port = free_port()?;
        let mut command = pinned(&core.to_string(), "redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]).args([
            "--appendonly",
            "no",
            "--maxclients",
            "4000",
        ]);
        Self::listening("redis", command, port)
    }

    /// `nats-server` from PATH, with its default settings.
    pub fn nats(core: usize) -> Result<Self, Box<dyn Error>> {
        let port = free_port()?;
        let mut command = pinned(&core.to_string(), "nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).stderr(Stdio::null());
        Self::listening("nats", command, port)
    }

    fn listening(
        name: &'static str,
        mut command: Command,
        port: u16,
    ) -> Result<Self, Box<dyn Error>> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server { name, address, process: Process::start(&mut command)? };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.process.try_wait()? {
                return Err(format!("{name} did not start: {status}").into());
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(format!("{name} is not listening after {START_TIMEOUT:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Processor time of all its threads so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.process.cpu()
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
