//! Captured streams: sends the bytes of files as they are, each file over a connection of its own.
//! Understands none of them.

use super::pace::BytePace;
use super::sender::{SendError, connect};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// What the name of a capture ends with that stopped at its limit: it is not the whole stream.
pub const CUT_CAPTURE: &str = ".cut.capture";

/// A file that can be sent: it was there and was not empty when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureFile {
    path: PathBuf,
    bytes: u64,
}

/// Why a file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum CaptureFileError {
    /// It is not there, or may not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is a directory, a pipe, a device.
    #[error("{} is no file; name the captures themselves, such as DIR/*.capture", path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{} is empty, so there is nothing to send; leave it out", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It was cut.
    #[error(
        "{} is not a whole stream: the capture stopped at --capture-bytes-limit; \
         give --allow-cut to send what there is", path.display()
    )]
    Cut {
        /// The file.
        path: PathBuf,
    },
}

impl CaptureFile {
    /// Looks at a file. One whose name ends with [`CUT_CAPTURE`] is refused unless that is allowed.
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length when it was looked at, which is what is sent of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How captures are sent.
#[derive(Clone, Debug)]
pub struct ReplaySettings {
    /// Connections at one time at most, 1 or more.
    pub connections: usize,
    /// Bytes of each write, and of what each connection has in memory, 1 or more.
    pub write_bytes: usize,
    /// Bytes a second over all connections; 0: as fast as they are taken.
    pub rate: u64,
    /// The kernel's congestion control for the connections, by its name; `None`: the system's own.
    pub congestion: Option<String>,
}

/// What was sent of one capture: all of it.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The sender's own address, by which the engine's result is found.
    pub local: SocketAddr,
    /// Bytes.
    pub bytes: u64,
    /// When it was connected.
    pub begun: Instant,
    /// When the socket was closed.
    pub closed: Instant,
}

/// Why a capture was not sent, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No connection.
    #[error("{}: {source}", path.display())]
    Connect {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SendError,
    },
    /// It could be read when it was looked at, and cannot now.
    #[error("cannot read {}: {source}; {bytes} bytes of it were sent", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Bytes that were sent before.
        bytes: u64,
        /// The system's error; an unexpected end where the file has become shorter.
        source: io::Error,
    },
    /// The engine closed the connection.
    #[error(
        "{}: the connection to {address} broke after {bytes} bytes: {source}; \
         the engine's result and log name the reason", path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Where to.
        address: SocketAddr,
        /// Bytes of the writes before.
        bytes: u64,
        /// The system's error.
        source: io::Error,
    },
}

/// Sends each capture over a connection of its own, in their order, so many at one time as the
/// settings say. One that fails keeps no other from being sent. Bytes are counted in `progress`.
/// Gives what became of each, in their order.
///
/// # Panics
/// Where the settings have no connections or no bytes of a write.
pub fn replay_all(
    address: SocketAddr,
    captures: &[CaptureFile],
    settings: &ReplaySettings,
    progress: &AtomicU64,
) -> Vec<Result<Replayed, ReplayError>> {
    assert!(settings.connections > 0 && settings.write_bytes > 0, "a connection, and its writes");
    let pace = (settings.rate > 0).then(|| BytePace::new(settings.rate));
    let (next, (done, results)) = (AtomicUsize::new(0), mpsc::channel());
    thread::scope(|scope| {
        for _ in 0..settings.connections.min(captures.len()) {
            let (done, next, pace) = (done.clone(), &next, pace.as_ref());
            scope.spawn(move || {
                let mut buffer = vec![0; settings.write_bytes];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(capture) = captures.get(number) else { break };
                    let congestion = settings.congestion.as_deref();
                    let replayed =
                        replay(address, capture, congestion, pace, &mut buffer, progress);
                    done.send((number, replayed)).expect("whoever waits for it is there");
                }
            });
        }
    });
    drop(done);
    let mut results: Vec<_> = results.into_iter().collect();
    results.sort_unstable_by_key(|&(number, _)| number);
    results.into_iter().map(|(_, replayed)| replayed).collect()
}

fn replay(
    address: SocketAddr,
    capture: &CaptureFile,
    congestion: Option<&str>,
    pace: Option<&BytePace>,
    buffer: &mut [u8],
    progress: &AtomicU64,
) -> Result<Replayed, ReplayError> {
    let path = || capture.path.clone();
    let unreadable = |bytes, source| ReplayError::Read { path: path(), bytes, source };
    // Before the connection, so that an engine reports none for a file that is gone.
    let mut file = File::open(&capture.path).map_err(|source| unreadable(0, source))?;
    let (mut stream, local) = connect(address, congestion)
        .map_err(|source| ReplayError::Connect { path: path(), source })?;
    let begun = Instant::now();
    let mut sent = 0;
    while sent < capture.bytes {
        let left = usize::try_from(capture.bytes - sent).unwrap_or(usize::MAX);
        let piece_bytes = buffer.len().min(left);
        let piece = &mut buffer[..piece_bytes];
        file.read_exact(piece).map_err(|source| unreadable(sent, source))?;
        if let Some(pace) = pace {
            pace.wait(piece.len() as u64);
        }
        stream.write_all(piece).map_err(|source| ReplayError::Write {
            path: path(),
            address,
            bytes: sent,
            source,
        })?;
        sent += piece.len() as u64;
        progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    drop(stream);
    Ok(Replayed { local, bytes: sent, begun, closed: Instant::now() })
}
