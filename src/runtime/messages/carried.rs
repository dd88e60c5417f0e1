//! The record stream carried in DATA of one message connection: starts it, takes in its packets and
//! hands it over to be reported. Does not parse frames and sends no replies.
//!
//! ```text
//!          ┌────────── a packet, and a stream is free ───────────┐
//!          │                                                     ▼
//!        none                                                  open ◀── whole packets
//!          ▲                                                     │
//!          └─ end record, anything else, silence, connection ────┘  the stream is reported
//!             over
//! ```
//!
//! Until a connection has carried records, a payload that does not begin with a packet is opaque:
//! it is counted and otherwise ignored. Afterwards it is an error, so that nothing that was meant
//! as records is acknowledged and lost.

use crate::config::DataMode;
use crate::engine::observe::counters::Protocol;
use crate::engine::stream::received::{BufferKind, Reason, Received};
use crate::runtime::clock;
use crate::runtime::connection::slots::{Slots, StreamHold, StreamSlot};
use crate::runtime::records::stream::{self, Failure, RecordStream};
use crate::runtime::records::unreported::Unreported;
use crate::runtime::worker::Worker;
use crate::wire::messages::frame::PAYLOAD_BYTES_MAX;
use crate::wire::records::packets::{begins_with_packet, check_whole_packets};
use crate::wire::text::{counted, time_text};
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What happened to DATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DataTaken {
    /// It was accepted.
    In,
    /// Its records were rejected for this reason; the stream has ended and is reported.
    Rejected(String),
    /// It carries records, but no stream slot is free.
    NoStream,
}

/// The record stream within a message connection, while there is one.
pub(crate) struct CarriedRecords {
    worker: Rc<Worker>,
    slots: Arc<Slots>,
    peer: SocketAddr,
    open: Option<Box<OpenStream>>,
    /// Whether the connection has carried records.
    carried: bool,
    /// A slot that was waited for, for the next stream.
    granted: Option<StreamSlot>,
}

/// An open stream and its slot; boxed because it is large and rare.
struct OpenStream {
    stream: RecordStream,
    unreported: Unreported,
}

impl CarriedRecords {
    /// Without a stream yet. Streams will be reported as coming from `peer`.
    pub(crate) fn new(worker: Rc<Worker>, slots: Arc<Slots>, peer: SocketAddr) -> Self {
        CarriedRecords { worker, slots, peer, open: None, carried: false, granted: None }
    }

    /// Whether a stream is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the records of `body`, or counts it if it holds none. Waits only for the
    /// aggregation.
    pub(crate) async fn take_in(&mut self, body: &[u8], taken_over: Instant) -> DataTaken {
        if !self.means_records(body) {
            self.worker.tally().add(|tally| &tally.opaque_data, 1);
            return DataTaken::In;
        }
        self.carried = true;
        if self.open.is_none() {
            let granted = self.granted.take();
            // Rare, and its state need not be part of every connection's.
            self.open = match Box::pin(self.begin(granted, taken_over)).await {
                Ok(open) => open,
                Err(failure) => return DataTaken::Rejected(failure.detail),
            };
        }
        let Some(OpenStream { stream, .. }) = self.open.as_deref_mut() else {
            return DataTaken::NoStream;
        };
        let (form, limit) = (self.worker.plan.form(), self.worker.config.packet_bytes_limit);
        // A payload that is refused for its form is refused as a whole.
        let digested = match check_whole_packets(form, body, limit) {
            Ok(()) => stream.digest(body, body.len(), taken_over).await,
            Err(fault) => Err(Failure::of(fault, fault)),
        };
        let ended = match (digested, stream.intake().counts().bytes_after_end) {
            (Ok(()), 0) if !stream.intake().ended() => {
                stream.forget_window();
                return DataTaken::In;
            }
            (Ok(()), after @ 1..) => Err(Failure::of(
                Reason::DataAfterEnd,
                format!(
                    "in its DATA, {} came after the end record; send that in another",
                    counted(after, "byte")
                ),
            )),
            (digested, _) => digested,
        };
        let taken = match &ended {
            Ok(()) => DataTaken::In,
            Err(failure) => DataTaken::Rejected(failure.detail.clone()),
        };
        self.end(ended).await;
        taken
    }

    /// Whether a payload is meant as records.
    fn means_records(&self, body: &[u8]) -> bool {
        let (form, limit) = (self.worker.plan.form(), self.worker.config.packet_bytes_limit);
        self.worker.config.data == DataMode::Records
            && !body.is_empty()
            && (self.carried || begins_with_packet(form, body, limit))
    }

