//! `ringest replay`: sends captured streams to an engine again. Does not look at the results.

use super::client_tls::client_tls;
use super::send::resolve;
use crate::cli::args::replay::ReplayOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::cli::terminal::progress::{self, Unit};
use crate::cli::terminal::status_line::say;
use crate::client::records::replay::{CaptureFile, ReplaySettings, Replayed, replay_all};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &ReplayOptions) -> u8 {
    // All files are opened first, so that a wrong path is reported before anything is sent.
    let looked_at = options.files.iter().map(|path| CaptureFile::look_at(path, options.allow_cut));
    let (captures, errors): (Vec<_>, Vec<_>) = looked_at.partition(Result::is_ok);
    for error in errors.iter().filter_map(|error| error.as_ref().err()) {
        say(error);
    }
    let address = match resolve(&options.host, options.records_port) {
        Ok(address) if errors.is_empty() => address,
        Ok(_) => return EXIT_USAGE,
        Err(error) => {
            say(error);
            return EXIT_USAGE;
        }
    };
    let tls = match client_tls(options.tls, &options.trust, &options.host) {
        Ok(tls) => tls,
        Err(error) => {
            say(error);
            return EXIT_USAGE;
        }
    };
    let captures: Vec<CaptureFile> = captures.into_iter().flatten().collect();
    let settings = ReplaySettings {
        connections: options.connections as usize,
        write_bytes: options.write_bytes,
        rate: options.rate,
        congestion: options.congestion.clone(),
        tls,
    };
    let sent_bytes = AtomicU64::new(0);
    let results = thread::scope(|scope| {
        let run = || replay_all(address, &captures, &settings, &sent_bytes);
        let Ok(replay) = thread::Builder::new().spawn_scoped(scope, run) else {
            // Without a thread, there is no progress to be seen.
            return Ok(run());
        };
        let total = captures.iter().map(CaptureFile::bytes).sum();
        let so_far = || sent_bytes.load(Ordering::Relaxed);
        progress::show(Unit::Bytes, total, so_far, || replay.is_finished());
        replay.join()
    });
    let Ok(results) = results else {
        say("a sender panicked; this is a bug, please report it");
        return EXIT_FAILED;
    };
    let (sent, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let sent: Vec<Replayed> = sent.into_iter().flatten().collect();
    summarise(&sent);
    for error in failed.iter().filter_map(|error| error.as_ref().err()) {
        say(error);
    }
    if failed.is_empty() { EXIT_OK } else { EXIT_FAILED }
}

fn summarise(sent: &[Replayed]) {
    let bytes: u64 = sent.iter().map(|file| file.bytes).sum();
    let begun = sent.iter().map(|file| file.begun).min();
    let closed = sent.iter().map(|file| file.closed).max();
    let seconds = closed.zip(begun).map_or(0.0, |(closed, begun)| (closed - begun).as_secs_f64());
    say(format_args!(
        "sent {} files, {bytes} bytes in {seconds:.3} s: {:.1} MB/s",
        sent.len(),
        bytes as f64 / seconds.max(f64::MIN_POSITIVE) / 1e6,
    ));
}
