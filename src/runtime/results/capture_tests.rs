//! Tests of captures without sockets: the file holds the bytes handed over, up to the limit.

use super::*;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

fn started(directory: &Path, limit: u64) -> CaptureThreads {
    let config = Config {
        capture: Some(directory.to_owned()),
        capture_bytes_limit: limit,
        node: Some("n".to_owned()),
        ..Config::default()
    };
    start(&config, &Defects::alone()).unwrap().expect("captures are enabled")
}

fn finish(threads: CaptureThreads) {
    let CaptureThreads { captures, threads } = threads;
    drop(captures);
    threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Some(())));
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| random.u8(..)).collect()
}

const MOMENT: SystemTime = SystemTime::UNIX_EPOCH;

#[tokio::test]
async fn captures_hold_their_own_bytes_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let threads = started(directory.path(), 1 << 30);
    // Three streams take turns. The pieces are larger than a chunk, all together than all chunks.
    let sent: Vec<Vec<u8>> =
        (0..3).map(|seed| bytes(CAPTURE_CHUNKS * CAPTURE_CHUNK_BYTES / 2, seed)).collect();
    let mut captures: Vec<Capture> = (7..10).map(|n| threads.captures.stream(n)).collect();
    for at in (0..sent[0].len()).step_by(CAPTURE_CHUNK_BYTES * 3 / 2) {
        for (capture, sent) in captures.iter_mut().zip(&sent) {
            let end = (at + CAPTURE_CHUNK_BYTES * 3 / 2).min(sent.len());
            capture.add(&sent[at..end], MOMENT).await;
        }
    }
    for (number, (capture, sent)) in (7..).zip(captures.into_iter().zip(&sent)) {
        let captured = capture.finish().await;
        let process = std::process::id();
        let name = format!("19700101T000000.000000Z-n-{process}-{number}.capture");
        let path = directory.path().join(name);
        assert_eq!(
            captured,
            Captured { path: Some(path.clone()), bytes: sent.len() as u64, lack: None }
        );
        assert!(fs::read(path).unwrap() == *sent);
    }
    let chunks = threads.captures.free.lock().unwrap().len();
    assert!(chunks <= CAPTURE_CHUNKS + 1, "{chunks} chunks were allocated");
    finish(threads);
    assert_eq!(files(directory.path()).len(), 3);
}

#[tokio::test]
async fn a_byte_above_the_limit_cuts_the_file() {
    for second in [60, 61, 100] {
        let directory = tempfile::tempdir().unwrap();
        let threads = started(directory.path(), 100);
        let mut first = threads.captures.stream(1);
        first.add(&[1; 40], MOMENT).await;
        assert_eq!(first.finish().await.lack, None);
        let mut capture = threads.captures.stream(2);
        capture.add(&vec![2; second], MOMENT).await;
        // The end of the first stream does not free its bytes: none are left for this one.
        capture.add(&[3; 1], MOMENT).await;
        let captured = capture.finish().await;
        assert_eq!((captured.bytes, captured.lack), (60, Some(CaptureLack::Limit(100))));
        let path = captured.path.unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.ends_with("-2.cut.capture"), "{name}");
        assert_eq!(fs::read(&path).unwrap(), vec![2; 60]);
        let mut late = threads.captures.stream(3);
        late.add(&[4], MOMENT).await;
        let lack = Some(CaptureLack::Limit(100));
        assert_eq!(late.finish().await, Captured { path: None, bytes: 0, lack });
        finish(threads);
        assert_eq!(files(directory.path()).len(), 2);
    }
}

#[tokio::test]
async fn exactly_the_limit_is_not_cut() {
    let directory = tempfile::tempdir().unwrap();
    let threads = started(directory.path(), 100);
    let mut capture = threads.captures.stream(1);
    capture.add(&[1; 99], MOMENT).await;
    capture.add(&[1; 1], MOMENT).await;
    let captured = capture.finish().await;
    assert_eq!((captured.bytes, captured.lack), (100, None));
    finish(threads);
}

#[tokio::test]
async fn a_stream_without_bytes_has_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let threads = started(directory.path(), 100);
    assert_eq!(threads.captures.stream(1).finish().await, Captured::default());
    drop(threads.captures.stream(2));
    finish(threads);
    assert!(files(directory.path()).is_empty());
}

/// As after a panic in its task: the bytes received are kept.
#[tokio::test]
async fn a_capture_that_is_dropped_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let threads = started(directory.path(), 100);
    let mut capture = threads.captures.stream(1);
    capture.add(b"bytes", MOMENT).await;
    drop(capture);
    finish(threads);
    assert_eq!(fs::read(&files(directory.path())[0]).unwrap(), b"bytes");
}

/// If the directory disappears, only the captures are lost.
#[tokio::test]
async fn a_capture_that_cannot_be_written_is_abandoned_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let threads = started(&inside, 1 << 20);
    fs::remove_dir(&inside).unwrap();
    let mut capture = threads.captures.stream(1);
    capture.add(b"bytes", MOMENT).await;
    while !capture.failed.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    capture.add(&[0; 1000], MOMENT).await;
    assert_eq!(
        threads.captures.budget.left.load(Ordering::Relaxed),
        1 << 20,
        "the budget is not charged"
    );
    let captured = capture.finish().await;
    assert_eq!((captured.path, captured.bytes), (None, 0));
    let lack = captured.lack.unwrap();
    assert!(
        matches!(&lack, CaptureLack::Failed(cause) if cause.contains("no longer exists")),
        "{lack}"
    );
    finish(threads);
}

#[test]
fn a_missing_directory_is_refused() {
    let config = Config { capture: Some("/no/such".into()), ..Config::default() };
    let error = start(&config, &Defects::alone()).unwrap_err().to_string();
    assert!(error.starts_with("cannot write to --capture /no/such: No such file"), "{error}");
    assert!(start(&Config::default(), &Defects::alone()).unwrap().is_none());
}

/// A capture that fails leaves no file, so its bytes are free for others: those that were taken
/// before it failed, and those of a file that could not be finished.
#[tokio::test]
async fn a_failed_capture_gives_its_bytes_back() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let threads = started(&inside, 100);
    let budget = || threads.captures.budget.left.load(Ordering::Relaxed);
    let mut unfinished = threads.captures.stream(1);
    unfinished.add(&[1; 40], MOMENT).await;
    assert_eq!(budget(), 60);
    let unbegun = {
        // The file of this one cannot even be begun.
        fs::rename(&inside, directory.path().join("away")).unwrap();
        let mut unbegun = threads.captures.stream(2);
        unbegun.add(&[2; 100], MOMENT).await;
        assert_eq!(budget(), 0);
        unbegun
    };
    for failed in [unfinished, unbegun] {
        let captured = failed.finish().await;
        assert!(matches!(captured.lack, Some(CaptureLack::Failed(_))), "{captured:?}");
    }
    assert_eq!(budget(), 100);
    // A capture that is cut by the limit is whole as far as it goes, and keeps its bytes.
    fs::create_dir(&inside).unwrap();
    let mut cut = threads.captures.stream(3);
    cut.add(&[3; 101], MOMENT).await;
    assert_eq!(cut.finish().await.lack, Some(CaptureLack::Limit(100)));
    assert_eq!(budget(), 0);
    finish(threads);
}
