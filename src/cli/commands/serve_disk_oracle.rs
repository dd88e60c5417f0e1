//! What must be true of the files and of what is said about them, whatever happened: computed from
//! what was sent, never by the engine.

use super::life::{EndedLife, SentStream, Setting, SharedOracle};
use crate::config::FileFormat;
use crate::engine::aggregate::merge::{MergeOrder, merge};
use crate::engine::aggregate::partial_reader::schema_of;
use crate::engine::stream::received::{CaptureLack, Captured, PartialsLack, Received};
use crate::runtime::disk::faults::DiskCall;
use crate::runtime::disk::simulated::SimulatedDisk;
use crate::runtime::results::report::ResultFile;
use crate::runtime::results::whole_file::moment;
use crate::wire::schema::Schema;
use crate::wire::text::counted;
use fastrand::Rng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// The groups of a stream: for each key the sum of its values, and how many there are.
type NaiveGroups = BTreeMap<u64, (u64, u64)>;

pub(super) struct Oracle {
    disk: Arc<SimulatedDisk>,
    schema: Arc<Schema>,
    format: FileFormat,
    capture_bytes_limit: u64,
    output: PathBuf,
    /// With `--partials`.
    partials: Option<PathBuf>,
    capture: PathBuf,
    hgrm: PathBuf,
    results: PathBuf,
    moments: u64,
    /// All streams, by the time in the names of their files.
    sent: BTreeMap<String, SentStream>,
    /// Files that were announced, and what was in them then.
    announced: BTreeMap<PathBuf, Vec<u8>>,
    /// Files that were there before, of which two have names that this engine will make.
    others: BTreeMap<PathBuf, Vec<u8>>,
    life: LifeRecord,
    /// Records of streams whose partials were announced, and of all streams.
    merged_records: (u64, u64),
    /// Results printed so far.
    lines: usize,
    all_went_well: bool,
}

/// What is known of the current life.
#[derive(Default)]
struct LifeRecord {
    second: bool,
    begun: BTreeMap<u64, SentStream>,
    printed: Vec<Printed>,
    /// Names of partials and latencies that earlier lives left.
    old_names: BTreeSet<String>,
    started: bool,
}

struct Printed {
    connection: u64,
    file: ResultFile,
    /// `None` after a panic.
    capture: Option<Captured>,
    partials: PartialsLack,
}

impl Oracle {
    pub(super) fn new(disk: &Arc<SimulatedDisk>, setting: &Setting) -> SharedOracle {
        let config = &setting.config;
        let path = |path: &Option<PathBuf>| path.clone().expect("all directories are given");
        Arc::new(Mutex::new(Oracle {
            disk: Arc::clone(disk),
            schema: Arc::clone(&setting.schema),
            format: config.output_format,
            capture_bytes_limit: config.capture_bytes_limit,
            output: path(&config.output),
            partials: config.partials.clone(),
            capture: path(&config.capture),
            hgrm: path(&config.hgrm),
            results: setting.results.clone(),
            moments: 0,
            sent: BTreeMap::new(),
            announced: BTreeMap::new(),
            others: BTreeMap::new(),
            life: LifeRecord::default(),
            merged_records: (0, 0),
            lines: 0,
            all_went_well: true,
        }))
    }