    /// When the open batch must be closed, if partials are written and it has records.
    pub(crate) fn batch_ends(&self) -> Option<Instant> {
        self.open.as_ref()?.stream.batch_ends()
    }

    /// Closes the batch. Waits only for the aggregation.
    pub(crate) async fn close_batch(&mut self) {
        if let Some(open) = &mut self.open {
            open.stream.close_batch(clock::now()).await;
        }
    }

    /// The time by which the open stream must get records: nothing else keeps it.
    pub(crate) fn idle_at(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        Some(open.stream.intake().deadline().0)
    }

    /// Ends the open stream because no records came in time. Its connection stays.
    pub(crate) async fn end_idle(&mut self) {
        let limit = time_text(self.worker.config.idle_timeout);
        let detail = format!("no records for {limit} (--idle-timeout); its client stays connected");
        self.end(Err(Failure::of(Reason::IdleTimeout, detail))).await;
    }

    /// Waits until the open stream has to end because it holds the most memory; for ever, if none
    /// is open.
    pub(crate) async fn condemned(&self) {
        let share = self.open.as_ref().and_then(|open| open.stream.share());
        match share {
            Some(share) => poll_fn(|context| share.poll_condemned(context.waker())).await,
            None => pending().await,
        }
    }

    /// Ends the open stream if it has to end because it holds the most memory. Its connection
    /// stays.
    pub(crate) async fn end_condemned(&mut self) {
        if let Some(failure) = self.open.as_ref().and_then(|open| open.stream.condemned()) {
            self.end(Err(failure)).await;
        }
    }

    /// Extends that time by what the engine spent.
    pub(crate) fn forgive(&mut self, spent: Duration) {
        if let Some(open) = &mut self.open {
            open.stream.forgive(spent);
        }
    }

    /// Ends the stream, if there is one, and hands it over to be reported.
    pub(crate) async fn end(&mut self, ended: Result<(), Failure>) {
        if let Some(open) = self.open.take() {
            // Its state is large, and most connections never carry records.
            Box::pin(async move {
                let OpenStream { stream, unreported } = *open;
                let received = stream.finish(ended).await;
                unreported.report(received).await;
            })
            .await;
        }
    }

    /// Waits for a slot for the next stream; false if none becomes free in time or the connection
    /// has `ended`. Meanwhile its client is not read: it is slowed down before it is refused.
    pub(crate) async fn wait_for_slot(&mut self, ended: impl Future<Output = ()>) -> bool {
        let (tally, kind) = (self.worker.tally(), Protocol::Messages as usize);
        tally.add(|tally| &tally.admission_waits[kind], 1);
        let begun = clock::now();
        self.granted = tokio::select! {
            biased;
            slot = self.slots.admit_stream() => Some(slot),
            () = ended => None,
            () = clock::sleep(self.worker.config.admit_timeout) => None,
        };
        tally.add(|tally| &tally.admission_wait_ns[kind], clock::since(begun).as_nanos() as u64);
        self.granted.is_some()
    }

    /// A new stream; `None` if no slot is free.
    ///
    /// # Errors
    /// [`Failure`] if there is no memory for one; it is reported.
    async fn begin(
        &self,
        granted: Option<StreamSlot>,
        now: Instant,
    ) -> Result<Option<Box<OpenStream>>, Failure> {
        let Some(slot) = granted.or_else(|| self.slots.take_stream()) else { return Ok(None) };
        let number = self.slots.next_number();
        let jobs = self.worker.jobs.clone();
        let unreported = Unreported::new(number, self.peer, jobs, StreamHold::Stream(slot));
        let bytes = self.worker.config.memory(self.worker.counters.workers.len()).stream_at_start
            - self.worker.config.buffer_bytes;
        let memory = match stream::admit(&self.worker, bytes).await {
            Ok(memory) => memory,
            Err(failure) => {
                let nothing = Received::nothing(number, self.peer, now);
                unreported.report(failure.clone().of_stream(nothing)).await;
                return Err(failure);
            }
        };
        let stream = RecordStream::start(
            Rc::clone(&self.worker),
            number,
            self.peer,
            BufferKind::Plain,
            PAYLOAD_BYTES_MAX,
            now,
            memory,
        );
        tracing::debug!(stream = number, peer = %self.peer, "DATA carries records");
        Ok(Some(Box::new(OpenStream { stream, unreported })))
    }
}

#[cfg(test)]
#[path = "carried_tests.rs"]
mod tests;
