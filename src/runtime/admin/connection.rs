//! One admin connection: HTTP served by hyper, with a deadline for every phase. The content of the
//! replies comes from [`Site`].
//!
//! ```text
//!   accepted ──▶ Head ──head received──▶ Reply ──reply written──▶ Idle ──first byte──▶ Head …
//!                  └─────────no request, or the last reply───────┴──▶ Linger ──▶ closed
//! ```
//!
//! A connection whose phase runs out of time is closed at once.

use super::site::Site;
use crate::config::{
    ADMIN_CONNECTIONS, ADMIN_HEAD_BYTES, ADMIN_HEAD_TIMEOUT, ADMIN_HEALTH_CONNECTIONS,
    ADMIN_IDLE_TIMEOUT, ADMIN_LINGER, ADMIN_LINGER_BYTES, ADMIN_REPLY_TIMEOUT,
};
use crate::runtime::failpoint::failpoint;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// hyper panics on a smaller limit.
const _: () = assert!(ADMIN_HEAD_BYTES >= 8 << 10);

/// Limits of the admin listener; the defaults are the constants of `config`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Simultaneous connections that may ask for everything.
    pub connections: usize,
    /// Further ones, which may ask for health only.
    pub health_connections: usize,
    /// Time allowed for the head of a request.
    pub head: Duration,
    /// Time allowed for the client to take the reply.
    pub reply: Duration,
    /// Time allowed between two requests.
    pub idle: Duration,
    /// How long a client may keep sending after the last reply.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: ADMIN_CONNECTIONS - ADMIN_HEALTH_CONNECTIONS,
            health_connections: ADMIN_HEALTH_CONNECTIONS,
            head: ADMIN_HEAD_TIMEOUT,
            reply: ADMIN_REPLY_TIMEOUT,
            idle: ADMIN_IDLE_TIMEOUT,
            linger: ADMIN_LINGER,
        }
    }
}

/// What a connection may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Questions {
    /// Every path, one request after the other.
    All,
    /// Health, once: all other places are taken.
    Health,
}

/// Serves one connection until it ends or misses a deadline.
pub(crate) async fn serve(stream: TcpStream, site: Rc<Site>, limits: Limits, questions: Questions) {
    // Otherwise the end of a long reply could wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    serve_on(stream, site, limits, questions).await;
}

/// The same for any stream of bytes.
pub(super) async fn serve_on<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    site: Rc<Site>,
    limits: Limits,
    questions: Questions,
) {
    let progress = Rc::new(RequestProgress::new());
    let socket = Watched {
        stream: TokioIo::new(stream),
        progress: Rc::clone(&progress),
        discarded_bytes: 0,
    };
    let service = service_fn(|request: Request<Incoming>| {
        failpoint("admin_connection");
        progress.enter(RequestPhase::Reply);
        ready(Ok::<_, Infallible>(match questions {
            Questions::All => site.reply(&request),
            Questions::Health => site.reply_about_health(&request),
        }))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(ADMIN_HEAD_BYTES)
            .max_header_size(ADMIN_HEAD_BYTES)
            .header_read_timeout(None)
            .serve_connection(socket, service)
    );
    let mut deadline = pin!(sleep_until(progress.deadline(&limits)));
    poll_fn(|context| {
        // On an error, the client has had its reply or is gone: there is nothing left to do.
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let until = progress.deadline(&limits);
        if deadline.deadline() != until {
            deadline.as_mut().reset(until);
        }
        deadline.as_mut().poll(context)
    })
    .await;
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestPhase {
    /// The rest of a request's head.
    Head,
    /// The client to take the reply.
    Reply,
    /// The next request, if there is one.
    Idle,
    /// The client to close its side.
    Linger,
}

/// The phase of a connection and when it began, shared by its socket and its deadline.
struct RequestProgress {
    phase: Cell<RequestPhase>,
    since: Cell<Instant>,
}

impl RequestProgress {
    fn new() -> Self {
        RequestProgress { phase: Cell::new(RequestPhase::Head), since: Cell::new(Instant::now()) }
    }

    fn enter(&self, phase: RequestPhase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    /// Enters `to` if the phase is `from`.
    fn advance(&self, from: RequestPhase, to: RequestPhase) {
        if self.phase.get() == from {
            self.enter(to);
        }
    }

    fn deadline(&self, limits: &Limits) -> Instant {
        let limit = match self.phase.get() {
            RequestPhase::Head => limits.head,
            RequestPhase::Reply => limits.reply,
            RequestPhase::Idle => limits.idle,
            RequestPhase::Linger => limits.linger,
        };
        self.since.get() + limit
    }
}

/// A socket that records the connection's progress.
struct Watched<S> {
    stream: TokioIo<S>,
    progress: Rc<RequestProgress>,
    discarded_bytes: usize,
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads and discards what still arrives: closing a socket with unread bytes would reset the
    /// connection, and the last reply could be lost.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [MaybeUninit::uninit(); 1024];
        while self.discarded_bytes < ADMIN_LINGER_BYTES {
            let mut buffer = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer.unfilled()))?;
            if buffer.filled().is_empty() {
                break;
            }
            self.discarded_bytes += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> Read for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.progress.advance(RequestPhase::Idle, RequestPhase::Head);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.progress.advance(RequestPhase::Reply, RequestPhase::Idle);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.phase.get() != RequestPhase::Linger {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.progress.enter(RequestPhase::Linger);
        }
        self.poll_discard(context)
    }
}