    /// A time that no stream has begun at, with room for a few.
    pub(super) fn next_moment(&mut self) -> SystemTime {
        self.moments += 1;
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + 100 * self.moments)
    }

    /// Puts files where another engine of the same name would: they must survive.
    pub(super) fn put_others_files(&mut self, random: &mut Rng) {
        // The first stream begins a second after its round.
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_101);
        let name = format!("{}-n-{}-1", moment(at), std::process::id());
        let extension = self.format.extension();
        let result = self.output.join(format!("{name}.{extension}"));
        let capture = self.capture.join(format!("{name}.capture"));
        for path in [result, capture] {
            if random.u8(..4) == 0 {
                self.disk.put(&path, b"of another engine");
                self.others.insert(path, b"of another engine".to_vec());
            }
        }
    }

    pub(super) fn begins(&mut self, number: u64, sent: &SentStream) {
        self.life.started = true;
        self.life.begun.insert(number, sent.clone());
        self.sent.insert(moment(sent.started), sent.clone());
        self.merged_records.1 += sent.records.len() as u64;
    }

    /// A result was printed: whatever it names must be on the disk from now on.
    pub(super) fn printed(&mut self, received: &Received, file: Option<&ResultFile>) {
        if self.disk.is_down() {
            return;
        }
        let (connection, sent) = (received.connection, &self.life.begun[&received.connection]);
        let (partials, capture) = (received.partials.clone(), received.capture.clone());
        let file = file.cloned().flatten().expect("each stream has a result file");
        let captured = capture.iter().filter_map(|capture| Some((capture.path.clone()?, capture)));
        for (path, capture) in captured.clone() {
            assert_eq!(self.content(&path).len() as u64, capture.bytes);
        }
        let records = sent.records.len() as u64;
        let mut paths: Vec<PathBuf> =
            captured.map(|(path, _)| path).chain(file.as_ref().ok().cloned()).collect();
        if let Some(directory) = &self.partials
            && partials.failed == 0
        {
            self.merged_records.0 += records;
            let of_it = format!("-{}-{connection}-", std::process::id());
            paths.extend(self.new_names(directory, |name| name.contains(&of_it)));
        }
        let latencies = format!("-{}-{connection}.hgrm", std::process::id());
        paths.extend(self.new_names(&self.hgrm, |name| name.ends_with(&latencies)));
        for path in paths {
            let content = self.content(&path);
            self.check_whole(&path, &content);
            self.announced.insert(path, content);
        }
        self.lines += 1;
        self.life.printed.push(Printed { connection, file: Some(file), capture, partials });
    }

    fn content(&self, path: &Path) -> Vec<u8> {
        let content = self.disk.content(path);
        content.unwrap_or_else(|| panic!("{} was announced and is gone", path.display()))
    }

    /// Paths with a final name that this life made.
    fn new_names(&self, directory: &Path, of_it: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let names = self.disk.names(directory).into_iter();
        let new =
            names.filter(|name| !name.starts_with('.') && !self.life.old_names.contains(name));
        new.filter(|name| of_it(name)).map(|name| directory.join(name)).collect()
    }

    /// The state of all files after a crash.
    pub(super) fn check_disk(&self) {
        for (path, content) in self.announced.iter().chain(&self.others) {
            assert!(self.content(path) == *content, "{} is not what it was", path.display());
        }
        for directory in self.directories() {
            for name in self.disk.names(directory) {
                let path = directory.join(&name);
                // What is as it was announced was checked then.
                let known = self.announced.contains_key(&path) || self.others.contains_key(&path);
                if !name.ends_with(".tmp") && !known {
                    self.check_whole(&path, &self.content(&path));
                }
            }
        }
    }

    fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.output, &self.capture, &self.hgrm].into_iter().chain(&self.partials)
    }

    /// Fails unless a file with a final name has all its content.
    fn check_whole(&self, path: &Path, content: &[u8]) {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_whole = match extension {
            Some("toml") => {
                let text = std::str::from_utf8(content).unwrap_or_default();
                Schema::from_toml(text).is_ok_and(|schema| schema == *self.schema)
            }
            Some("ndjson") => groups_of_ndjson(content) == Some(self.sent_as(&name).groups()),
            Some("csv") => groups_of_csv(content) == Some(self.sent_as(&name).groups()),
            Some("arrow") => content.starts_with(b"ARROW1") && content.ends_with(b"ARROW1"),
            Some("parquet") => schema_of(content.to_vec()).is_some_and(|s| s == *self.schema),
            Some("capture") if name.contains(".cut.") => {
                self.sent_as(&name).bytes().starts_with(content)
            }
            Some("capture") => self.sent_as(&name).bytes() == content,
            Some("hgrm") => {
                let text = String::from_utf8_lossy(content);
                let last = text.lines().last().unwrap_or_default();
                last.starts_with("#[Buckets = ") && text.ends_with("]\n")
            }
            _ => panic!("{} is a name that nobody makes", path.display()),
        };
        assert!(is_whole, "{} is not whole: {} bytes", path.display(), content.len());
    }

    fn sent_as(&self, name: &str) -> &SentStream {
        let moment = name.split('-').next().unwrap_or_default();
        self.sent.get(moment).unwrap_or_else(|| panic!("no stream has the file {name}"))
    }

    pub(super) fn begin_second_life(&mut self) {
        // Where another engine's files are in the way of the first life.
        self.moments += 1;
        let names = self.directories().map(|directory| self.disk.names(directory));
        let old_names = names.flatten().collect();
        self.life = LifeRecord { second: true, old_names, ..LifeRecord::default() };
    }

    /// A start that was refused: the cause is one that the disk gave.
    pub(super) fn check_refused_start(&mut self, cause: &str) {
        self.all_went_well = false;
        if !self.disk.is_down() {
            assert!(!self.life.second, "after a crash, the start is refused: {cause}");
            self.check_cause(cause);
        }
    }

    /// Whether a text names an error of the disk, and not another one.
    fn check_cause(&self, cause: &str) {
        let failed = self.disk.failed().into_iter().map(|(_, _, code)| code);
        // Those of a full disk, of too many open files, and of a disk that lacks something.
        let mut codes = failed.chain([libc::ENOSPC, libc::EMFILE]);
        let names_one = codes.any(|code| cause.contains(&format!("(os error {code})")));
        assert!(names_one || cause.contains("(--node)"), "not a cause of the disk: {cause}");
    }

    /// What the process says at its end agrees with what happened.
    pub(super) fn check_life(&mut self, ended: &EndedLife) {
        if self.disk.is_down() {
            self.all_went_well = false;
            return;
        }
        let sum = |of: fn(&crate::runtime::results::reporter::ReporterOutcome) -> u64| {
            ended.outcomes.iter().map(of).sum::<u64>()
        };
        let (reported, lost) = (sum(|outcome| outcome.reported), sum(|outcome| outcome.lost));
        let printed = &self.life.printed;
        let numbers: BTreeSet<u64> = printed.iter().map(|printed| printed.connection).collect();
        assert_eq!(numbers.len(), printed.len(), "a stream is printed twice");
        assert_eq!(printed.len() as u64, reported);
        assert_eq!(reported + lost, self.life.begun.len() as u64, "each stream is reported once");
        self.check_causes(ended);
        self.check_remains();
        self.check_printed_lines();
        self.all_went_well &= lost == 0;
        if lost > 0 {
            return;
        }
        let count = |of: &dyn Fn(&Printed) -> bool| printed.iter().filter(|p| of(p)).count() as u64;
        let files_failed = count(&|p| matches!(p.file, Some(Err(_))));
        let tally = &ended.counters.reporter;
        assert_eq!(tally.result_files_failed.get(), files_failed);
        assert_eq!(tally.result_files_written.get(), reported - files_failed);
        let captures_failed = count(&Printed::has_failed_capture);
        assert_eq!(sum(|outcome| outcome.captures_failed), captures_failed);
        let batches_failed: u64 = printed.iter().map(|printed| printed.partials.failed).sum();
        assert_eq!(ended.counters.partials.failed(), batches_failed);
        let latencies = self.new_names(&self.hgrm, |_| true).len() as u64;
        let latencies_failed = reported.saturating_sub(latencies);
        for (what, failed) in [("result", files_failed), ("latency", latencies_failed)] {
            let said = format!("{} could not be written", counted(failed, &format!("{what} file")));
            let found = ended.missing.iter().any(|line| line.starts_with(&said));
            // A latency file that failed may have kept its name, where it could not be removed.
            let exact = what == "result" || !self.has_failed(DiskCall::Remove);
            assert!(!exact || found == (failed > 0), "{said}: {:?}", ended.missing);
        }
        if !self.has_failed(DiskCall::Remove) {
            self.check_budget(ended);
            self.check_pairs();
        }
        self.all_went_well &= batches_failed == 0;
    }

    /// The captures that are there have taken their bytes from the budget, and no other.
    fn check_budget(&self, ended: &EndedLife) {
        let captures = self.new_names(&self.capture, |_| true).into_iter();
        let own = captures.filter(|path| !self.others.contains_key(path));
        let captured: u64 = own.map(|path| self.content(&path).len() as u64).sum();
        assert_eq!(ended.capture_bytes_left, self.capture_bytes_limit - captured, "the budget");
    }

    /// A batch has both its files or, where one could not be written, none.
    fn check_pairs(&self) {
        let Some(directory) = &self.partials else { return };
        let ends = [".groups.parquet", ".stream.parquet"];
        let of_kind = |end: &str| -> BTreeSet<String> {
            let paths = self.new_names(directory, |name| name.ends_with(end)).into_iter();
            paths.map(|path| path.display().to_string().replace(end, "")).collect()
        };
        assert_eq!(of_kind(ends[0]), of_kind(ends[1]));
    }

    fn has_failed(&self, call: DiskCall) -> bool {
        self.disk.failed().iter().any(|(_, failed, _)| *failed == call)
    }

    fn check_causes(&self, ended: &EndedLife) {
        for Printed { file, capture, partials, .. } in &self.life.printed {
            if let Some(Err(cause)) = file {
                self.check_cause(cause);
            }
            let lack = capture.as_ref().and_then(|capture| capture.lack.as_ref());
            if let Some(CaptureLack::Failed(cause)) = lack {
                self.check_cause(cause);
            }
            partials.error.iter().for_each(|cause| self.check_cause(cause));
        }
        let errors = ended.outcomes.iter().filter_map(|outcome| outcome.output_error.as_ref());
        errors.for_each(|error| self.check_cause(&error.to_string()));
        ended.missing.iter().for_each(|line| self.check_cause(line));
    }

    /// A process that ended leaves no hidden file, unless the disk did not let it remove one.
    fn check_remains(&self) {
        if self.life.second || self.has_failed(DiskCall::Remove) {
            return;
        }
        for directory in self.directories() {
            let names = self.disk.names(directory);
            let hidden = names.iter().find(|name| name.starts_with('.') && *name != ".schema.toml");
            assert_eq!(hidden, None, "in {}", directory.display());
        }
    }

    /// After a process was killed, each result that it printed is a line.
    pub(super) fn check_lines(&self) {
        let content = self.disk.content(&self.results).unwrap_or_default();
        let lines = content.split_inclusive(|&byte| byte == b'\n');
        let whole = lines.filter(|line| serde_json::from_slice::<Value>(line).is_ok()).count();
        assert!(whole >= self.lines, "of {} printed lines {whole} are left", self.lines);
    }

    /// The last lines of the results file are those that were printed last.
    fn check_printed_lines(&self) {
        let content = self.disk.content(&self.results).unwrap_or_default();
        if self.has_failed(DiskCall::Truncate) {
            return;
        }
        let lines: Vec<&[u8]> = content.split_inclusive(|&byte| byte == b'\n').collect();
        let last = lines.len().saturating_sub(self.life.printed.len());
        assert_eq!(lines.len() - last, self.life.printed.len(), "all lines are there");
        for (line, printed) in lines[last..].iter().zip(&self.life.printed) {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]);
            let line: Value =
                serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {shown}"));
            assert_eq!(line["connection"], printed.connection);
            let file = printed.file.as_ref().expect("each stream has a file");
            let (path, cause) = (file.as_ref().ok(), file.as_ref().err());
            assert_eq!(line["file"].as_str(), path.and_then(|path| path.to_str()));
            assert_eq!(line["file_error"].as_str(), cause.map(String::as_str));
            if self.partials.is_some() {
                assert_eq!(line["partials_failed"], printed.partials.failed);
            }
            let bytes = printed.capture.as_ref().map_or(0, |capture| capture.bytes);
            assert_eq!(line["capture_bytes"], bytes);
        }
    }

    /// A life without faults: everything was written.
    pub(super) fn check_second_life(&self) {
        assert!(self.life.started, "it started");
        assert_eq!(self.life.printed.len(), self.life.begun.len());
        for printed in &self.life.printed {
            assert!(matches!(printed.file, Some(Ok(_))), "{:?}", printed.file);
            assert!(!printed.has_failed_capture(), "{:?}", printed.capture);
            assert_eq!(printed.partials.failed, 0);
        }
    }

    /// All partials of both lives can be merged, and what was announced is in the result.
    pub(super) fn check_merge(&self) {
        let Some(partials) = &self.partials else { return };
        let directory = tempfile::tempdir().expect("a directory of the system");
        let mut paths: [Vec<PathBuf>; 2] = [Vec::new(), Vec::new()];
        for name in self.disk.names(partials) {
            let ends = [".groups.parquet", ".stream.parquet"];
            let Some(kind) = ends.iter().position(|end| name.ends_with(end)) else { continue };
            let path = directory.path().join(&name);
            std::fs::write(&path, self.content(&partials.join(&name))).expect("a copy");
            paths[kind].push(path);
        }
        let [groups, streams] = &paths;
        let order = MergeOrder {
            schema: &self.schema,
            result: &self.schema,
            groups,
            streams,
            skip_damaged: false,
            complete_only: false,
        };
        let merged = merge(&order).expect("no file is damaged");
        let (announced, all) = self.merged_records;
        let records = merged.facts.records;
        assert!(announced <= records && records <= all, "{announced}..={all}, not {records}");
        if self.all_went_well {
            assert_eq!((records, &merged.facts.faults[..]), (all, &[][..]));
        }
    }
}

