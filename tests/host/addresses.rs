//! Where the listeners listen, and how results name their peers.

use crate::common::oracle::{assert_result, records, stream};
use crate::common::wire::Client;
use crate::common::{Engine, result_of, ringest, run, stderr_of};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Whether this host has IPv6. Without it, the engine must say what is wrong.
fn has_ipv6() -> bool {
    if TcpListener::bind("[::1]:0").is_ok() {
        return true;
    }
    let output = run(ringest().args(["serve", "--host", "[::1]", "--port", "0"]));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr_of(&output).contains("cannot listen on [::1]:"), "{}", stderr_of(&output));
    false
}

/// A peer of the other family keeps its own address, so that `send --verify` finds its results.
#[test]
fn a_listener_of_both_families_names_peers_by_their_own_addresses() {
    if !has_ipv6() {
        return;
    }
    let engine = Engine::start_both(&["--host", "::", "--exit-after", "3"]);
    let port = engine.address.port();
    let all = records(30, 1);
    let mut peers = Vec::new();
    for address in ["127.0.0.1", "::1"] {
        let mut sender = TcpStream::connect((address, port)).unwrap();
        sender.write_all(&stream(&all, 4)).unwrap();
        peers.push(sender.local_addr().unwrap());
    }
    let messages = SocketAddr::new([127, 0, 0, 1].into(), engine.messages().port());
    Client::connect(messages).ping(1);
    let results = engine.results_path();
    let sent = run(ringest()
        .args(["send", "--records-port", &port.to_string(), "--connections", "1"])
        .args(["--records", "1000", "--verify"])
        .arg(results));
    assert_eq!(sent.status.code(), Some(0), "{}", stderr_of(&sent));
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    for peer in peers {
        assert_result(result_of(&results, peer), &all);
    }
}

#[test]
fn an_address_may_be_in_brackets() {
    let wrong = run(ringest().args(["serve", "--host", "[127.0.0.1]"]));
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr_of(&wrong).contains("e.g. [::1]"), "{}", stderr_of(&wrong));
    if !has_ipv6() {
        return;
    }
    let engine = Engine::start(&["--host", "[::1]", "--exit-after", "1"]);
    assert!(engine.address.is_ipv6());
    let port = engine.address.port().to_string();
    let sent = run(ringest()
        .args(["send", "--host", "[::1]", "--records-port", &port, "--connections", "1"])
        .args(["--records", "1000", "--verify"])
        .arg(engine.results_path()));
    assert_eq!(sent.status.code(), Some(0), "{}", stderr_of(&sent));
    assert_eq!(engine.wait().0.code(), Some(0));
}
