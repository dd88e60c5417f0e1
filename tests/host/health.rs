//! `ringest health` as a process, against the admin listener and against whatever else may be
//! where it looks.

use crate::common::{Engine, nobody, until};
use ringest::internals::{AdminState, Counters, start_admin};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::watch;

fn health(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringest"));
    for name in ["RINGEST_ADMIN_HOST", "RINGEST_ADMIN_PORT", "RINGEST_PORT"] {
        command.env_remove(name);
    }
    let Output { status, stderr, .. } = command.arg("health").args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn bound() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

#[test]
fn a_ready_engine_is_healthy_and_a_draining_one_is_not() {
    let (listener, port) = bound();
    let (drain, drained) = watch::channel(None);
    let (counters, _) = Counters::new(1);
    let state = AdminState {
        counters,
        cores: vec![0],
        drain: drained,
        readiness: Arc::default(),
        started: Instant::now(),
    };
    let admin = start_admin(listener, state).unwrap();
    for host in ["127.0.0.1", "0.0.0.0", "::", "localhost"] {
        let (code, said) = health(&["--admin-host", host, "--admin-port", &port]);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{host}");
    }
    let below = (port.parse::<u16>().unwrap() - 1000).to_string();
    assert_eq!(health(&["--port", &below]).0, Some(0));
    drain.send_replace(Some(Instant::now()));
    let (code, said) = health(&["--admin-port", &port]);
    assert_eq!(code, Some(1));
    assert!(said.contains("HTTP status 503: draining"), "{said}");
    admin.stop();
    // Not the same port: another test may listen on one that was given up.
    let (nobody, _kept) = nobody();
    let (code, said) = health(&["--admin-port", &nobody.port().to_string()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("refused") && said.contains("check that `ringest serve` runs"), "{said}");
}

/// A scraper that leaks connections must not make an orchestrator restart the engine.
#[test]
fn an_engine_whose_admin_connections_are_taken_is_healthy() {
    let engine = Engine::start(&[]);
    let port = engine.admin().port().to_string();
    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(engine.admin()).unwrap()).collect();
    let (code, said) = health(&["--admin-port", &port]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    until("its own line in the log", || {
        engine.log().matches("admin connections are open: until one closes").count() == 1
    });
    drop(idle);
}

#[test]
fn something_else_at_the_port_is_not_healthy() {
    for reply in ["", "HTTP/1.1 200 OK\r\n\r\n<html>", "220 mail ready\r\n"] {
        let (listener, port) = bound();
        let other = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(reply.as_bytes()).unwrap();
        });
        let (code, said) = health(&["--admin-port", &port]);
        assert_eq!(code, Some(1), "{reply}");
        assert!(said.contains("does not answer like ringest's admin listener"), "{said}");
        other.join().unwrap();
    }
}

/// One never accepts, one never says a word, one never comes to an end.
#[test]
fn whoever_does_not_answer_in_time_is_not_healthy() {
    let (_silent, silent_port) = bound();
    let (listener, slow_port) = bound();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    thread::scope(|scope| {
        for port in [silent_port, slow_port] {
            scope.spawn(move || {
                let (code, said) = health(&["--admin-port", &port]);
                assert_eq!(code, Some(1), "{said}");
                assert!(said.contains("no answer within 2 s"), "{said}");
            });
        }
    });
}

#[test]
fn a_port_that_nobody_knows_is_asked_for() {
    for arguments in [["--admin-port", "0"], ["--port", "0"], ["--port", "65000"]] {
        let (code, said) = health(&arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(said.contains("give its number with --admin-port"), "{said}");
    }
}

#[test]
fn a_record_port_is_looked_up_and_not_connected_to() {
    let (address, socket) = nobody();
    let port = address.port().to_string();
    // Explicit wins over where the admin listener would be.
    let arguments = ["--records-port", &port, "--admin-port", "1"];
    let (code, said) = health(&arguments);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("nothing listens on port {port}; start")), "{said}");
    socket.listen(1).unwrap();
    assert_eq!(health(&arguments).0, Some(0));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.accept().is_err(), "nobody came");
}
