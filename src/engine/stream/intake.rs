//! Processes one record stream from received bytes to rows or groups. Reads no socket and no clock,
//! and never waits. The caller owns the receive buffer and the column set and lends both.
//!
//! After each read: [`handle_read`](RecordIntake::handle_read), then
//! [`poll_rows`](RecordIntake::poll_rows) or [`poll_groups`](RecordIntake::poll_groups) with room
//! for rows until it stops asking for more, then [`compact`](RecordIntake::compact).

use crate::config::{Config, RUNS_LIMIT};
use crate::engine::decode::decoder::{Decoded, Decoder, RowLimit};
use crate::engine::decode::texts::{TextLimit, Texts};
use crate::engine::groups::columns::ColumnSet;
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::wire::records::packets::{PacketParser, RunList, Stop, StreamCut, Violation};
use crate::wire::records::window::Window;
use std::ops::Range;
use std::sync::Arc;

/// The counts of a stream so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Data records that became rows.
    pub records: u64,
    /// Whole packets, including the one with the end record.
    pub packets: u64,
    /// All bytes received.
    pub bytes: u64,
    /// Bytes received after the end record.
    pub bytes_after_end: u64,
}

/// What the caller must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Call again with room for at least one row: the bytes hold more records.
    Rows,
    /// Read more bytes.
    Read,
    /// Nothing: the end record has arrived. Further bytes are counted and dropped.
    Ended,
}

/// Why a stream was rejected. The records before that point have become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A packet length breaks the protocol.
    #[error(transparent)]
    Packet(#[from] Violation),
    /// A text exceeds a limit.
    #[error(transparent)]
    Text(#[from] TextLimit),
    /// A record would exceed the limit of groups.
    #[error("more than {limit} groups (--groups-limit)")]
    Groups {
        /// The limit in force.
        limit: usize,
    },
}

/// The state of one stream: window, parser, texts and counts.
pub(crate) struct RecordIntake {
    window: Window,
    parser: PacketParser,
    runs: RunList,
    decoder: Decoder,
    groups_limit: usize,
    counts: Counts,
}

impl RecordIntake {
    /// A stream at its start, with a receive window of `window_bytes`.
    pub(crate) fn new(plan: &Arc<Plan>, config: &Config, window_bytes: usize) -> Self {
        RecordIntake {
            window: Window::new(window_bytes),
            parser: PacketParser::new(*plan.form(), config.packet_bytes_limit),
            runs: RunList::with_limit(RUNS_LIMIT),
            decoder: Decoder::new(plan, config),
            groups_limit: config.groups_limit,
            counts: Counts::default(),
        }
    }

    /// The part of the buffer for the next read; never empty between reads.
    pub(crate) fn free(&self) -> Range<usize> {
        self.window.free()
    }

    /// Handles a read that put `bytes` bytes at the start of [`free`](Self::free). After the end
    /// record they are counted and dropped.
    pub(crate) fn handle_read(&mut self, bytes: usize) {
        self.counts.bytes += bytes as u64;
        self.window.fill(bytes);
        if self.ended() {
            self.drop_unparsed();
        }
    }

    /// Decodes received records, as many as fit into `set`.
    ///
    /// # Errors
    /// [`Refused`], which ends the stream.
    pub(crate) fn poll_rows(
        &mut self,
        buffer: &[u8],
        set: &mut ColumnSet,
    ) -> Result<NextStep, Refused> {
        let rows_limit = set.rows_free();
        self.poll(buffer, rows_limit, |decoder, received, runs| {
            decoder.decode(received, runs.runs(), set)
        })
    }

    /// Decodes received records and folds them into `groups`.
    ///
    /// # Errors
    /// [`Refused`], which ends the stream.
    ///
    /// # Panics
    /// Panics if `groups` takes no more rows.
    pub(crate) fn poll_groups(
        &mut self,
        buffer: &[u8],
        groups: &mut GroupTable,
    ) -> Result<NextStep, Refused> {
        let rows_limit = groups.rows_free();
        assert!(rows_limit > 0, "the groups take no more rows");
        self.poll(buffer, rows_limit, |decoder, received, runs| {
            decoder.fold(received, runs.runs(), groups)
        })
    }

    /// One pass. `use_runs` may stop at a record and returns the reason; later records count as not
    /// received.
    fn poll(
        &mut self,
        buffer: &[u8],
        rows_limit: usize,
        use_runs: impl FnOnce(&mut Decoder, &[u8], &RunList) -> Decoded,
    ) -> Result<NextStep, Refused> {
        if self.ended() {
            return Ok(NextStep::Ended);
        }
        let received = &buffer[self.window.received()];
        let from = self.window.unparsed().start;
        let pass = self.parser.parse(received, from, rows_limit, &mut self.runs);
        let decoded = use_runs(&mut self.decoder, received, &self.runs);
        let refused = decoded.limit.map(|limit| match limit {
            RowLimit::Text(limit) => Refused::Text(limit),
            RowLimit::Groups => Refused::Groups { limit: self.groups_limit },
        });
        self.window.parse(pass.bytes);
        self.window.consume_parsed();
        self.counts.records += decoded.records as u64;
        self.counts.packets += self.runs.packets(decoded.records) as u64;
        if let Some(refused) = refused {
            return Err(refused);
        }
        match pass.stop {
            Stop::NeedMore => Ok(NextStep::Read),
            Stop::RunsFull => Ok(NextStep::Rows),
            Stop::Refused(violation) => Err(violation.into()),
            Stop::End => {
                // The end record ends its packet.
                self.counts.packets += 1;
                self.drop_unparsed();
                Ok(NextStep::Ended)
            }
        }
    }

    /// Counts and drops bytes after the end record.
    fn drop_unparsed(&mut self) {
        let bytes = self.window.unparsed().len();
        self.counts.bytes_after_end += bytes as u64;
        self.window.parse(bytes);
        self.window.consume_parsed();
    }

    /// Moves an incomplete record to the front of the buffer to make room for the next read.
    pub(crate) fn compact(&mut self, buffer: &mut [u8]) {
        self.window.compact(buffer);
    }

    /// Gives up a window without leftover bytes; the next bytes will be in another one.
    ///
    /// # Panics
    /// Panics if bytes are left over.
    pub(crate) fn forget_window(&mut self) {
        assert_eq!(self.waiting_bytes(), 0, "bytes of an incomplete record are left");
        self.window.compact(&mut []);
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of an incomplete record or length.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.window.unparsed().len()
    }

    /// Whether the end record has arrived.
    pub(crate) fn ended(&self) -> bool {
        self.parser.ended()
    }

    /// Whether a packet has begun and is incomplete.
    pub(crate) fn in_packet(&self) -> bool {
        self.parser.in_packet(self.waiting_bytes())
    }

    /// Where the stream is cut off if it stops now; `None` if it is complete.
    pub(crate) fn cut(&self) -> Option<StreamCut> {
        self.parser.cut(self.waiting_bytes(), self.counts.bytes > 0)
    }

    /// The distinct values so far of each text key, by code, in the order of the keys.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Texts> {
        self.decoder.texts()
    }

    /// The same, at the end of the stream.
    pub(crate) fn into_texts(self) -> Vec<Texts> {
        self.decoder.into_texts()
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
