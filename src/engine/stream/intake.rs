//! One record stream from received bytes to rows or groups: reads no socket, owns no buffer, reads
//! no clock and waits for nothing. What drives it owns the buffer that reads land in and the column
//! set that rows go to, and lends both.
//!
//! After each read: [`handle_read`](RecordIntake::handle_read), then
//! [`poll_rows`](RecordIntake::poll_rows) or [`poll_groups`](RecordIntake::poll_groups) with room
//! for rows until it does not ask for more, then [`compact`](RecordIntake::compact). Until when the
//! next read must come is said by [`deadline`](RecordIntake::deadline).

use crate::config::{Config, FOLD_ROWS, RUNS_LIMIT};
use crate::engine::decode::decoder::{Decoded, Decoder, RowLimit};
use crate::engine::decode::texts::{TextLimit, Texts};
use crate::engine::groups::columns::ColumnSet;
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::engine::memory::account::MemoryShare;
use crate::engine::memory::held::HeldBytes;
use crate::wire::records::packets::{PacketParser, RunList, Stop, StreamCut, Violation};
use crate::wire::records::window::Window;
use crate::wire::text::counted;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// Call again once there is memory: the next record needs more.
    Memory,
    /// Read more bytes.
    Read,
    /// Nothing: the end record has arrived. Further bytes are counted and dropped.
    Ended,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The first byte of a packet.
    Packet,
    /// The rest of a packet that has begun.
    RestOfPacket,
    /// The peer's close, after the end record.
    Close,
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
    #[error("more than {} (--groups-limit)", counted(.limit, "group"))]
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
    patience: Patience,
    /// When bytes came last.
    last_read: Instant,
    /// When the packet that has begun was begun; after the end record, when that came.
    begun: Instant,
}

/// How long a stream waits for its peer.
struct Patience {
    idle: Duration,
    packet: Duration,
    linger: Duration,
}

impl RecordIntake {
    /// A stream that starts `now`, read into a window of `window_bytes`.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        config: &Config,
        window_bytes: usize,
        now: Instant,
    ) -> Self {
        RecordIntake {
            window: Window::new(window_bytes),
            parser: PacketParser::new(*plan.form(), config.packet_bytes_limit),
            runs: RunList::with_limit(RUNS_LIMIT),
            decoder: Decoder::new(plan, config),
            groups_limit: config.groups_limit,
            counts: Counts::default(),
            patience: Patience {
                idle: config.idle_timeout,
                packet: config.packet_timeout,
                linger: config.linger,
            },
            last_read: now,
            begun: now,
        }
    }

    /// Counts what its texts take as part of `share`.
    pub(crate) fn count_in(&mut self, share: &Arc<MemoryShare>) {
        self.decoder.count_in(share);
    }

    /// The part of the buffer for the next read; never empty between reads.
    pub(crate) fn free(&self) -> Range<usize> {
        self.window.free()
    }

    /// Handles a read that ended `now` and put `bytes` bytes at the start of [`free`](Self::free).
    /// After the end record they are counted and dropped.
    pub(crate) fn handle_read(&mut self, bytes: usize, now: Instant) {
        if !self.in_packet() && !self.ended() {
            self.begun = now;
        }
        self.last_read = now;
        self.counts.bytes += bytes as u64;
        self.window.fill(bytes);
        if self.ended() {
            self.drop_unparsed();
        }
    }

    /// Decodes received records, as many as one pass takes and as fit into `set`.
    ///
    /// # Errors
    /// [`Refused`], which ends the stream.
    pub(crate) fn poll_rows(
        &mut self,
        buffer: &[u8],
        set: &mut ColumnSet,
    ) -> Result<NextStep, Refused> {
        // No pass is longer than one that folds.
        let rows_limit = set.rows_free().min(FOLD_ROWS);
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
        let before = self.parser.clone();
        let mut pass = self.parser.parse(received, from, rows_limit, &mut self.runs);
        let decoded = use_runs(&mut self.decoder, received, &self.runs);
        let refused = match decoded.limit {
            None => None,
            Some(RowLimit::Text(limit)) => Some(Refused::Text(limit)),
            Some(RowLimit::Groups) => Some(Refused::Groups { limit: self.groups_limit }),
            Some(RowLimit::Memory) => {
                // Parses again what was decoded, so that the next pass begins with what was not.
                self.parser = before;
                pass.bytes = match decoded.records {
                    0 => 0,
                    records => self.parser.parse(received, from, records, &mut self.runs).bytes,
                };
                None
            }
        };
        self.window.parse(pass.bytes);
        self.window.consume_parsed();
        self.counts.records += decoded.records as u64;
        let packets = self.runs.packets(decoded.records) as u64;
        self.count_packets(packets);
        if let Some(refused) = refused {
            return Err(refused);
        }
        if decoded.limit == Some(RowLimit::Memory) {
            return Ok(NextStep::Memory);
        }
        match pass.stop {
            Stop::NeedMore => Ok(NextStep::Read),
            Stop::RunsFull => Ok(NextStep::Rows),
            Stop::Refused(violation) => Err(violation.into()),
            Stop::End => {
                // The end record ends its packet.
                self.count_packets(1);
                self.drop_unparsed();
                Ok(NextStep::Ended)
            }
        }
    }

    /// Counts packets. Time for the next one runs from the read that completed them.
    fn count_packets(&mut self, packets: u64) {
        self.counts.packets += packets;
        if packets > 0 {
            self.begun = self.last_read;
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

    /// The time by which the peer must act, and what is awaited.
    pub(crate) fn deadline(&self) -> (Instant, Awaited) {
        if self.ended() {
            (self.begun + self.patience.linger, Awaited::Close)
        } else if self.in_packet() {
            (self.begun + self.patience.packet, Awaited::RestOfPacket)
        } else {
            (self.last_read + self.patience.idle, Awaited::Packet)
        }
    }

    /// Extends the deadlines by time that this side spent since the last read. A peer that keeps
    /// sending after its end record gains nothing by it.
    pub(crate) fn forgive(&mut self, spent: Duration) {
        if !self.ended() || self.begun == self.last_read {
            self.begun += spent;
        }
        self.last_read += spent;
    }

    /// Where the stream is cut off if it stops now; `None` if it is complete.
    pub(crate) fn cut(&self) -> Option<StreamCut> {
        match self.other_size() {
            true => Some(StreamCut::InRecord),
            false => self.parser.cut(self.waiting_bytes(), self.counts.bytes > 0),
        }
    }

    /// Whether records without packets went on after their end record by less than a record. The
    /// sender's are of another size, and zeros within them were taken for the end.
    pub(crate) fn other_size(&self) -> bool {
        let form = self.parser.form();
        let after = self.counts.bytes_after_end;
        form.is_bare() && self.ended() && !after.is_multiple_of(form.record_bytes as u64)
    }

    /// The distinct values so far of each text key, by code, in the order of the keys.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Texts> {
        self.decoder.texts()
    }

    /// The same, at the end of the stream.
    pub(crate) fn into_texts(self) -> Vec<Texts> {
        self.decoder.into_texts()
    }

    /// Hands over what the texts hold.
    pub(crate) fn take_memory(&mut self) -> Vec<HeldBytes> {
        self.decoder.take_memory()
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
