//! Judges a run: what peers saw, what the network carried and what the engine reported and counted
//! must fit together. Says what is wrong in words.

use crate::line::Standing;
use crate::model::{Form, Parsed};
use crate::peers::PeerStory;
use crate::scenario::{FaultKind, PeerKind, Scenario};
use ringest::internals::simulation::{EngineRemains, Protocol, SimulatedReport, Status};
use ringest::internals::{AggregateMode, Reason};
use std::time::Duration;

/// The longest that a witness waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The longest that a witness's stream takes, from its first byte to the engine's close, besides
/// what a slow aggregation costs.
const STREAM_MAX: Duration = Duration::from_secs(10);

/// A connection younger than this when the engine is told to stop may have come after that.
const CAME_AFTER: Duration = Duration::from_millis(20);

/// A run after its end.
pub struct Run {
    pub scenario: Scenario,
    pub form: &'static Form,
    pub stories: Vec<PeerStory>,
    pub remains: EngineRemains,
    /// The limit that was passed meanwhile, if one was.
    pub broken_limit: Option<String>,
    /// When the engine was first told to stop while peers were there.
    pub told_to_stop: Option<Duration>,
}

type Verdict = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Run {
    pub fn judge(&self) -> Verdict {
        for story in &self.stories {
            let judged = match story.plan.kind.is_message_client() {
                true => self.judge_client(story),
                false => self.judge_stream(story),
            };
            judged.map_err(|what| format!("{} {:?}: {what}", story.address, story.plan.kind))?;
        }
        must(self.broken_limit.is_none(), || format!("too many: {:?}", self.broken_limit))?;
        self.judge_strangers()?;
        self.judge_empty_ones()?;
        self.judge_counters()?;
        self.judge_memory()
    }

    fn reports_of<'a>(&'a self, story: &'a PeerStory) -> Vec<&'a SimulatedReport> {
        let reports = self.remains.reports.iter();
        reports.filter(|report| report.peer == story.address).collect()
    }

    /// Whether the engine must have taken the connection in.
    fn was_in_time(&self, story: &PeerStory) -> bool {
        let Some(connected) = story.connected else { return false };
        if self.scenario.config.exit_after.is_some() || self.scenario.plans_helper_panic() {
            return false;
        }
        self.told_to_stop.is_none_or(|told| connected + CAME_AFTER < told)
    }

    /// Whether a peer may have met a fault of this world that excuses an incomplete stream.
    fn is_excused(&self) -> bool {
        let config = &self.scenario.config;
        self.scenario.plans_panic()
            || self.may_stop()
            || self.is_crowded()
            || config.groups_limit < 1000
            || (config.memory_limit.is_some() && !self.scenario.has_flood())
    }

    /// Whether the engine may have stopped while peers were there.
    fn may_stop(&self) -> bool {
        self.told_to_stop.is_some()
            || self.scenario.config.exit_after.is_some()
            || self.scenario.plans_helper_panic()
    }

    fn is_crowded(&self) -> bool {
        self.scenario.config.max_streams < 100
    }

    fn read_by_engine(story: &PeerStory) -> Vec<u8> {
        story.line.as_ref().map_or_else(Vec::new, |line| line.read_by_engine())
    }

    /// The bytes of a stream in those that the engine has read.
    fn received_by_engine(story: &PeerStory) -> Vec<u8> {
        let read = Self::read_by_engine(story);
        match &story.sealed {
            Some(sealed) => sealed.plain_within(read.len()).to_vec(),
            None if story.plan.tls => Vec::new(),
            None => read,
        }
    }

    /// Where TLS stands for the engine; `None` without it.
    fn standing(story: &PeerStory) -> Option<Standing> {
        let read = Self::read_by_engine(story).len();
        match &story.sealed {
            Some(sealed) => Some(sealed.standing_at(read)),
            None if !story.plan.tls => None,
            None => Some(if read == 0 { Standing::Untouched } else { Standing::Broken }),
        }
    }

    fn judge_stream(&self, story: &PeerStory) -> Verdict {
        let reports = self.reports_of(story);
        let (mut bytes, standing) = (Self::received_by_engine(story), Self::standing(story));
        must(reports.len() <= 1, || format!("reported {} times", reports.len()))?;
        let Some(report) = reports.first() else {
            must(bytes.is_empty(), || format!("{} bytes are in no report", bytes.len()))?;
            let may_be_empty = match standing {
                None => matches!(story.plan.kind, PeerKind::Empty | PeerKind::ResetInStream),
                Some(standing) => {
                    matches!(standing, Standing::Untouched | Standing::Between | Standing::Closed)
                }
            };
            let silent = may_be_empty && !self.scenario.config.report_empty;
            return must(silent || !self.was_in_time(story), || "not reported".to_owned());
        };
        let counts = report.counts;
        if standing.is_some() && report.reason.is_some_and(leaves_a_rest) {
            // What was decrypted together may be more than was looked at.
            bytes.truncate(counts.bytes as usize);
        }
        must(counts.bytes == bytes.len() as u64, || {
            format!("{} bytes reported, {} read", counts.bytes, bytes.len())
        })?;
        let parsed = self.form.parse(&bytes, self.scenario.config.packet_bytes_limit);
        if report.reason == Some(Reason::MemoryLimit) {
            self.judge_condemned(story)?;
            let received = parsed.records.get(..counts.records as usize);
            let received = received.ok_or_else(|| format!("{} records", counts.records))?;
            // Complete up to there.
            return self.form.compare(&report.grouped, received);
        }
        must(story.plan.kind != PeerKind::Flood || self.is_excused(), || {
            format!("a flood ends as {:?}", report.reason)
        })?;
        // A task that panics may have refused the rest before.
        let is_full = report.grouped.len() >= self.scenario.config.groups_limit;
        let broke_full = report.reason == Some(Reason::InternalError) && is_full;
        if report.reason == Some(Reason::GroupsLimit) || broke_full && self.scenario.plans_panic() {
            return self.judge_many_groups(report, &parsed);
        }
        self.judge_rows(report, &parsed.records)?;
        must(counts.bytes_after_end == parsed.after_end, || {
            format!("{} bytes after the end, not {}", counts.bytes_after_end, parsed.after_end)
        })?;
        must(counts.packets == parsed.packets, || {
            format!("{} packets, not {}", counts.packets, parsed.packets)
        })?;
        self.judge_reason(story, report, &parsed)?;
        let whole = matches!(
            story.plan.kind,
            PeerKind::RightSender | PeerKind::SteadySender | PeerKind::WitnessSender
        );
        if whole && story.finished && !self.is_excused() {
            must(report.reason.is_none(), || {
                format!("a right stream ends as {:?}", report.reason)
            })?;
            let told = story.sealed.as_ref().is_none_or(|s| s.closed_by_engine || s.is_open());
            must(told, || "it was not told that the engine has closed TLS".to_owned())?;
        }
        if story.plan.kind == PeerKind::WitnessSender && !self.is_excused() {
            // Each of its few hundred records may be a job.
            let delays = self.scenario.delays;
            let most = STREAM_MAX + 300 * delays.aggregation + 40 * delays.stall;
            let took = story.ended - story.plan.start;
            must(story.finished && took < most, || format!("took {took:?}"))?;
        }
        Ok(())
    }

    /// Whether a stream may have held the most when memory was short.
    fn judge_condemned(&self, story: &PeerStory) -> Verdict {
        must(self.scenario.config.memory_limit.is_some(), || "no limit is set".to_owned())?;
        let is_flood = story.plan.kind.is_flood();
        must(is_flood || !self.scenario.has_flood(), || {
            "it ends for its memory, and others held more".to_owned()
        })
    }

    fn judge_rows(&self, report: &SimulatedReport, records: &[Vec<u8>]) -> Verdict {
        must(report.counts.records == records.len() as u64, || {
            format!("{} records reported, {} received", report.counts.records, records.len())
        })?;
        self.form.compare(&report.grouped, records)
    }

    /// A stream with too many groups is complete up to there. Where one table holds the whole
    /// stream, that is the record before the first group too many.
    fn judge_many_groups(&self, report: &SimulatedReport, parsed: &Parsed) -> Verdict {
        let config = &self.scenario.config;
        let received = &parsed.records[..report.counts.records as usize];
        self.form.compare(&report.grouped, received)?;
        let (groups, limit) = (report.grouped.len(), config.groups_limit);
        let exact = config.aggregate == AggregateMode::TwoPhase && config.partials.is_none();
        must(groups >= limit, || format!("{groups} groups are below the limit of {limit}"))?;
        must(!exact || groups == limit, || format!("{groups} groups with a limit of {limit}"))
    }

    fn judge_reason(
        &self,
        story: &PeerStory,
        report: &SimulatedReport,
        parsed: &Parsed,
    ) -> Verdict {
        let reason = report.reason;
        let wrong = || {
            format!(
                "ends as {reason:?}; the bytes say {parsed:?}",
                parsed = (parsed.broken, parsed.ended, parsed.if_closed, &report.detail)
            )
        };
        match reason {
            Some(Reason::InternalError) => return must(self.scenario.plans_panic(), wrong),
            Some(Reason::ConnectionsLimit) => {
                return must(self.is_crowded() && report.counts.bytes == 0, wrong);
            }
            _ => {}
        }
        if parsed.broken.is_some() {
            return must(reason == parsed.broken, wrong);
        }
        let overflows = self.form.overflows(&parsed.records);
        if reason == Some(Reason::SumOverflow) {
            let complete = parsed.ended || parsed.if_closed.is_none();
            return must(overflows && complete, wrong);
        }
        must(reason.is_some() || !overflows, wrong)?;
        if parsed.ended {
            let other_size = self.form.length == crate::model::Length::None
                && !parsed.after_end.is_multiple_of(self.form.record_bytes() as u64);
            let expected = other_size.then_some(Reason::ClosedInRecord);
            return must(reason == expected, wrong);
        }
        let quiet = matches!(story.plan.kind, PeerKind::Silent | PeerKind::Trickler);
        let standing = Self::standing(story);
        let shaking = matches!(standing, Some(Standing::Untouched | Standing::Handshake));
        let closed = match standing {
            Some(Standing::Handshake | Standing::Broken) => Some(Reason::TlsFailed),
            Some(Standing::InRecord) if report.counts.bytes == 0 => {
                Some(Reason::ClosedWithoutCloseNotify)
            }
            Some(Standing::Untouched | Standing::Between | Standing::InRecord) => {
                parsed.if_closed.or(Some(Reason::ClosedWithoutCloseNotify))
            }
            Some(Standing::Closed) | None => parsed.if_closed,
        };
        match reason {
            Some(Reason::IdleTimeout | Reason::PacketTimeout) => must(quiet && !shaking, wrong),
            // What is no TLS may look like the beginning of it.
            Some(Reason::TlsTimeout) => {
                let is_plain = story.plan.tls && story.sealed.is_none();
                must(quiet && shaking || is_plain, wrong)
            }
            Some(Reason::Shutdown) => must(self.may_stop(), wrong),
            Some(Reason::Reset) => {
                must(story.plan.kind == PeerKind::ResetInStream || story.broke_off, wrong)
            }
            reason => must(reason == closed, wrong),
        }
    }

    fn judge_client(&self, story: &PeerStory) -> Verdict {
        let reports = self.reports_of(story);
        if !story.data.is_empty() {
            self.judge_data(story, &reports)?;
        } else {
            must(reports.is_empty(), || "a client without DATA is reported".to_owned())?;
        }
        // A peer that still sends after the time to linger is reset, and the reset takes the error.
        let lasted = story.ended.saturating_sub(story.plan.start);
        let listens = lasted < self.scenario.config.linger;
        let garbage = story.plan.kind == PeerKind::Garbage && (story.errors > 0 || listens);
        if garbage && self.was_in_time(story) && !self.is_excused() {
            must(story.errors == 1, || format!("{} errors came", story.errors))?;
        }
        if story.plan.kind == PeerKind::WitnessPinger && !self.is_excused() {
            must(story.finished && story.unanswered == 0, || {
                format!("{} answers, {} open", story.answers, story.unanswered)
            })?;
            let slowest = story.slowest_answer;
            must(slowest < ANSWER_MAX, || format!("an answer took {slowest:?}"))?;
        }
        Ok(())
    }

    /// The streams of one client hold what it sent, in order; what was acknowledged is in them.
    fn judge_data(&self, story: &PeerStory, reports: &[&SimulatedReport]) -> Verdict {
        let reported: u64 = reports.iter().map(|report| report.counts.records).sum();
        let acknowledged = story.data.iter().filter(|data| data.acknowledged);
        let acknowledged: usize = acknowledged.map(|data| data.records.len()).sum();
        must(acknowledged as u64 <= reported, || {
            format!("{acknowledged} records are acknowledged, and {reported} in results")
        })?;
        let sent: Vec<&Vec<u8>> = story.data.iter().flat_map(|data| &data.records).collect();
        must(reported as usize <= sent.len(), || {
            format!("{} records sent, and {reported} in results", sent.len())
        })?;
        let mut rest = &sent[..];
        for report in reports {
            let (these, others) = rest.split_at(report.counts.records as usize);
            rest = others;
            let these: Vec<Vec<u8>> = these.iter().map(|record| (*record).clone()).collect();
            self.judge_rows(report, &these)?;
            let is_internal = report.reason == Some(Reason::InternalError);
            must(!is_internal || self.scenario.plans_panic(), || "a bug is reported".to_owned())?;
            if report.reason == Some(Reason::MemoryLimit) {
                self.judge_condemned(story)?;
            }
        }
        if story.plan.kind == PeerKind::DataFlood && !self.is_excused() {
            let reasons: Vec<_> = reports.iter().map(|report| report.reason).collect();
            must(reasons.contains(&Some(Reason::MemoryLimit)), || {
                format!("a flood ends as {reasons:?}")
            })?;
        }
        // While the engine waits for its own aggregation, no time passes for the stream.
        // A client that takes none of its replies is cut, and never asks.
        let answered =
            story.answers > 0 && story.unanswered == 0 && story.slowest_answer < ANSWER_MAX;
        if story.plan.kind == PeerKind::DataIdle && answered && !self.is_excused() {
            let reasons: Vec<_> = reports.iter().map(|report| report.reason).collect();
            must(reasons.last() == Some(&Some(Reason::IdleTimeout)), || {
                format!("a stream without records ends as {reasons:?}")
            })?;
        }
        if story.plan.kind == PeerKind::DataSender && story.finished && !self.is_excused() {
            let all = story.data.iter().all(|data| data.acknowledged);
            must(all && reported as usize == sent.len(), || {
                format!(
                    "{reported} of {} records are in results, all acknowledged: {all}",
                    sent.len()
                )
            })?;
        }
        Ok(())
    }

    /// Nothing is reported that nobody sent.
    fn judge_strangers(&self) -> Verdict {
        for report in &self.remains.reports {
            let known = self.stories.iter().any(|story| story.address == report.peer);
            must(known, || format!("{} is reported and never connected", report.peer))?;
        }
        let reports = &self.remains.reports;
        for (place, report) in reports.iter().enumerate() {
            let again = reports[..place].iter().any(|r| r.connection == report.connection);
            must(!again, || format!("number {} is reported twice", report.connection))?;
        }
        Ok(())
    }

    /// Those that closed without a byte are counted, unless they came to an engine that stops.
    fn judge_empty_ones(&self) -> Verdict {
        if self.may_stop() {
            return Ok(());
        }
        let streams = self.stories.iter().filter(|story| !story.plan.kind.is_message_client());
        let unreported = streams.filter(|story| self.reports_of(story).is_empty()).count() as u64;
        let counters = &self.remains.counters;
        let tallies = counters.workers.iter().chain([&counters.acceptor]);
        let counted: u64 = tallies.map(|t| t.empty[Protocol::Records as usize].get()).sum();
        must(counted == unreported, || {
            format!("{counted} empty connections are counted, and {unreported} not reported")
        })
    }

    fn judge_counters(&self) -> Verdict {
        let remains = &self.remains;
        let (counters, reports) = (&remains.counters, &remains.reports);
        let same = |what: &str, counted: u64, happened: u64| {
            must(counted == happened, || format!("{what}: {counted} counted, {happened} happened"))
        };
        let workers = || counters.workers.iter();
        let reported = |count: fn(&SimulatedReport) -> u64| reports.iter().map(count).sum::<u64>();
        same("records", workers().map(|w| w.records.get()).sum(), reported(|r| r.counts.records))?;
        same("packets", workers().map(|w| w.packets.get()).sum(), reported(|r| r.counts.packets))?;
        for protocol in Protocol::ALL {
            let kind = protocol as usize;
            let opened: u64 = workers().map(|w| w.opened[kind].get()).sum();
            let closed: u64 = workers().map(|w| w.closed[kind].get()).sum();
            same(&format!("closed {}", protocol.as_str()), closed, opened)?;
        }
        let streams = self.stories.iter().filter(|story| !story.plan.kind.is_message_client());
        let bytes_of = |story: &PeerStory| match story.plan.tls {
            true => self.reports_of(story).iter().map(|report| report.counts.bytes).sum(),
            false => Self::read_by_engine(story).len() as u64,
        };
        let bytes = streams.map(bytes_of).sum();
        let records = Protocol::Records as usize;
        let counted = workers().map(|w| w.bytes_received[records].get()).sum();
        same("bytes of record connections", counted, bytes)?;
        let complete = |r: &&SimulatedReport| {
            r.reason.is_none_or(|reason| reason.status() == Status::Complete)
        };
        let happened = reports.iter().filter(complete).count() as u64;
        same("complete streams", counters.reporter.streams_complete.get(), happened)?;
        for reason in Reason::ALL {
            let happened = reports.iter().filter(|r| r.reason == Some(reason)).count() as u64;
            let happened = if reason.status() == Status::Complete { 0 } else { happened };
            let counted = counters.reporter.stream_reasons[reason as usize].get();
            same(reason.as_str(), counted, happened)?;
        }
        same("reports", remains.outcome.reported, reports.len() as u64)
    }

    fn judge_memory(&self) -> Verdict {
        let remains = &self.remains;
        must(remains.counters.queued_bytes() == 0, || {
            format!("{} bytes are still queued", remains.counters.queued_bytes())
        })?;
        let (used, fixed) = (remains.counters.memory.used(), remains.memory_fixed);
        must(used == fixed, || format!("{used} bytes of memory at the end, not {fixed}"))?;
        must(remains.slots_taken == (0, 0), || {
            format!("{:?} slots are not free", remains.slots_taken)
        })?;
        let sick = remains.defect.as_ref();
        must(sick.is_none() || self.scenario.plans_helper_panic(), || {
            format!("the engine ended by itself: {sick:?}")
        })
    }
}

/// Whether a stream that ends so may leave bytes that were read and decrypted.
fn leaves_a_rest(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Shutdown
            | Reason::MemoryLimit
            | Reason::GroupsLimit
            | Reason::InternalError
            | Reason::PacketLengthBelowMinimum
            | Reason::PacketLengthAboveLimit
            | Reason::PacketLengthNotWholeRecords
    )
}

/// When the engine is first told to stop.
pub fn told_to_stop(scenario: &Scenario) -> Option<Duration> {
    let stops = scenario.faults.iter().filter(|f| matches!(f.kind, FaultKind::Stop { .. }));
    stops.map(|fault| fault.at).min()
}
