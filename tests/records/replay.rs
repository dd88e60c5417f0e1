//! Captured streams sent again, to a listener that keeps what comes and to an engine.

use crate::common::oracle::{records, stream};
use crate::common::{Engine, nobody, ringest, run, stderr_of};
use ringest::client::records::replay::{CaptureFile, ReplaySettings, replay_all};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicU64;
use std::thread;

/// A directory with files of different bytes and lengths, none of them a whole number of writes.
fn captures(lengths: &[usize]) -> (tempfile::TempDir, Vec<PathBuf>, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut paths, mut contents) = (Vec::new(), Vec::new());
    for (number, &length) in lengths.iter().enumerate() {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        let path = directory.path().join(format!("stream-{number}.capture"));
        fs::write(&path, &bytes).unwrap();
        paths.push(path);
        contents.push(bytes);
    }
    (directory, paths, contents)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What came over a connection until its end, which must be a proper one.
fn taken(mut stream: TcpStream) -> Vec<u8> {
    let mut taken = Vec::new();
    stream.read_to_end(&mut taken).unwrap();
    taken
}

fn replay(address: SocketAddr, options: &[&str], files: &[PathBuf]) -> Command {
    let mut command = ringest();
    let port = address.port().to_string();
    command.args(["replay", "--records-port", &port]).args(options).args(files);
    command
}

/// Runs `ringest replay` and takes what comes over so many connections; sorted.
fn replayed(options: &[&str], files: &[PathBuf], connections: usize) -> (Output, Vec<Vec<u8>>) {
    let (listener, address) = listener();
    let mut command = replay(address, options, files);
    let command = thread::spawn(move || run(&mut command));
    let streams: Vec<_> = (0..connections)
        .map(|_| {
            let (stream, _) = listener.accept().unwrap();
            thread::spawn(|| taken(stream))
        })
        .collect();
    let mut streams: Vec<Vec<u8>> =
        streams.into_iter().map(|stream| stream.join().unwrap()).collect();
    streams.sort_unstable();
    (command.join().unwrap(), streams)
}

#[test]
fn each_file_comes_whole_over_a_connection_of_its_own() {
    let (_directory, files, mut contents) = captures(&[1, 60 << 10, 100_001, 1_234_567, 267]);
    contents.sort_unstable();
    let bytes: usize = contents.iter().map(Vec::len).sum();
    for options in [
        &[][..],
        &["--write-bytes", "1001"],
        &["--connections", "1"],
        &["--connections", "2", "--rate", "20MB", "--write-bytes", "10KB"],
    ] {
        let (output, streams) = replayed(options, &files, files.len());
        let said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(streams == contents, "{options:?}");
        let all = format!("ringest: sent 5 files, {bytes} bytes in ");
        assert!(said.starts_with(&all) && said.trim_end().ends_with("MB/s"), "{said}");
    }
}

/// Files of zeros with more than fits into the buffers of a connection, so that none ends before it
/// is read; with their length.
fn held_captures(count: usize) -> (tempfile::TempDir, Vec<PathBuf>, usize) {
    let bytes_max = |name: &str| {
        let sizes = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        sizes.split_whitespace().last().unwrap().parse::<usize>().unwrap()
    };
    let length = bytes_max("tcp_rmem") + bytes_max("tcp_wmem") + (1 << 20);
    let (directory, files, _) = captures(&vec![0; count]);
    for path in &files {
        fs::File::options().write(true).open(path).unwrap().set_len(length as u64).unwrap();
    }
    (directory, files, length)
}

#[test]
fn no_more_connections_than_allowed_are_there_at_one_time() {
    let (_directory, files, held_bytes) = held_captures(3);
    let (listener, address) = listener();
    let captures: Vec<CaptureFile> =
        files.iter().map(|path| CaptureFile::look_at(path, false).unwrap()).collect();
    let settings = ReplaySettings {
        connections: 2,
        write_bytes: 1 << 20,
        rate: 0,
        congestion: None,
        tls: None,
    };
    let progress = AtomicU64::new(0);
    thread::scope(|scope| {
        let replay = scope.spawn(|| replay_all(address, &captures, &settings, &progress));
        let (first, _) = listener.accept().unwrap();
        let (second, _) = listener.accept().unwrap();
        // Both are sending, and neither has come to its end.
        for stream in [&first, &second] {
            assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
        }
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.set_nonblocking(false).unwrap();
        assert_eq!(taken(first).len(), held_bytes);
        let (third, _) = listener.accept().unwrap();
        let second = scope.spawn(|| taken(second).len());
        assert_eq!((taken(third).len(), second.join().unwrap()), (held_bytes, held_bytes));
        let results = replay.join().unwrap();
        let bytes: Vec<u64> = results.into_iter().map(|result| result.unwrap().bytes).collect();
        assert_eq!(bytes, [held_bytes as u64; 3]);
    });
    assert_eq!(progress.into_inner(), 3 * held_bytes as u64);
}

