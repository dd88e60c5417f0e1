//! The load generator against small servers: what it counts, and that a server's pauses and faults
//! are in its results.

use super::server::{Reaction, Server, certificate, error};
use ringest::client::load::{
    LoadError, LoadOutcome, LoadProgress, Login, Settings, Traffic, run as run_load,
};
use ringest::client::messages::tls::{Trust, client_config};
use ringest::client::messages::transport::ClientTls;
use ringest::protocol::frame::{self, FrameType};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// Each connection begins with a PING, so that the server knows it.
const GREETING: u64 = 1;
const ALL: [Traffic; 4] = [Traffic::Ping, Traffic::Echo, Traffic::Data, Traffic::Broadcast];

fn settings(server: &Server) -> Settings {
    Settings { warm_up: 20 * MS, duration: 200 * MS, ..Settings::new(server.address) }
}

fn run(settings: &Settings) -> LoadOutcome {
    run_load(settings, &LoadProgress::default()).expect("a run")
}

/// Ends a run once it has had so many answers; one whose connection is lost goes on to its end.
fn run_until_answered(answers: u64, settings: &Settings) -> LoadOutcome {
    let progress = LoadProgress::default();
    thread::scope(|scope| {
        let run = scope.spawn(|| run_load(settings, &progress).expect("a run"));
        while progress.answers() < answers && !run.is_finished() {
            thread::sleep(MS);
        }
        progress.stop();
        run.join().expect("no panic")
    })
}

#[track_caller]
fn assert_clean(outcome: &LoadOutcome) {
    let tally = &outcome.tally;
    assert!(tally.is_clean() && tally.first_problem.is_none(), "{outcome:?}");
    assert!(tally.answers > 0 && tally.sent > 0 && !tally.latency.is_empty(), "{outcome:?}");
    assert!(tally.bytes_sent > 0 && tally.bytes_received > 0);
}

#[test]
fn closed_loops_of_each_type_and_size_are_clean() {
    let server = Server::start();
    for traffic in ALL {
        for (payload_bytes, pipeline, threads) in [(8, 1, 1), (100, 32, 2), (60_000, 4, 3)] {
            let settings = Settings {
                traffic,
                payload_bytes,
                pipeline,
                threads,
                connections: 5,
                senders: 2,
                ..settings(&server)
            };
            let outcome = run(&settings);
            assert_clean(&outcome);
            assert_eq!((outcome.connected, outcome.measured), (5, 200 * MS));
        }
    }
}

#[test]
fn open_loops_keep_their_rate() {
    let server = Server::start();
    for traffic in ALL {
        for threads in [1, 2] {
            let settings = Settings {
                traffic,
                threads,
                rate: Some(1000),
                connections: 3,
                senders: 3,
                ..settings(&server)
            };
            let outcome = run(&settings);
            assert_clean(&outcome);
            let tally = &outcome.tally;
            // One a millisecond, and as many latencies; a BROADCAST has two.
            let each = if traffic == Traffic::Broadcast { 2 } else { 1 };
            assert_eq!((tally.sent, tally.latency.len()), (200, 200 * each), "{traffic:?}");
            assert_eq!(tally.held_back + tally.lateness.len(), 200);
        }
    }
}

/// A server that sleeps for 100 ms delays every message that is due meanwhile.
#[test]
fn an_open_loop_counts_a_pause_for_all_that_it_delays() {
    fn pausing(rate: Option<u64>) -> LoadOutcome {
        let server = Server::judged(|_, number, _| match number {
            50 => Reaction::Late(100 * MS),
            _ => Reaction::Usual,
        });
        let duration = 300 * MS;
        run(&Settings { rate, warm_up: Duration::ZERO, duration, ..settings(&server) })
    }
    let open = pausing(Some(1000));
    assert_clean(&open);
    let slow = |outcome: &LoadOutcome| outcome.tally.latency.count_between(20_000_000, u64::MAX);
    // Those that were due in the first 80 of these 100 ms, at least.
    assert!(slow(&open) >= 70, "{open:?}");
    assert!(open.tally.latency.max() >= 95_000_000);
    let closed = pausing(None);
    assert_clean(&closed);
    // One after the other, so more than 15 of them would take longer than the run.
    assert!((1..20).contains(&slow(&closed)), "{closed:?}");
}

