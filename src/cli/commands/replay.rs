//! `ringest replay`: sends captured streams to an engine again. Does not look at the results.

use super::client_tls::client_tls;
use super::send::resolve;
use crate::cli::args::environment::complain;
use crate::cli::args::replay::ReplayOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::cli::terminal::progress::{self, Unit};
use crate::cli::terminal::status_line::say;
use crate::client::records::replay::{
    CaptureFile, ReplayError, ReplaySettings, Replayed, replay_all,
};
use crate::wire::text::counted;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Files that are named where several could not be sent for the same reason.
const FILES_LISTED: usize = 10;

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &ReplayOptions) -> u8 {
    // All files are opened first, so that a wrong path is reported before anything is sent.
    let looked_at = options.files.iter().map(|path| CaptureFile::look_at(path, options.allow_cut));
    let (captures, errors): (Vec<_>, Vec<_>) = looked_at.partition(Result::is_ok);
    for error in errors.iter().filter_map(|error| error.as_ref().err()) {
        complain(error);
    }
    let address = match resolve(&options.host, options.records_port) {
        Ok(address) if errors.is_empty() => address,
        Ok(_) => return EXIT_USAGE,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    let tls = match client_tls(options.tls, &options.trust, &options.host) {
        Ok(tls) => tls,
        Err(error) => {
            complain(error);
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
    let errors: Vec<&ReplayError> =
        failed.iter().filter_map(|error| error.as_ref().err()).collect();
    together(&errors).iter().for_each(complain);
    if failed.is_empty() { EXIT_OK } else { EXIT_FAILED }
}

/// Lines for all errors. Connections that could not be made for the same reason share one, which
/// lists the first files.
fn together(errors: &[&ReplayError]) -> Vec<String> {
    let mut causes: Vec<(String, Vec<String>)> = Vec::new();
    for error in errors {
        let (cause, file) = match error {
            ReplayError::Connect { path, source } => {
                (source.to_string(), Some(path.display().to_string()))
            }
            error => (error.to_string(), None),
        };
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, files)) => files.extend(file),
            None => causes.push((cause, file.into_iter().collect())),
        }
    }
    causes.into_iter().map(|(cause, files)| of_one_cause(cause, &files)).collect()
}

fn of_one_cause(cause: String, files: &[String]) -> String {
    if files.is_empty() {
        return cause;
    }
    let listed = files[..files.len().min(FILES_LISTED)].join(", ");
    match files.len().saturating_sub(FILES_LISTED) {
        0 => format!("{listed}: {cause}"),
        more => format!("{listed} and {more} more: {cause}"),
    }
}

fn summarise(sent: &[Replayed]) {
    let bytes: u64 = sent.iter().map(|file| file.bytes).sum();
    let begun = sent.iter().map(|file| file.begun).min();
    let closed = sent.iter().map(|file| file.closed).max();
    let seconds = closed.zip(begun).map_or(0.0, |(closed, begun)| (closed - begun).as_secs_f64());
    say(format_args!(
        "sent {}, {} in {seconds:.3} s: {:.1} MB/s",
        counted(sent.len(), "file"),
        counted(bytes, "byte"),
        bytes as f64 / seconds.max(f64::MIN_POSITIVE) / 1e6,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::records::sender::SendError;
    use std::io::{self, ErrorKind};

    #[test]
    fn files_that_fail_alike_share_a_line() {
        let address = ([127, 0, 0, 1], 9000).into();
        let refused = |name: usize| ReplayError::Connect {
            path: name.to_string().into(),
            source: SendError::Connect { address, source: ErrorKind::ConnectionRefused.into() },
        };
        let read = ReplayError::Read { path: "r".into(), bytes: 7, source: io::Error::other("x") };
        let why = "cannot connect to 127.0.0.1:9000: connection refused; is an engine listening \
                   there?";
        let of = |files: usize| {
            let errors: Vec<ReplayError> = (0..files).map(refused).collect();
            together(&errors.iter().chain([&read]).collect::<Vec<_>>())
        };
        let unreadable = read.to_string();
        assert_eq!(of(1), [format!("0: {why}"), unreadable.clone()]);
        assert_eq!(of(2), [format!("0, 1: {why}"), unreadable.clone()]);
        let ten = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9";
        assert_eq!(of(10), [format!("{ten}: {why}"), unreadable.clone()]);
        assert_eq!(of(11), [format!("{ten} and 1 more: {why}"), unreadable]);
    }
}
