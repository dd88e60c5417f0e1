//! Tells message clients for whom there is no slot why, and closes: serves none of them.
//!
//! A socket that is closed with bytes unread is reset, and the reset may overtake what was written.
//! So a refused client gets the ERROR and the end of the stream at once, and its own bytes are
//! read and dropped for a moment.

use crate::config::REFUSED_LINGERING;
use crate::wire::messages::fault::Fault;
use crate::wire::messages::payload::encode_error;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

/// Refused clients that are still there.
pub(crate) struct Refusals {
    error: Vec<u8>,
    linger: Duration,
    lingering: Arc<Semaphore>,
}

impl Refusals {
    /// None so far; each will be kept for `linger` at most.
    pub(crate) fn new(linger: Duration) -> Self {
        let mut error = Vec::new();
        let fault = Fault::ConnectionsLimit;
        encode_error(fault.code().expect("it has one"), fault.message(), &mut error);
        Refusals { error, linger, lingering: Arc::new(Semaphore::new(REFUSED_LINGERING)) }
    }

    /// Sends the ERROR and the end of the stream, and closes a moment later; at once where too
    /// many others are waiting for that. Must run on a tokio runtime.
    pub(crate) fn tell(&self, stream: TcpStream) {
        // Fails only where the client is gone: an empty socket buffer holds it.
        let _ = stream.set_nonblocking(true);
        let _ = (&stream).write_all(&self.error);
        let _ = stream.shutdown(Shutdown::Write);
        if let Ok(permit) = Arc::clone(&self.lingering).try_acquire_owned() {
            let linger = self.linger;
            tokio::spawn(async move {
                let _ = tokio::time::timeout(linger, drop_all(stream)).await;
                drop(permit);
            });
        }
    }
}

async fn drop_all(stream: TcpStream) -> io::Result<()> {
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let mut dropped = [0; 512];
    while stream.read(&mut dropped).await? > 0 {}
    Ok(())
}