#[test]
fn what_a_server_never_answers_is_counted_with_its_time() {
    let server = Server::judged(|_, number, _| match number {
        0..=100 => Reaction::Usual,
        _ => Reaction::Instead(Vec::new()),
    });
    let open = Settings { rate: Some(1000), drain: 500 * MS, ..settings(&server) };
    let outcome = run(&open);
    let tally = &outcome.tally;
    // 20 of the 220 messages were for warming up.
    assert_eq!((tally.sent, tally.unanswered), (200, 120), "{outcome:?}");
    // Answers to the last of those may have come a little later.
    assert!((80..=100).contains(&tally.answers), "{outcome:?}");
    assert_eq!(tally.latency.len(), 200);
    assert!(tally.latency.max() > 550_000_000 && !tally.is_clean());
}

#[test]
fn messages_beyond_what_may_be_in_flight_wait_and_count_from_when_they_were_due() {
    // Answers 400 messages a second, and is sent ten times as many.
    let server = Server::judged(|_, _, _| Reaction::Late(5 * MS));
    let settings = Settings {
        traffic: Traffic::Echo,
        payload_bytes: 60_000,
        rate: Some(4000),
        connections: 2,
        duration: 300 * MS,
        drain: 100 * MS,
        ..settings(&server)
    };
    let outcome = run(&settings);
    let tally = &outcome.tally;
    assert_eq!(tally.latency.len(), 1200, "{outcome:?}");
    assert_eq!(tally.lateness.len() + tally.held_back, 1200, "{outcome:?}");
    assert!(tally.held_back > 0 && tally.answers < 1200, "{outcome:?}");
}

