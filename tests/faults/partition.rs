//! Packets that are lost, and peers that vanish without a word, in a network namespace that each
//! test makes: it runs itself there, where the packets of 127.0.0.2 can be dropped.

use crate::common::beside::{Healthy, stats, wait_for_bytes, wait_for_clients, wrongs};
use crate::common::oracle::{Record, assert_result, packets, records, stream};
use crate::common::wire::*;
use crate::common::{Engine, PATIENCE, result_of, run, stderr_of, until};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Set in the namespace.
const INSIDE: &str = "RINGEST_TEST_NAMESPACE";
/// Those who vanish have this address; others have 127.0.0.1.
const LOST: [u8; 4] = [127, 0, 0, 2];

/// Runs a test in a namespace: there, it does what it tests; outside, it runs itself inside.
fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        sh("ip link set lo up");
        return body();
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net").arg(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]).env(INSIDE, "1");
    let output = run(&mut command);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "in its namespace: {stdout}{}", stderr_of(&output));
    // Its numbers, and not what it says as a test: that is this one's to say.
    stdout.lines().filter(|line| line.starts_with("network: ")).for_each(|line| println!("{line}"));
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().expect("sh");
    assert!(status.success(), "{script}");
}

/// From now on no packet of the lost address arrives, in either direction.
fn part() {
    sh("iptables -A INPUT -s 127.0.0.2 -j DROP; iptables -A INPUT -d 127.0.0.2 -j DROP");
}

fn heal() {
    sh("iptables -F INPUT");
}