/// All wrong names are told, and nothing is sent of the right ones.
#[test]
fn wrong_files_are_told_before_anything_is_sent() {
    let (directory, files, _) = captures(&[100, 0, 100]);
    let path = |name: &str| directory.path().join(name);
    fs::rename(&files[2], path("c.cut.capture")).unwrap();
    let named = [
        files[0].clone(),
        path("missing"),
        directory.path().to_owned(),
        files[1].clone(),
        path("c.cut.capture"),
    ];
    let (listener, address) = listener();
    let output = run(&mut replay(address, &[], &named));
    assert_eq!(output.status.code(), Some(2));
    let said = stderr_of(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[0].contains("missing: No such file or directory"), "{said}");
    assert!(lines[1].contains("is not a regular file; name the captures"), "{said}");
    assert!(lines[2].contains("stream-1.capture is empty"), "{said}");
    assert!(lines[3].contains("c.cut.capture is not a whole stream"), "{said}");
    assert!(lines[3].contains("--allow-cut"), "{said}");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

    let (output, streams) = replayed(&["--allow-cut"], &[path("c.cut.capture")], 1);
    assert_eq!((output.status.code(), streams[0].len()), (Some(0), 100));
}

#[test]
fn wrong_options_are_told() {
    for (options, told) in [
        (&[][..], "<FILE>"),
        (&["x", "--write-bytes", "0"], "0 bytes; it must be between 1 and 268435456"),
        (&["x", "--connections", "1001"], "1001 is not in 1..=1000"),
        (
            &["x", "--rate", "2TB"],
            "2000000000000 bytes per second; it must be at most 1000000000000",
        ),
        (&["x", "--host", "no such host"], "cannot resolve --host no such host"),
    ] {
        let output = run(ringest().arg("replay").args(options));
        let said = stderr_of(&output);
        assert_eq!((output.status.code(), said.contains(told)), (Some(2), true), "{said}");
    }
}

/// One capture that cannot be sent keeps no other from being sent.
#[test]
fn a_connection_that_fails_is_told_with_its_file() {
    let (_held, mut files, _) = held_captures(1);
    let (_directory, short, contents) = captures(&[100]);
    files.extend(short);
    let (listener, address) = listener();
    let mut command = replay(address, &["--connections", "1"], &files);
    let command = thread::spawn(move || run(&mut command));
    drop(listener.accept().unwrap());
    assert_eq!(taken(listener.accept().unwrap().0), contents[0]);
    let output = command.join().unwrap();
    let said = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("sent 1 file, 100 bytes"), "{said}");
    assert!(said.contains("stream-0.capture: the connection to 127.0.0.1"), "{said}");
    let (nobody, _kept) = nobody();
    let output = run(&mut replay(nobody, &[], &files[1..]));
    let said = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("stream-0.capture: cannot connect to 127.0.0.1"), "{said}");
}

/// As `send` does it, with the same words.
#[test]
fn a_congestion_control_is_used_or_refused_by_name() {
    let (_directory, files, contents) = captures(&[1000]);
    let (output, streams) = replayed(&["--congestion", "reno"], &files, 1);
    assert_eq!((output.status.code(), streams), (Some(0), contents));
    let (output, streams) = replayed(&["--congestion", "none"], &files, 1);
    assert_eq!((output.status.code(), streams), (Some(1), vec![Vec::new()]));
    let said = stderr_of(&output);
    assert!(said.contains("stream-0.capture: cannot use --congestion none"), "{said}");
}

/// A file that changes while it is sent is not taken for a whole one.
#[test]
fn a_file_that_became_shorter_is_told() {
    let (_directory, files, contents) = captures(&[1000]);
    let capture = CaptureFile::look_at(&files[0], false).unwrap();
    fs::write(&files[0], &contents[0][..999]).unwrap();
    let (listener, address) = listener();
    let settings =
        ReplaySettings { connections: 1, write_bytes: 100, rate: 0, congestion: None, tls: None };
    let results = replay_all(address, &[capture], &settings, &AtomicU64::new(0));
    let error = results.into_iter().next().unwrap().unwrap_err().to_string();
    assert!(error.contains("stream-0.capture"), "{error}");
    assert!(error.ends_with("sent 900 bytes of it"), "{error}");
    assert_eq!(taken(listener.accept().unwrap().0), contents[0][..900]);
}

/// The result of a replayed stream is that of the stream.
#[test]
fn an_engine_gives_the_same_result_again() {
    let records = records(5000, 3);
    let directory = tempfile::tempdir().unwrap();
    let path: &Path = &directory.path().join("one.capture");
    fs::write(path, stream(&records, 4)).unwrap();
    let engine = Engine::start(&["--exit-after", "2"]);
    let files = [path.to_owned(), path.to_owned()];
    let output = run(&mut replay(engine.address, &[], &files));
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    let (status, results, _) = engine.wait();
    assert!(status.success());
    assert_eq!(results.len(), 2);
    results.iter().for_each(|result| crate::common::oracle::assert_result(result, &records));
}
