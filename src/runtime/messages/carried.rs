//! The record stream that DATA of one message connection carries: begins it, takes its packets in
//! and has its result made. Understands no frame and answers nobody.
//!
//! ```text
//!          ┌──────── whole packets, and a stream is free ────────┐
//!          │                                                     ▼
//!        none                                                  open ◀── whole packets
//!          ▲                                                     │
//!          └─ end record, records refused, connection over ──────┘  the stream is reported
//! ```
//!
//! Bytes that are not whole packets are counted and change nothing.

use crate::config::DataMode;
use crate::engine::stream::received::BufferKind;
use crate::runtime::connection::slots::{Slots, StreamHold, StreamSlot};
use crate::runtime::records::stream as record_stream;
use crate::runtime::records::stream::{Failure, RecordStream, Streams};
use crate::wire::messages::frame::PAYLOAD_BYTES_MAX;
use crate::wire::records::packets::is_whole_packets;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What happened to DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataTaken {
    /// It was taken in.
    In,
    /// Its records were refused by their stream, which is reported.
    Rejected,
    /// It carries records, and no stream is free.
    NoStream,
}

/// The record stream within a message connection, while there is one.
pub(crate) struct CarriedRecords {
    streams: Rc<Streams>,
    slots: Arc<Slots>,
    peer: SocketAddr,
    open: Option<Box<OpenStream>>,
}

/// Large, and rare.
struct OpenStream {
    stream: RecordStream,
    slot: StreamSlot,
}

impl CarriedRecords {
    /// No stream so far. Those to come are reported as from `peer`.
    pub(crate) fn new(streams: Rc<Streams>, slots: Arc<Slots>, peer: SocketAddr) -> Self {
        CarriedRecords { streams, slots, peer, open: None }
    }

    /// Whether a stream has begun and has not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the records of `body`; anything else is counted. Waits only for the aggregation.
    pub(crate) async fn take_in(&mut self, body: &[u8], taken_over: Instant) -> DataTaken {
        let form = self.streams.plan.form();
        if self.streams.config.data == DataMode::Opaque || !is_whole_packets(form, body) {
            self.streams.tally().opaque_data.add(1);
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

    /// Ends the stream, if there is one, and has its result made.
    pub(crate) async fn end(&mut self, ended: Result<(), Failure>) {
        if let Some(open) = self.open.take() {
            let jobs = &self.streams.jobs;
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
            Rc::clone(&self.streams),
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