#[test]
fn each_fault_of_a_server_is_counted() {
    fn with(judge: fn(u64, frame::Frame<'_>) -> Reaction) -> LoadOutcome {
        let server = Server::judged(move |_, number, frame| match number {
            0 => Reaction::Usual,
            _ => judge(number - GREETING, frame),
        });
        let (traffic, warm_up, duration) = (Traffic::Echo, Duration::ZERO, 2000 * MS);
        run_until_answered(50, &Settings { traffic, warm_up, duration, ..settings(&server) })
    }
    let refused = with(|number, _| match number {
        3 | 5 => Reaction::Instead(error(7, "rate limit exceeded for ECHO")),
        _ => Reaction::Usual,
    });
    assert_eq!(refused.tally.errors, [(7, 2)].into());
    assert_eq!((refused.tally.lost, refused.tally.unanswered), (0, 0));

    let other_bytes = with(|number, _| {
        let mut out = Vec::new();
        frame::encode(FrameType::EchoReply, &[&[b'x'; 64]], &mut out);
        if number == 3 { Reaction::Instead(out) } else { Reaction::Usual }
    });
    assert_eq!((other_bytes.tally.mismatches, other_bytes.tally.lost), (1, 0));
    assert!(other_bytes.tally.answers > 3);

    let wrong_crc = with(|number, frame| {
        let mut out = Vec::new();
        frame::encode(FrameType::EchoReply, &[frame.payload], &mut out);
        *out.last_mut().unwrap() ^= 1;
        if number == 3 { Reaction::Instead(out) } else { Reaction::Usual }
    });
    let tally = &wrong_crc.tally;
    assert_eq!((tally.invalid, tally.lost, tally.unanswered, tally.answers), (1, 1, 1, 3));
    assert!(tally.first_problem.as_ref().unwrap().contains("CRC"), "{wrong_crc:?}");

    let ended = with(|number, _| match number {
        3 => Reaction::Last(error(9, "idle")),
        _ => Reaction::Usual,
    });
    assert_eq!((ended.tally.errors, ended.tally.lost), ([(9, 1)].into(), 1));
    assert_eq!(ended.tally.first_problem.unwrap(), "ended by the server: TIMEOUT (idle)");

    let closed = with(|number, _| match number {
        3 => Reaction::Last(Vec::new()),
        _ => Reaction::Usual,
    });
    assert_eq!((closed.tally.lost, closed.tally.unanswered), (1, 1));
}

#[test]
fn broadcasts_that_are_refused_or_changed_are_counted() {
    let server = Server::judged(|_, number, frame| match (frame.kind, number) {
        (FrameType::Broadcast, 2) => {
            Reaction::Instead(error(7, "rate limit exceeded for BROADCAST"))
        }
        (FrameType::Broadcast, 3) => {
            // To the sender, who has sent it and gets it all the same.
            let mut out = Vec::new();
            frame::encode(FrameType::Broadcast, &[b"something else"], &mut out);
            Reaction::Instead(out)
        }
        _ => Reaction::Usual,
    });
    let settings = Settings {
        traffic: Traffic::Broadcast,
        connections: 4,
        pipeline: 8,
        drain: 1000 * MS,
        ..settings(&server)
    };
    let outcome = run(&settings);
    let tally = &outcome.tally;
    assert_eq!((tally.mismatches, tally.lost), (1, 0), "{outcome:?}");
    // It may have come in the warm-up.
    let errors = tally.errors.get(&7).copied().unwrap_or_default();
    assert_eq!(errors + tally.warm_up_errors, 1, "{outcome:?}");
    // Three did not get the one that was changed.
    assert_eq!(tally.unanswered, 3);
    assert!(tally.answers > 0);
}

#[test]
fn a_receiver_that_is_lost_does_not_stop_the_broadcasts() {
    // One of three senders is closed, so a third of what may be on its way never comes.
    let closed = AtomicBool::new(false);
    let server = Server::judged(move |_, number, _| match number {
        2 if !closed.swap(true, Ordering::Relaxed) => Reaction::Last(Vec::new()),
        _ => Reaction::Usual,
    });
    let settings = Settings {
        traffic: Traffic::Broadcast,
        connections: 4,
        senders: 3,
        pipeline: 4,
        threads: 2,
        warm_up: Duration::ZERO,
        duration: 500 * MS,
        drain: 100 * MS,
        ..settings(&server)
    };
    let outcome = run(&settings);
    assert_eq!(outcome.tally.lost, 1, "{outcome:?}");
    assert!(outcome.tally.answers > 30, "{outcome:?}");
}

#[test]
fn a_thousand_connections_are_made_and_used() {
    let server = Server::start();
    let settings = Settings { connections: 1000, threads: 2, ..settings(&server) };
    let progress = LoadProgress::default();
    let outcome = run_load(&settings, &progress).unwrap();
    assert_clean(&outcome);
    assert_eq!((outcome.connected, progress.connected()), (1000, 1000));
    assert!(progress.answers() >= outcome.tally.answers && progress.running());
}

#[test]
fn authentication_and_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("ca.pem");
    let (pem, config) = certificate();
    std::fs::write(&authority, pem).unwrap();
    let server = Server::with(Some(config), |_, _, _| Reaction::Usual);
    let config = client_config(&Trust::Authorities(authority), None).unwrap();
    let tls = ClientTls { config, server_name: "localhost".try_into().unwrap() };
    let login = Login { user: "alice".to_owned(), token: "s3cret".to_owned() };
    for (payload_bytes, rate) in [(100, None), (60_000, None), (100, Some(2000))] {
        let settings = Settings {
            tls: Some(tls.clone()),
            login: Some(login.clone()),
            traffic: Traffic::Echo,
            connections: 3,
            pipeline: 5,
            payload_bytes,
            rate,
            ..settings(&server)
        };
        assert!(!format!("{settings:?}").contains("s3cret"));
        assert_clean(&run(&settings));
    }
    let login = Some(Login { token: "wrong".to_owned(), ..login });
    let settings = Settings { tls: Some(tls), login, connections: 3, ..settings(&server) };
    let refused = run_load(&settings, &LoadProgress::default()).unwrap_err();
    assert!(matches!(refused, LoadError::Refused { .. }), "{refused}");
    // Without TLS the server closes at once.
    let plain = Settings { tls: None, login: None, ..settings };
    let error = run_load(&plain, &LoadProgress::default()).unwrap_err();
    assert!(matches!(error, LoadError::NoConnection { .. }), "{error}");
}

#[test]
fn a_run_can_be_stopped() {
    let server = Server::start();
    let (warm_up, duration) = (Duration::ZERO, Duration::from_secs(600));
    let settings = Settings { warm_up, duration, ..settings(&server) };
    let progress = Arc::new(LoadProgress::default());
    let stopper = Arc::clone(&progress);
    thread::spawn(move || {
        while stopper.answers() < 100 {
            thread::sleep(MS);
        }
        stopper.stop();
    });
    let outcome = run_load(&settings, &progress).unwrap();
    assert_clean(&outcome);
    assert!(outcome.measured < settings.duration, "{outcome:?}");
    // Stopped before it began.
    let stopped = run_load(&settings, &progress).unwrap();
    assert_eq!((stopped.measured, stopped.tally.answers), (Duration::ZERO, 0));
}