/// A connection from the address that will be lost.
fn connect_lost(engine: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((LOST, 0)).into()).unwrap();
    socket.connect(&engine.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// What half-open peers left behind.
struct HalfOpen {
    /// Streams between two packets, and within one: what they sent, and why they must end.
    streams: Vec<(TcpStream, Vec<Record>, &'static str)>,
    /// Silent clients, and those who are within a frame.
    clients: Vec<TcpStream>,
}

impl HalfOpen {
    /// Connects everybody, and waits until the engine has all that they sent.
    fn new(engine: &Engine) -> Self {
        let mut streams = Vec::new();
        let mut bytes = 0;
        for seed in 0..8 {
            let all = records(40, seed);
            let mut sent = packets(&all, 4);
            let reason = if seed % 2 == 0 { "idle_timeout" } else { "packet_timeout" };
            if seed % 2 == 1 {
                sent.extend(&packets(&all, 4)[..100]);
            }
            let mut stream = connect_lost(engine.address);
            stream.write_all(&sent).unwrap();
            bytes += sent.len() as u64;
            streams.push((stream, all, reason));
        }
        wait_for_bytes(engine, "records", bytes);
        let clients = (0..8).map(|number| {
            let mut client = Client::over(connect_lost(engine.messages()));
            client.ping(number);
            if number % 2 == 1 {
                client.send(&frame(PING, b"12345678")[..10]);
            }
            client.stream
        });
        HalfOpen { clients: clients.collect(), streams }
    }
}

fn peer_of(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().unwrap()
}

/// Waits until only the healthy client is left; gives how long that took.
fn wait_until_gone(engine: &Engine, patience: Duration) -> Duration {
    let begun = Instant::now();
    loop {
        let active = stats(engine)["connections_active"].clone();
        if active["records"] == 0 && active["messages"] == 1 {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < patience, "still there after {patience:?}: {active}");
        thread::sleep(Duration::from_millis(20));
    }
}

const UNLIMITED: [&str; 4] = ["--rate-limit", "0", "--global-rate-limit", "0"];

#[test]
#[ignore = "needs a network namespace and iptables"]
fn half_open_peers_are_gone_within_their_timeouts() {
    in_namespace("partition::half_open_peers_are_gone_within_their_timeouts", || {
        const TIMEOUT_S: u64 = 2;
        let two = format!("{TIMEOUT_S}s");
        let options = ["--idle-timeout", &two, "--packet-timeout", &two, "--frame-timeout", &two]
            .into_iter()
            .chain(["--write-timeout", &two, "--linger", "1s", "--drain-timeout", "0s"])
            .chain(UNLIMITED);
        let engine = Engine::start_both(&options.collect::<Vec<_>>());
        let healthy = Healthy::start(engine.messages());
        let half_open = HalfOpen::new(&engine);
        part();
        let took = wait_until_gone(&engine, Duration::from_secs(60));
        healthy.assert_well();
        let results = engine.wait_for_results(half_open.streams.len());
        for (stream, all, reason) in &half_open.streams {
            let result = result_of(&results, peer_of(stream));
            assert_eq!(result["reason"], *reason, "{result}");
            assert_result(result, all);
        }
        let counted = wrongs(&engine);
        assert_eq!((counted["idle_timeout"], counted["frame_timeout"]), (4, 4), "{counted:?}");
        println!(
            "network: {} half-open peers gone {:.1} s after they vanished, with timeouts of {two} \
             and a linger of 1 s",
            half_open.streams.len() + half_open.clients.len(),
            took.as_secs_f64()
        );
    });
}

/// A receiver that vanishes while the engine sends to it.
#[test]
#[ignore = "needs a network namespace and iptables"]
fn receivers_that_vanish_are_cut_after_the_write_timeout() {
    in_namespace("partition::receivers_that_vanish_are_cut_after_the_write_timeout", || {
        let options = ["--write-timeout", "2s", "--idle-timeout", "1h", "--linger", "1s"];
        let engine = Engine::start_messages(&[&options[..], &UNLIMITED].concat());
        let healthy = Healthy::start(engine.messages());
        let mut receivers: Vec<_> =
            (0..4).map(|_| Client::over(connect_lost(engine.messages()))).collect();
        receivers.iter_mut().for_each(|receiver| receiver.ping(0));
        let mut sender = Client::connect(engine.messages());
        part();
        let begun = Instant::now();
        let mut number = 0;
        // More than the kernel takes for somebody who takes nothing.
        until("the receivers to be cut", || {
            sender.send(&frame(BROADCAST, &[7; 60_000]));
            sender.ping_amid_broadcasts(number);
            number += 1;
            stats(&engine)["slow_consumers"] == 4
        });
        let took = begun.elapsed();
        wait_for_clients(&engine, 2);
        healthy.assert_well();
        println!("network: receivers cut {:.1} s after they vanished", took.as_secs_f64());
    });
}

/// Where no timeout of the engine applies, the kernel asks whether the peer is there: after a
/// minute of silence, and four times more.
#[test]
#[ignore = "needs a network namespace and iptables; two minutes"]
fn without_timeouts_half_open_peers_are_gone_after_two_minutes() {
    in_namespace("partition::without_timeouts_half_open_peers_are_gone_after_two_minutes", || {
        let hour = ["--idle-timeout", "1h", "--packet-timeout", "1h", "--frame-timeout", "1h"];
        let engine = Engine::start_both(&[&hour[..], &UNLIMITED].concat());
        let healthy = Healthy::start(engine.messages());
        let half_open = HalfOpen::new(&engine);
        part();
        let took = wait_until_gone(&engine, Duration::from_secs(180));
        healthy.assert_well();
        let results = engine.wait_for_results(half_open.streams.len());
        for (stream, all, _) in &half_open.streams {
            let result = result_of(&results, peer_of(stream));
            assert_eq!(result["status"], "incomplete", "{result}");
            assert_eq!(result["reason"], "read_failed", "{result}");
            assert_result(result, all);
        }
        println!("network: gone by keepalive after {:.1} s", took.as_secs_f64());
    });
}

/// Sends records in pieces as long as the test lets it.
fn send_slowly(mut sender: TcpStream, bytes: &[u8]) {
    for piece in bytes.chunks(20_000) {
        sender.write_all(piece).expect("the engine reads");
        thread::sleep(Duration::from_millis(20));
    }
}

fn assert_complete(results: &[Value], sent: &[(SocketAddr, Vec<Record>)]) {
    for (peer, all) in sent {
        let result = result_of(results, *peer);
        assert_eq!(result["status"], "complete", "{result}");
        assert_result(result, all);
    }
}

/// A partition that heals costs nothing.
#[test]
#[ignore = "needs a network namespace and iptables"]
fn a_partition_that_heals_costs_nothing() {
    in_namespace("partition::a_partition_that_heals_costs_nothing", || {
        let engine = Engine::start_both(&UNLIMITED);
        let mut client = Client::over(connect_lost(engine.messages()));
        client.ping(1);
        let mut sent = Vec::new();
        thread::scope(|scope| {
            for seed in 0..6 {
                let all = records(4000, seed);
                let sender = connect_lost(engine.address);
                sent.push((peer_of(&sender), all.clone()));
                scope.spawn(move || send_slowly(sender, &stream(&all, 7)));
            }
            wait_for_bytes(&engine, "records", 200_000);
            part();
            client.send(&frame(PING, b"12345678"));
            // For a time of the engine, which goes on.
            crate::common::beside::let_run(&engine, Duration::from_secs(3));
            heal();
            client.expect(PONG, b"12345678");
        });
        let results = engine.wait_for_results(sent.len());
        assert_complete(&results, &sent);
        println!("network: parted for 3 s, healed; {} streams complete and exact", sent.len());
    });
}

#[test]
#[ignore = "needs a network namespace and iptables"]
fn streams_and_messages_over_a_network_that_loses_packets_are_exact() {
    in_namespace(
        "partition::streams_and_messages_over_a_network_that_loses_packets_are_exact",
        || {
            let engine = Engine::start_both(&UNLIMITED);
            sh("iptables -A INPUT -p tcp -m statistic --mode random --probability 0.03 -j DROP");
            let messages_at = engine.messages();
            let mut sent = Vec::new();
            thread::scope(|scope| {
                for number in 0..6 {
                    let all = records(4000, number);
                    let sender = connect_lost(engine.address);
                    sent.push((peer_of(&sender), all.clone()));
                    scope.spawn(move || send_slowly(sender, &stream(&all, 7)));
                    scope.spawn(move || {
                        let mut client = Client::over(connect_lost(messages_at));
                        for number in 0..50 {
                            client.ping(number);
                        }
                    });
                }
            });
            heal();
            let results = engine.wait_for_results(sent.len());
            assert_complete(&results, &sent);
            wait_for_clients(&engine, 0);
            // A connection that is closed while its last packets are lost is closed all the same.
            assert_eq!(stats(&engine)["faults"], 0, "{}", stats(&engine));
            println!("network: 3 % of all packets lost, {} streams complete and exact", sent.len());
        },
    );
}

#[test]
#[ignore = "needs a network namespace and iptables"]
fn nobody_connects_across_a_partition() {
    in_namespace("partition::nobody_connects_across_a_partition", || {
        part();
        let engine = Engine::start(&[]);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((LOST, 0)).into()).unwrap();
        let refused = socket.connect_timeout(&engine.address.into(), Duration::from_secs(1));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}
