//! Replays captured streams: sends the bytes of each file unchanged over its own connection.
//! Interprets none of them.

use super::answer::OtherServer;
use super::pace::BytePace;
use super::socket::{RecordSocket, SendError};
use crate::client::messages::transport::ClientTls;
use crate::wire::text::counted;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// File name suffix of a capture that stopped at its size limit and so is not the whole stream.
pub const CUT_CAPTURE: &str = ".cut.capture";

/// A capture file that was readable and not empty when it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureFile {
    path: PathBuf,
    bytes: u64,
}

/// Why a capture file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum CaptureFileError {
    /// The file does not exist or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The path is a directory, a pipe or a device.
    #[error(
        "{} is not a regular file; name the captures themselves, such as DIR/*.capture",
        path.display()
    )]
    NoFile {
        /// The path given.
        path: PathBuf,
    },
    /// The file is empty.
    #[error("{} is empty: there is nothing to send; leave it out", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The capture was cut off at its size limit.
    #[error(
        "{} is not a whole stream: the capture stopped at --capture-bytes-limit; \
         use --allow-cut to send what was captured", path.display()
    )]
    Cut {
        /// The file.
        path: PathBuf,
    },
}

impl CaptureFile {
    /// Checks a file. A name ending in [`CUT_CAPTURE`] is an error unless `allow_cut` is set.
    ///
    /// # Errors
    /// [`CaptureFileError`].
    pub fn look_at(path: &Path, allow_cut: bool) -> Result<Self, CaptureFileError> {
        let path = path.to_owned();
        let metadata = match File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) => metadata,
            Err(source) => return Err(CaptureFileError::Unreadable { path, source }),
        };
        if !metadata.is_file() {
            return Err(CaptureFileError::NoFile { path });
        }
        if metadata.len() == 0 {
            return Err(CaptureFileError::Empty { path });
        }
        let name = path.file_name().unwrap_or_default();
        if !allow_cut && name.as_encoded_bytes().ends_with(CUT_CAPTURE.as_bytes()) {
            return Err(CaptureFileError::Cut { path });
        }
        Ok(CaptureFile { path, bytes: metadata.len() })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was checked; this many are sent.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How to send captures.
#[derive(Clone, Debug)]
pub struct ReplaySettings {
    /// Maximum number of connections at a time; 1 or more.
    pub connections: usize,
    /// Size of each write, and of each connection's buffer, in bytes; 1 or more.
    pub write_bytes: usize,
    /// Bytes per second over all connections; 0 sends as fast as the engine accepts them.
    pub rate: u64,
    /// Name of the TCP congestion control algorithm; `None` uses the system default.
    pub congestion: Option<String>,
    /// TLS, if the engine's record port uses it.
    pub tls: Option<ClientTls>,
}

/// One capture that was sent in full.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The sender's own address, which identifies its result: the engine reports it as `peer`.
    pub local: SocketAddr,
    /// Bytes sent.
    pub bytes: u64,
    /// When the connection was made.
    pub begun: Instant,
    /// When its last byte had been handed to the kernel.
    pub closed: Instant,
}

/// Why a capture was not sent, or only in part.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The connection could not be made, or leads to another kind of server.
    #[error("{}: {source}", path.display())]
    Connect {
        /// The file.
        path: PathBuf,
        /// Why the connection failed.
        source: SendError,
    },
    /// The file was readable when it was checked but is not any more.
    #[error("cannot read {}: {source}; sent {} of it", path.display(), counted(.bytes, "byte"))]
    Read {
        /// The file.
        path: PathBuf,
        /// Bytes sent before the error.
        bytes: u64,
        /// The operating system's error; `UnexpectedEof` if the file has become shorter.
        source: io::Error,
    },
    /// A write failed, as it does once the engine has closed the connection.
    #[error(
        "{}: the connection to {address} broke after {}: {source}; the engine's result and log \
         give the reason",
        path.display(), counted(.bytes, "byte")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The engine's address.
        address: SocketAddr,
        /// Bytes in the writes that succeeded.
        bytes: u64,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Sends each capture over its own connection, in the order given, with at most
/// [`connections`](ReplaySettings::connections) at a time. Blocks until all are done. A failure
/// does not stop the others. Adds the bytes sent to `progress`. Returns one outcome for each
/// capture, in the order given.
///
/// # Panics
/// If `connections` or `write_bytes` of the settings is 0.
pub fn replay_all(
    address: SocketAddr,
    captures: &[CaptureFile],
    settings: &ReplaySettings,
    progress: &AtomicU64,
) -> Vec<Result<Replayed, ReplayError>> {
    assert!(
        settings.connections > 0 && settings.write_bytes > 0,
        "connections and write_bytes are not 0"
    );
    let pace = (settings.rate > 0).then(|| BytePace::new(settings.rate));
    let (next, (done, results)) = (AtomicUsize::new(0), mpsc::channel());
    let run = |done: mpsc::Sender<_>| {
        let mut buffer = vec![0; settings.write_bytes];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(capture) = captures.get(number) else { break };
            let replayed = replay(address, capture, settings, pace.as_ref(), &mut buffer, progress);
            done.send((number, replayed)).expect("the receiver outlives this thread");
        }
    };
    thread::scope(|scope| {
        for _ in 1..settings.connections.min(captures.len()) {
            let (run, done) = (&run, done.clone());
            // With fewer threads than asked for, those that run send all captures.
            if thread::Builder::new().spawn_scoped(scope, move || run(done)).is_err() {
                break;
            }
        }
        run(done);
    });
    let mut results: Vec<_> = results.into_iter().collect();
    results.sort_unstable_by_key(|&(number, _)| number);
    results.into_iter().map(|(_, replayed)| replayed).collect()
}

fn replay(
    address: SocketAddr,
    capture: &CaptureFile,
    settings: &ReplaySettings,
    pace: Option<&BytePace>,
    buffer: &mut [u8],
    progress: &AtomicU64,
) -> Result<Replayed, ReplayError> {
    let path = || capture.path.clone();
    let unreadable = |bytes, source| ReplayError::Read { path: path(), bytes, source };
    // Opened before connecting, so that a missing file opens no connection.
    let mut file = File::open(&capture.path).map_err(|source| unreadable(0, source))?;
    let (congestion, tls) = (settings.congestion.as_deref(), settings.tls.as_ref());
    let (mut stream, local) = RecordSocket::connect(address, congestion, tls)
        .map_err(|source| ReplayError::Connect { path: path(), source })?;
    let begun = Instant::now();
    let broken = |bytes, source| match OtherServer::in_error(&source) {
        Some(server) => {
            let source = SendError::Answered { address, server };
            ReplayError::Connect { path: path(), source }
        }
        None => ReplayError::Write { path: path(), address, bytes, source },
    };
    let mut sent = 0;
    while sent < capture.bytes {
        let left = usize::try_from(capture.bytes - sent).unwrap_or(usize::MAX);
        let piece_bytes = buffer.len().min(left);
        let piece = &mut buffer[..piece_bytes];
        file.read_exact(piece).map_err(|source| unreadable(sent, source))?;
        if let Some(pace) = pace {
            pace.wait(piece.len() as u64);
        }
        stream.write_all(piece).map_err(|source| broken(sent, source))?;
        sent += piece.len() as u64;
        progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    let closed = stream.close().map_err(|source| broken(sent, source))?;
    Ok(Replayed { local, bytes: sent, begun, closed })
}