/// At such a rate, billions of messages are due that no process can send. The run still ends once
/// it is stopped, and says how many they were.
#[test]
fn a_run_at_an_impossible_rate_can_be_stopped() {
    let server = Server::start();
    let (rate, warm_up, duration) = (Some(1_000_000_000), Duration::ZERO, 600_000 * MS);
    let (connections, drain) = (3, 50 * MS);
    let settings = Settings { rate, warm_up, duration, connections, drain, ..settings(&server) };
    let outcome = run_until_answered(100, &settings);
    let tally = &outcome.tally;
    assert!(!tally.is_clean() && tally.unsent > 0 && tally.answers >= 100, "{outcome:?}");
    // Each message that was due is sent or not sent. One is due each nanosecond.
    let measured_ns = outcome.measured.as_nanos() as u64;
    assert_eq!(tally.sent + tally.unsent, measured_ns, "{outcome:?}");
    // Each has a latency, sent or not.
    assert_eq!(tally.latency.len(), measured_ns, "{outcome:?}");
}

/// To find the address that accepts takes a connection. It is used, and takes no second place.
#[test]
fn the_connection_that_found_the_address_is_the_first_of_the_run() {
    let last = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&last);
    let server = Server::judged(move |connection, _, _| {
        seen.fetch_max(connection, Ordering::Relaxed);
        Reaction::Usual
    });
    let found = Some(Arc::new(TcpStream::connect(server.address).unwrap()));
    let outcome = run(&Settings { found, connections: 3, ..settings(&server) });
    assert_clean(&outcome);
    // The server counts from 0.
    assert_eq!((outcome.connected, last.load(Ordering::Relaxed)), (3, 2));
}

#[test]
fn settings_that_cannot_be_are_refused_with_the_reason() {
    let server = Server::start();
    let good = settings(&server);
    let echo = Settings { traffic: Traffic::Echo, ..good.clone() };
    let broadcast = Settings { traffic: Traffic::Broadcast, ..good.clone() };
    for (settings, reason) in [
        (Settings { payload_bytes: 65_536, ..echo.clone() }, "the limit is 65535"),
        (Settings { connections: 0, ..good.clone() }, "at least 1"),
        (Settings { pipeline: 0, ..good.clone() }, "at least 1"),
        (Settings { rate: Some(0), ..good.clone() }, "between 1 and 1000000000"),
        (Settings { rate: Some(1_000_000_001), ..good.clone() }, "between 1 and 1000000000"),
        (Settings { duration: Duration::MAX, ..good.clone() }, "the duration must be between"),
        (Settings { duration: Duration::ZERO, ..good.clone() }, "the duration must be between"),
        (Settings { warm_up: Duration::MAX, ..good.clone() }, "the warm-up at most that"),
        (Settings { threads: 2, ..good.clone() }, "2 threads for 1 connection;"),
        (broadcast.clone(), "broadcasts need at least one"),
        (Settings { senders: 3, connections: 2, ..broadcast }, "3 senders"),
        (Settings { connections: 20_000, payload_bytes: 60_000, ..echo }, "fewer"),
    ] {
        let error = run_load(&settings, &LoadProgress::default()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn connections_that_are_refused_are_counted_and_the_others_go_on() {
    let server = Server::judged(|connection, _, _| match connection {
        1 | 2 => Reaction::Last(error(8, "no slot is free")),
        _ => Reaction::Usual,
    });
    let outcome = run(&Settings { connections: 5, rate: Some(1000), ..settings(&server) });
    let tally = &outcome.tally;
    assert_eq!((outcome.connected, tally.failed, tally.lost), (3, 2, 0), "{outcome:?}");
    assert_eq!(tally.errors, [(8, 2)].into());
    // Their messages were due as well.
    assert_eq!((tally.sent, tally.unsent), (120, 88), "{outcome:?}");
    let full = Server::judged(|_, _, _| Reaction::Last(error(8, "no slot is free")));
    let error = run_load(&settings(&full), &LoadProgress::default()).unwrap_err().to_string();
    assert!(error.contains("CONNECTION_LIMIT_EXCEEDED (no slot is free)"), "{error}");
}

#[test]
fn nobody_there_is_an_error_with_the_next_step() {
    let (nobody, _kept) = crate::common::nobody();
    let error = run_load(&Settings::new(nobody), &LoadProgress::default()).unwrap_err().to_string();
    assert!(error.contains("refused") && error.ends_with("listening there?"), "{error}");
}