impl Printed {
    fn has_failed_capture(&self) -> bool {
        let lack = self.capture.as_ref().and_then(|capture| capture.lack.as_ref());
        matches!(lack, Some(CaptureLack::Failed(_)))
    }
}

impl SentStream {
    fn groups(&self) -> NaiveGroups {
        let mut groups = NaiveGroups::new();
        for (key, value) in &self.records {
            let (sum, count) = groups.entry(u64::from(*key)).or_default();
            *sum += u64::from(*value);
            *count += 1;
        }
        groups
    }
}

fn groups_of_ndjson(content: &[u8]) -> Option<NaiveGroups> {
    let text = std::str::from_utf8(content).ok()?;
    let group = |line: &str| {
        let row: Value = serde_json::from_str(line).ok()?;
        Some((row["k"].as_u64()?, (row["v_sum"].as_u64()?, row["count"].as_u64()?)))
    };
    text.lines().map(group).collect()
}

fn groups_of_csv(content: &[u8]) -> Option<NaiveGroups> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    if lines.next()? != "k,v_sum,count" {
        return None;
    }
    let group = |line: &str| {
        let mut cells = line.split(',').map(|cell| cell.parse::<u64>().ok());
        Some((cells.next()??, (cells.next()??, cells.next()??)))
    };
    lines.map(group).collect()
}
