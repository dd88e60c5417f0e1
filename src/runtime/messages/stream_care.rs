//! Looks after the record stream of a message connection while the connection waits for its client:
//! closes the batch of partials when its time is up, and ends a stream that gets no records, or
//! that holds the most when memory is short. Reads nothing and sends nothing.

use super::carried::CarriedRecords;
use crate::runtime::clock;
use crate::runtime::connection::deadlines::Control;
use crate::wire::messages::session::Session;
use std::future::pending;
use std::pin::Pin;
use std::time::Instant;

/// What looking after a stream needs.
pub(crate) struct StreamCare<'a> {
    /// The stream, if there is one.
    pub records: &'a mut CarriedRecords,
    /// Knows whether a frame has begun.
    pub session: &'a mut Session,
    /// The deadlines of the connection.
    pub control: &'a Control,
    /// Whether the stream may end because no records come. Not while nothing is read.
    pub idle_ends: bool,
}

/// What is due next.
#[derive(Clone, Copy)]
enum Due {
    Batch,
    Idle,
    Condemned,
}

impl StreamCare<'_> {
    /// Waits until `work` is done, which is never dropped before.
    pub(crate) async fn during<T>(mut self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        while self.records.is_open() {
            let next = self.next();
            let due = tokio::select! {
                biased;
                done = &mut work => return done,
                due = due_at(next) => due,
                () = self.records.condemned() => Due::Condemned,
            };
            // Rare, and its state is large.
            Box::pin(self.act(due)).await;
        }
        work.await
    }

    fn next(&self) -> Option<(Instant, Due)> {
        let batch = self.records.batch_ends().map(|at| (at, Due::Batch));
        let idle = self.idle_at().map(|at| (at, Due::Idle));
        batch.into_iter().chain(idle).min_by_key(|&(at, _)| at)
    }

    /// A frame that began in time may bring records; it has a time of its own.
    fn idle_at(&self) -> Option<Instant> {
        let at = self.records.idle_at().filter(|_| self.idle_ends)?;
        (!self.session.in_frame_since(at)).then_some(at)
    }

    /// The connection's own wait goes on. What the client sends while this waits for a slow disk is
    /// not late, however long that takes.
    async fn act(&mut self, due: Due) {
        let armed = self.control.disarm();
        let begun = clock::now();
        match due {
            Due::Batch => self.records.close_batch().await,
            Due::Condemned => {
                self.records.end_condemned().await;
                self.control.set_dispensable(true);
            }
            Due::Idle => {
                self.records.end_idle().await;
                self.control.set_dispensable(true);
            }
        }
        let spent = clock::since(begun);
        self.session.forgive(spent);
        self.records.forgive(spent);
        self.control.rearm(armed, spent);
    }
}

/// Waits until something is due, for ever if nothing is.
async fn due_at(next: Option<(Instant, Due)>) -> Due {
    match next {
        Some((at, due)) => {
            clock::sleep_until(at).await;
            due
        }
        None => pending().await,
    }
}

#[cfg(test)]
#[path = "stream_care_tests.rs"]
mod tests;
