//! Makes sure that a record stream is reported, even if its task never ends: a worker that dies
//! takes its tasks with it.

use super::stream::{self, Failure};
use crate::config::TICK;
use crate::engine::stream::received::Received;
use crate::runtime::clock;
use crate::runtime::connection::slots::StreamHold;
use crate::runtime::results::aggregator::Job;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// How long a dying worker waits for room in the queue of its aggregation thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// A stream that has not been reported. Dropping it reports it as an internal error, with what the
/// aggregation has of it.
pub(crate) struct Unreported {
    number: u64,
    peer: SocketAddr,
    begun: Instant,
    /// The queue, and the stream's slot; `None` once it is reported.
    open: Option<(mpsc::Sender<Job>, StreamHold)>,
}

impl Unreported {
    /// Stream `number`, whose rows go to `jobs`.
    pub(crate) fn new(
        number: u64,
        peer: SocketAddr,
        jobs: mpsc::Sender<Job>,
        held: StreamHold,
    ) -> Self {
        Unreported { number, peer, begun: clock::now(), open: Some((jobs, held)) }
    }

    /// Hands the finished stream to the aggregation, which produces its result.
    pub(crate) async fn report(mut self, received: Received) {
        if let Some((jobs, held)) = self.open.take() {
            stream::report(&jobs, received, held).await;
        }
    }

    /// For a stream that needs no report.
    pub(crate) fn forget(mut self) {
        self.open = None;
    }
}

impl Drop for Unreported {
    fn drop(&mut self) {
        let Some((jobs, held)) = self.open.take() else { return };
        let received = Received::nothing(self.number, self.peer, self.begun);
        let received = Failure::bug("the worker of this stream died").of_stream(received);
        let mut job = Job::Finish { received: Box::new(received), held };
        let end = Instant::now() + PATIENCE;
        // This thread may be inside a runtime, where it must not wait for a channel.
        while let Err(TrySendError::Full(back)) = jobs.try_send(job) {
            if Instant::now() >= end {
                tracing::error!(connection = self.number, "a stream could not be reported");
                return;
            }
            job = back;
            thread::sleep(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stream::received::Reason;
    use crate::runtime::connection::slots::Slots;

    fn unreported(jobs: &mpsc::Sender<Job>) -> Unreported {
        let slot = Slots::new(1, 1, 1).take_stream().unwrap();
        let peer = "[::1]:9".parse().unwrap();
        Unreported::new(7, peer, jobs.clone(), StreamHold::Stream(slot))
    }

    #[tokio::test]
    async fn a_stream_is_reported_once_however_it_ends() {
        let (jobs, mut work) = mpsc::channel(1);
        let reason = |job| match job {
            Some(Job::Finish { received, .. }) => (received.connection, received.reason),
            _ => panic!("not a report"),
        };
        drop(unreported(&jobs));
        assert_eq!(reason(work.recv().await), (7, Some(Reason::InternalError)));
        let received = Received::nothing(7, "[::1]:9".parse().unwrap(), Instant::now());
        unreported(&jobs).report(received).await;
        assert_eq!(reason(work.recv().await), (7, None));
        unreported(&jobs).forget();
        assert!(work.try_recv().is_err());
    }
}
