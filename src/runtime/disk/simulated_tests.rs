//! The simulated disk does what disks do: it keeps what was synced, loses any of the rest, and
//! fails where it is told to.

use super::*;
use crate::runtime::disk::faults::FailingCalls;
use crate::runtime::disk::fs::{self, File, OpenOptions};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn code<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_path_of_the_system_stays_on_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    create(&path).unwrap().write_all(b"text").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"text");
    let disk = SimulatedDisk::new(1, DiskFaults::none());
    create(&disk.root().join("a")).unwrap().write_all(b"other").unwrap();
    assert_eq!(fs::read_to_string(disk.root().join("a")).unwrap(), "other");
    assert!(!disk.root().exists(), "nothing is on the system");
}

#[test]
fn files_and_names_are_those_of_a_file_system() {
    let disk = SimulatedDisk::new(1, DiskFaults::none());
    let [a, b, c] = ["a", "b", "c"].map(|name| disk.root().join(name));
    create(&a).unwrap().write_all(b"first").unwrap();
    assert_eq!(create(&a).unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs::hard_link(&a, &b).unwrap();
    assert_eq!(fs::hard_link(&a, &b).unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs::remove_file(&a).unwrap();
    create(&c).unwrap().write_all(b"second").unwrap();
    fs::rename(&c, &b).unwrap();
    assert_eq!(
        (disk.names(disk.root()), fs::read(&b).unwrap()),
        (vec!["b".into()], b"second".into())
    );
    for gone in [&a, &c, &disk.root().join("no/such")] {
        assert_eq!(fs::read(gone).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::remove_file(gone).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(create(&disk.root().join("no/such")).unwrap_err().kind(), ErrorKind::NotFound);
}

/// The outcomes of a power failure after `write` on many disks: the files that are left.
fn left(faults: &DiskFaults, write: impl Fn(&Path)) -> BTreeSet<Vec<(String, Vec<u8>)>> {
    let outcomes = (0..300).map(|seed| {
        let disk = SimulatedDisk::new(seed, faults.clone());
        write(disk.root());
        disk.crash(Crash::Power);
        disk.restart(DiskFaults::none());
        let names = disk.names(disk.root()).into_iter();
        names.map(|name| (name.clone(), disk.content(&disk.root().join(name)).unwrap())).collect()
    });
    outcomes.collect()
}

fn outcome(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect()
}

#[test]
fn what_was_synced_survives_and_of_the_rest_anything_may() {
    let synced = left(&DiskFaults::none(), |root| {
        let mut file = create(&root.join("a")).unwrap();
        file.write_all(b"whole").unwrap();
        file.sync_all().unwrap();
        File::open(root).unwrap().sync_all().unwrap();
        file.write_all(b"!").unwrap();
    });
    let expected = [&b"whole"[..], b"whole!", b"whole\0"].map(|content| outcome(&[("a", content)]));
    assert_eq!(synced, expected.into());
    // The name without the content, the content without the name.
    let nothing_synced = left(&DiskFaults::none(), |root| {
        create(&root.join("a")).unwrap().write_all(b"xy").unwrap();
    });
    let contents = [&b""[..], b"x", b"xy", b"\0\0"].map(|content| outcome(&[("a", content)]));
    assert_eq!(nothing_synced, contents.into_iter().chain([Vec::new()]).collect());
}

#[test]
fn a_rename_is_whole_or_absent_and_others_come_in_any_order() {
    let renamed = left(&DiskFaults::none(), |root| {
        let mut file = create(&root.join("a")).unwrap();
        file.write_all(b"x").unwrap();
        file.sync_all().unwrap();
        File::open(root).unwrap().sync_all().unwrap();
        fs::rename(&root.join("a"), &root.join("b")).unwrap();
        fs::hard_link(&root.join("b"), &root.join("c")).unwrap();
        fs::remove_file(root.join("b")).unwrap();
    });
    let names: BTreeSet<Vec<&str>> =
        renamed.iter().map(|files| files.iter().map(|(name, _)| name.as_str()).collect()).collect();
    let expected = [&["a"][..], &["b"], &["b", "c"], &["c"], &["a", "c"]];
    for names in names.iter() {
        assert!(names.is_empty() || expected.contains(&&names[..]), "{names:?}");
    }
    assert!(names.len() >= expected.len(), "{names:?}");
}

#[test]
fn a_killed_process_leaves_all_that_it_wrote_and_no_lock() {
    let disk = SimulatedDisk::new(1, DiskFaults::none());
    let path = disk.root().join("a");
    let mut file = create(&path).unwrap();
    file.write_all(b"text").unwrap();
    file.try_lock().unwrap();
    let other = File::open(&path).unwrap();
    assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
    disk.crash(Crash::Kill);
    assert_eq!(code(file.write(b"more")), Some(libc::EIO));
    disk.restart(DiskFaults::none());
    assert_eq!(code(file.write(b"more")), Some(libc::EIO), "the process is dead");
    assert_eq!(fs::read(&path).unwrap(), b"text");
    File::open(&path).unwrap().try_lock().unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"text");
}

#[test]
fn a_crash_comes_at_the_call_that_was_named() {
    let faults = DiskFaults { crash_at: Some(2), ..DiskFaults::none() };
    let disk = SimulatedDisk::new(1, faults);
    let mut file = create(&disk.root().join("a")).unwrap();
    file.write_all(b"x").unwrap();
    assert!(!disk.is_down());
    assert_eq!(code(file.sync_all()), Some(libc::EIO));
    assert!(disk.is_down());
    assert_eq!(code(create(&disk.root().join("b"))), Some(libc::EIO));
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next() {
    let faults = DiskFaults { failing_once: Some((2, libc::EIO)), ..DiskFaults::none() };
    let found = left(&faults, |root| {
        let mut file = create(&root.join("a")).unwrap();
        file.write_all(b"lost").unwrap();
        assert_eq!(code(file.sync_all()), Some(libc::EIO));
        file.sync_all().unwrap();
        File::open(root).unwrap().sync_all().unwrap();
    });
    assert_eq!(found, [&b"lost"[..], b""].map(|content| outcome(&[("a", content)])).into());
}

#[test]
fn a_disk_is_full_at_any_byte() {
    for bytes in 0..5 {
        let faults = DiskFaults { bytes_limit: Some(bytes), ..DiskFaults::none() };
        let disk = SimulatedDisk::new(1, faults);
        let path = disk.root().join("a");
        let mut file = create(&path).unwrap();
        let full = file.write_all(b"12345").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(disk.content(&path).unwrap(), b"12345"[..bytes as usize]);
        drop(file);
        fs::remove_file(&path).unwrap();
        let mut next = create(&path).unwrap();
        next.write_all(&b"12345"[..bytes as usize]).unwrap();
    }
}

#[test]
fn calls_fail_as_they_are_told_to() {
    let failing = FailingCalls { call: DiskCall::Link, code: libc::EIO, per_mille: 1000 };
    let faults = DiskFaults {
        failing: vec![failing],
        short_writes: true,
        open_limit: Some(1),
        sync_time_max: Duration::from_secs(2),
        ..DiskFaults::none()
    };
    let disk = SimulatedDisk::new(1, faults);
    let (a, b) = (disk.root().join("a"), disk.root().join("b"));
    let mut file = create(&a).unwrap();
    assert_eq!(code(create(&b)), Some(libc::EMFILE));
    assert!((0..100).any(|_| file.write(&[0; 100]).unwrap() < 100));
    file.sync_all().unwrap();
    let waited = disk.take_waited();
    assert!(waited > Duration::ZERO && waited <= Duration::from_secs(2), "{waited:?}");
    assert_eq!(disk.take_waited(), Duration::ZERO);
    assert_eq!(code(fs::hard_link(&a, &b)), Some(libc::EIO));
    let [(_, DiskCall::Link, libc::EIO)] = disk.failed()[..] else { panic!("{:?}", disk.failed()) };
}

/// Where a directory cannot be synced, its names are written at once.
#[test]
fn a_disk_may_lack_what_others_have() {
    let lacking =
        DiskFaults { links: false, directory_sync: false, locks: false, ..DiskFaults::none() };
    let found = left(&lacking, |root| {
        let file = create(&root.join("a")).unwrap();
        assert_eq!(code(fs::hard_link(&root.join("a"), &root.join("b"))), Some(libc::EPERM));
        assert!(matches!(file.try_lock(), Err(TryLockError::Error(_))));
        assert_eq!(code(File::open(root).unwrap().sync_all()), Some(libc::EINVAL));
        fs::rename(&root.join("a"), &root.join("b")).unwrap();
    });
    assert_eq!(found, [outcome(&[("b", b"")])].into());
}

#[test]
fn a_seed_decides_everything() {
    let run = |seed| {
        let mut random = Rng::with_seed(seed);
        let disk = SimulatedDisk::new(seed, DiskFaults::draw(&mut random, 40, 400));
        for number in 0..10 {
            let path = disk.root().join(number.to_string());
            let Ok(mut file) = create(&path) else { continue };
            let _ = file.write_all(&[number; 50]);
            let _ = file.sync_all();
            let _ = File::open(disk.root()).and_then(|directory| directory.sync_all());
        }
        disk.crash(Crash::Power);
        let files = disk.names(disk.root()).into_iter();
        let content: Vec<_> = files.map(|name| disk.content(&disk.root().join(name))).collect();
        (disk.failed(), content)
    };
    let runs: Vec<_> = (0..50).map(run).collect();
    assert_eq!(runs, (0..50).map(run).collect::<Vec<_>>());
    assert!(runs.iter().collect::<BTreeSet<_>>().len() > 20, "seeds differ");
}
