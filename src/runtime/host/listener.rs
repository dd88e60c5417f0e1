//! Binds listening sockets. Accepts no connection.

use crate::config::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, LISTEN_BACKLOG};
use rustix::net::sockopt::{set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

/// How many free ports are tried until one is free at all addresses of a name.
const PORT_TRIES: u32 = 16;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The host is neither an address nor a name that resolves.
    #[error(
        "cannot resolve {} {host}: {source}; give an address of this machine, e.g. 0.0.0.0",
        place.host
    )]
    Resolve {
        /// The options concerned.
        place: ListenPlace,
        /// What was given.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}; {}", remedy(place, .source))]
    Bind {
        /// The options concerned.
        place: ListenPlace,
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

/// The options that set a listener's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenPlace {
    /// Option of the address.
    pub host: &'static str,
    /// Option of the port.
    pub port: &'static str,
}

/// The record listener.
pub const RECORDS: ListenPlace = ListenPlace { host: "--host", port: "--records-port" };
/// The message listener.
pub(crate) const MESSAGES: ListenPlace = ListenPlace { host: "--host", port: "--port" };
/// The admin listener.
pub(crate) const ADMIN: ListenPlace = ListenPlace { host: "--admin-host", port: "--admin-port" };

fn remedy(place: &ListenPlace, error: &io::Error) -> String {
    let ListenPlace { host, port } = place;
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process is listening there (`ss -ltnp` names it): stop it or choose another \
             port with {port}"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one with {port}")
        }
        io::ErrorKind::AddrNotAvailable => format!("{host} must be an address of this machine"),
        _ => format!("choose another address with {host} and {port}"),
    }
}

/// Binds and listens on each address of `host`, on the same port: without SO_REUSEPORT, so that a
/// second instance fails instead of taking half of the connections, and with SO_REUSEADDR, so that
/// a restart does not wait for old ones. There is at least one listener.
///
/// # Errors
/// `ListenError`, with the remedy.
pub(crate) fn listen_on_all(
    place: ListenPlace,
    host: &str,
    port: u16,
) -> Result<Vec<TcpListener>, ListenError> {
    bind_all(place, &resolve(place, host, port)?)
}

/// The same, but only on the first address.
///
/// # Errors
/// `ListenError`, with the remedy.
pub fn listen(place: ListenPlace, host: &str, port: u16) -> Result<TcpListener, ListenError> {
    let address = resolve(place, host, port)?[0];
    bind(address).map_err(|source| ListenError::Bind { place, address, source })
}

/// The addresses of `host`, each once; there is at least one.
fn resolve(place: ListenPlace, host: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    let resolved = (host, port).to_socket_addrs().and_then(|found| {
        let mut addresses = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(io::Error::other("the name has no address"));
        }
        Ok(addresses)
    });
    resolved.map_err(|source| ListenError::Resolve {
        place,
        host: host.escape_default().to_string(),
        source,
    })
}

/// Binds all addresses. Where port 0 is asked for, they share the port that the first one gets.
fn bind_all(place: ListenPlace, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let mut tries = PORT_TRIES;
    loop {
        tries -= 1;
        match bind_each(place, addresses) {
            // The port was free at one address, but not at another one.
            Err(ListenError::Bind { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse
                    && addresses[0].port() == 0
                    && tries > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_each(
    place: ListenPlace,
    addresses: &[SocketAddr],
) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut absent = Vec::new();
    for &(mut address) in addresses {
        let failed = |source| ListenError::Bind { place, address, source };
        if let Some(first) = listeners.first().filter(|_| address.port() == 0) {
            address.set_port(first.local_addr().map_err(failed)?.port());
        }
        match bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(source) if is_absent(&source) => absent.push((address, source)),
            Err(source) => return Err(ListenError::Bind { place, address, source }),
        }
    }
    // A name often has an IPv6 address on hosts without IPv6.
    if listeners.is_empty() {
        let (address, source) = absent.swap_remove(0);
        return Err(ListenError::Bind { place, address, source });
    }
    for (address, source) in absent {
        let host = place.host;
        tracing::warn!("cannot listen on {address}: {source}; {host} has other addresses");
    }
    Ok(listeners)
}

/// Whether this host does not have the address, or not its family.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit these. A peer that vanishes without a word would otherwise keep
    // its slot until a timeout that may be days.
    socket.set_keepalive(true)?;
    set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_listener_on_the_port_is_refused_with_the_next_step() {
        let first = listen(RECORDS, "127.0.0.1", 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen(RECORDS, "127.0.0.1", port).unwrap_err().to_string();
        assert!(error.contains("another process is listening there"), "{error}");
        assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    }

    #[test]
    fn accepted_connections_are_kept_alive() {
        use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl};
        let listener = listen(MESSAGES, "127.0.0.1", 0).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(socket_keepalive(&accepted).unwrap());
        assert_eq!(tcp_keepidle(&accepted).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(tcp_keepintvl(&accepted).unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(tcp_keepcnt(&accepted).unwrap(), KEEPALIVE_PROBES);
    }

    #[test]
    fn a_name_listens_on_all_of_its_addresses() {
        // As resolved from a name: two of this host, one of another, and any port.
        let addresses = ["127.0.0.1:0", "192.0.2.1:0", "127.0.0.2:0"].map(|a| a.parse().unwrap());
        let listeners = bind_all(RECORDS, &addresses).unwrap();
        let bound: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        assert_eq!(bound.len(), 2, "{bound:?}");
        assert_eq!(bound[0].ip(), addresses[0].ip());
        assert_eq!(bound[1].ip(), addresses[2].ip());
        assert_eq!(bound[0].port(), bound[1].port());
        // One that is taken is not passed over.
        let taken = [SocketAddr::new(addresses[0].ip(), 0), bound[1]];
        assert!(bind_all(RECORDS, &taken).is_err());
        let resolved = resolve(RECORDS, "127.0.0.1", 9).unwrap();
        assert_eq!(resolved, ["127.0.0.1:9".parse().unwrap()]);
    }

    #[test]
    fn a_foreign_address_is_refused_with_the_next_step() {
        let error = listen(ADMIN, "192.0.2.1", 0).unwrap_err().to_string();
        assert!(error.contains("--admin-host must be an address of this machine"), "{error}");
    }
}
