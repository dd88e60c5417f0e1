//! The record stream carried in DATA of one message connection: starts it, takes in its packets and
//! hands it over to be reported. Does not parse frames and sends no replies.
//!
//! ```text
//!          ┌──────── whole packets, and a stream is free ────────┐
//!          │                                                     ▼
//!        none                                                  open ◀── whole packets
//!          ▲                                                     │
//!          └─ end record, records refused, connection over ──────┘  the stream is reported
//! ```
//!
//! Bytes that are not whole packets are counted and otherwise ignored.

use crate::config::DataMode;
use crate::engine::stream::received::BufferKind;
use crate::runtime::connection::slots::{Slots, StreamHold, StreamSlot};
use crate::runtime::records::stream as record_stream;
use crate::runtime::records::stream::{Failure, RecordStream};
use crate::runtime::worker::Worker;
use crate::wire::messages::frame::PAYLOAD_BYTES_MAX;
use crate::wire::records::packets::is_whole_packets;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What happened to DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataTaken {
    /// It was accepted.
    In,
    /// Its records were rejected; the stream has ended and is reported.
    Rejected,
    /// It carries records, but no stream slot is free.
    NoStream,
}

/// The record stream within a message connection, while there is one.
pub(crate) struct CarriedRecords {
    worker: Rc<Worker>,
    slots: Arc<Slots>,
    peer: SocketAddr,
    open: Option<Box<OpenStream>>,
}

/// An open stream and its slot; boxed because it is large and rare.
struct OpenStream {
    stream: RecordStream,
    slot: StreamSlot,
}

impl CarriedRecords {
    /// Without a stream yet. Streams will be reported as coming from `peer`.
    pub(crate) fn new(worker: Rc<Worker>, slots: Arc<Slots>, peer: SocketAddr) -> Self {
        CarriedRecords { worker, slots, peer, open: None }
    }

    /// Whether a stream is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the records of `body`, or counts it if it holds none. Waits only for the
    /// aggregation.
    pub(crate) async fn take_in(&mut self, body: &[u8], taken_over: Instant) -> DataTaken {
        let form = self.worker.plan.form();
        if self.worker.config.data == DataMode::Opaque || !is_whole_packets(form, body) {
            self.worker.tally().opaque_data.add(1);
            return DataTaken::In;
        }
        if self.open.is_none() {
            self.open = self.begin(taken_over);
        }
        let Some(OpenStream { stream, .. }) = self.open.as_deref_mut() else {
            return DataTaken::NoStream;
        };
        let digested = stream.digest(body, body.len(), taken_over).await;
        if digested.is_ok() && !stream.intake().ended() {
            stream.forget_window();
            return DataTaken::In;
        }
        let taken = if digested.is_ok() { DataTaken::In } else { DataTaken::Rejected };
        self.end(digested).await;
        taken
    }

    /// Ends the stream, if there is one, and hands it over to be reported.
    pub(crate) async fn end(&mut self, ended: Result<(), Failure>) {
        if let Some(open) = self.open.take() {
            let jobs = &self.worker.jobs;
            // Its state is large, and most connections never carry records.
            Box::pin(async move {
                let OpenStream { stream, slot } = *open;
                let received = stream.finish(ended).await;
                record_stream::report(jobs, received, StreamHold::Stream(slot)).await;
            })
            .await;
        }
    }

    fn begin(&self, now: Instant) -> Option<Box<OpenStream>> {
        let slot = self.slots.take_stream()?;
        let stream = RecordStream::start(
            Rc::clone(&self.worker),
            self.slots.next_number(),
            self.peer,
            BufferKind::Plain,
            PAYLOAD_BYTES_MAX,
            now,
        );
        tracing::debug!(stream = stream.number(), peer = %self.peer, "DATA carries records");
        Some(Box::new(OpenStream { stream, slot }))
    }
}

#[cfg(test)]
#[path = "carried_tests.rs"]
mod tests;
