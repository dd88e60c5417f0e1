//! Binds listening sockets. Accepts no connection.

use crate::config::LISTEN_BACKLOG;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

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

/// Binds and listens: without SO_REUSEPORT, so that a second instance fails instead of taking half
/// of the connections, and with SO_REUSEADDR, so that a restart does not wait for old ones.
///
/// # Errors
/// `ListenError`, with the remedy.
pub fn listen(place: ListenPlace, host: &str, port: u16) -> Result<TcpListener, ListenError> {
    let resolved = (host, port).to_socket_addrs().and_then(|mut addresses| {
        addresses.next().ok_or_else(|| io::Error::other("the name has no address"))
    });
    let address = resolved.map_err(|source| ListenError::Resolve {
        place,
        host: host.escape_default().to_string(),
        source,
    })?;
    bind(address).map_err(|source| ListenError::Bind { place, address, source })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
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
    fn a_foreign_address_is_refused_with_the_next_step() {
        let error = listen(ADMIN, "192.0.2.1", 0).unwrap_err().to_string();
        assert!(error.contains("--admin-host must be an address of this machine"), "{error}");
    }
}
