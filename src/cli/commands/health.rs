//! `ringest health`: tells whether the engine on this host is ready, for containers that have no
//! other tool. Asks the admin listener or, given a record port, the kernel's socket table. It does
//! not connect to the record or message listener, which would count and report the connection.

use crate::cli::args::environment::complain;
use crate::cli::args::health::HealthOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_OK};
use crate::config::ADMIN_PORT_OFFSET;
use crate::runtime::host::findings::is_listening;
use crate::wire::text::Escaped;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longest time for the whole check, except name resolution.
const DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of a reply that are read at most.
const REPLY_BYTES_MAX: usize = 4 << 10;
const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Why the engine does not count as healthy.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("the port of the admin listener is unknown: {0}; give its number with --admin-port")]
    PortUnknown(&'static str),
    #[error(
        "cannot resolve {}: {source}; give --admin-host an address",
        Escaped(.host.as_bytes())
    )]
    Resolve { host: String, source: io::Error },
    #[error(
        "no admin listener answers at {address}: {source}; check that `ringest serve` runs here, \
         and with which --admin-host and --admin-port"
    )]
    Unreachable { address: SocketAddr, source: io::Error },
    #[error(
        "the server at {address} does not answer like ringest's admin listener; check which port \
         `ringest serve` printed for it"
    )]
    Foreign { address: SocketAddr },
    #[error(
        "the engine at {address} is not ready, HTTP status {status}: {}; see its log",
        Escaped(.said.as_bytes())
    )]
    NotReady { address: SocketAddr, status: u16, said: String },
    #[error("nothing listens on port {0}; start `ringest serve`")]
    NotListening(u16),
    #[error("cannot read the kernel's socket table: {0}; mount /proc, or omit --records-port")]
    NoTable(io::Error),
}

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &HealthOptions) -> u8 {
    let checked = match options.records_port {
        Some(port) => see_listener(port),
        None => ask_admin(options),
    };
    match checked {
        Ok(()) => EXIT_OK,
        Err(unhealthy) => {
            complain(unhealthy);
            EXIT_FAILED
        }
    }
}

fn see_listener(port: u16) -> Result<(), Unhealthy> {
    match is_listening(port) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unhealthy::NotListening(port)),
        Err(error) => Err(Unhealthy::NoTable(error)),
    }
}

fn ask_admin(options: &HealthOptions) -> Result<(), Unhealthy> {
    let port = admin_port(options)?;
    let deadline = Instant::now() + DEADLINE;
    let mut last = None;
    for address in addresses(&options.admin_host, port)? {
        match ask(address, deadline) {
            Ok(reply) => return judge(address, &reply),
            Err(source) => last = Some(Unhealthy::Unreachable { address, source }),
        }
    }
    let nothing = || Unhealthy::Resolve {
        host: options.admin_host.clone(),
        source: io::Error::other("the name has no address"),
    };
    Err(last.unwrap_or_else(nothing))
}

fn admin_port(options: &HealthOptions) -> Result<u16, Unhealthy> {
    match (options.admin_port, options.port) {
        (Some(0), _) => Err(Unhealthy::PortUnknown("--admin-port 0 lets the system choose one")),
        (Some(port), _) => Ok(port),
        (None, 0) => Err(Unhealthy::PortUnknown("--port 0 lets the system choose one")),
        (None, port) => port
            .checked_add(ADMIN_PORT_OFFSET)
            .ok_or(Unhealthy::PortUnknown("1000 above --port is beyond 65535")),
    }
}

/// Addresses to ask. A listener on all addresses is asked on loopback.
fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Unhealthy> {
    let resolved = (host, port).to_socket_addrs();
    let resolved = resolved
        .map_err(|source| Unhealthy::Resolve { host: host.to_owned(), source })?
        .flat_map(|address| match address.ip() {
            ip if !ip.is_unspecified() => vec![ip],
            IpAddr::V4(_) => vec![Ipv4Addr::LOCALHOST.into()],
            IpAddr::V6(_) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        });
    Ok(resolved.map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Sends the request and reads the reply until the server closes or the limit is reached.
fn ask(address: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(REQUEST)?;
    let mut reply = Vec::new();
    let mut chunk = [0; 512];
    while reply.len() < REPLY_BYTES_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => reply.extend_from_slice(&chunk[..n]),
            // A refusal may be followed by a reset.
            Err(error) if reset(&error) && !reply.is_empty() => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        }
    }
    Ok(reply)
}

fn reset(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

/// Time until the deadline, never zero: a socket option of zero means no limit.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

fn too_late() -> io::Error {
    let message = format!("no answer within {} s", DEADLINE.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

fn judge(address: SocketAddr, reply: &[u8]) -> Result<(), Unhealthy> {
    let Some((status, said)) = parse(reply) else { return Err(Unhealthy::Foreign { address }) };
    match status {
        200 if said == "ready" => Ok(()),
        503 => Err(Unhealthy::NotReady { address, status, said }),
        _ => Err(Unhealthy::Foreign { address }),
    }
}

/// The status and the first line of the body.
fn parse(reply: &[u8]) -> Option<(u16, String)> {
    let reply = String::from_utf8_lossy(reply);
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(admin_port: Option<u16>, port: u16) -> HealthOptions {
        let admin_host = "127.0.0.1".to_owned();
        HealthOptions { admin_host, admin_port, port, records_port: None }
    }

    #[test]
    fn the_admin_port_is_the_one_given_or_1000_above() {
        let port = |admin, port| admin_port(&options(admin, port)).map_err(|e| e.to_string());
        assert_eq!(port(None, 5000), Ok(6000));
        assert_eq!(port(Some(7), 5000), Ok(7));
        assert_eq!(port(None, 64_535), Ok(65_535));
        for unknown in [port(Some(0), 5000), port(None, 0), port(None, 64_536)] {
            let message = unknown.unwrap_err();
            assert!(message.ends_with("give its number with --admin-port"), "{message}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let at = |host| addresses(host, 1).unwrap().iter().map(ToString::to_string).collect();
        let expected: [(&str, &[&str]); 4] = [
            ("0.0.0.0", &["127.0.0.1:1"]),
            ("::", &["127.0.0.1:1", "[::1]:1"]),
            ("192.0.2.7", &["192.0.2.7:1"]),
            ("::1", &["[::1]:1"]),
        ];
        for (host, expected) in expected {
            let addresses: Vec<String> = at(host);
            assert_eq!(addresses, expected, "{host}");
        }
    }

    #[test]
    fn replies_are_judged_by_status_and_words() {
        let judged = |reply: &str| {
            judge(([127, 0, 0, 1], 6000).into(), reply.as_bytes()).map_err(|e| e.to_string())
        };
        assert_eq!(judged("HTTP/1.1 200 OK\r\na: b\r\n\r\nready\n"), Ok(()));
        let draining = judged("HTTP/1.1 503 No\r\n\r\ndrain\x1b[2J\nmore").unwrap_err();
        assert!(draining.contains("HTTP status 503: drain\\x1b[2J; see its log"), "{draining}");
        for foreign in [
            "",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1",
            "HTTP/1.1 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n<html>",
            "HTTP/1.1 404 Not Found\r\n\r\nready",
        ] {
            let message = judged(foreign).unwrap_err();
            assert!(message.contains("does not answer like"), "{foreign:?}: {message}");
        }
    }
}
