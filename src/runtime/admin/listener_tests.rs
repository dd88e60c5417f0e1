//! Tests of the admin listener over real sockets, with minimal, slow, greedy and broken clients.
//! What the engine counts is tested elsewhere.

use super::*;
use crate::config::ADMIN_CONNECTIONS;
use crate::engine::observe::counters::{Counters, Protocol, TallyWriters};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::watch;

type Drain = watch::Sender<Option<Instant>>;

/// Long enough for a busy machine, short enough to wait for.
const PATIENCE: Duration = Duration::from_secs(20);

fn admin(limits: Limits) -> (AdminHandle, TallyWriters, Drain) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (counters, writers) = Counters::new(2);
    let (drain, drained) = watch::channel(None);
    let state = AdminState {
        counters,
        cores: vec![0, 1],
        drain: drained,
        readiness: Arc::default(),
        started: Instant::now(),
    };
    (start_with(listener, state, limits, &Defects::alone()).unwrap(), writers, drain)
}

fn connect(admin: &AdminHandle) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(admin.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything received until the connection closes or is reset.
fn rest(mut stream: impl Read) -> String {
    let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => received.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("after {} bytes: {error}", received.len()),
        }
    }
    String::from_utf8(received).unwrap()
}

/// Sends one request on a new connection and returns everything received.
fn ask(admin: &AdminHandle, method: &str, path: &str) -> String {
    let mut stream = connect(admin);
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    rest(stream)
}

fn get(admin: &AdminHandle, path: &str) -> String {
    ask(admin, "GET", path)
}

/// Status, headers and body of one reply.
fn parts(reply: &str) -> (u16, &str, &str) {
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{reply:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
}

fn status(reply: &str) -> u16 {
    parts(reply).0
}

/// One whole reply on a connection that stays open.
fn next_reply(stream: &mut std::net::TcpStream) -> String {
    let (mut reply, mut byte) = (Vec::new(), [0]);
    while !reply.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        reply.push(byte[0]);
    }
    let head = String::from_utf8(reply.clone()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    reply.extend(body);
    String::from_utf8(reply).unwrap()
}

#[test]
fn each_path_returns_its_content() {
    let (admin, writers, _drain) = admin(Limits::default());
    writers.workers[1].add(|tally| &tally.opened[Protocol::Messages as usize], 3);
    for (path, content_type, contains) in [
        ("/", "text/plain; charset=utf-8", "/stats.json"),
        ("/healthz", "text/plain; charset=utf-8", "ok"),
        ("/readyz", "text/plain; charset=utf-8", "ready"),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "ringest_core_connections_active{core=\"1\"} 3\n",
        ),
        ("/stats.json?pretty", "application/json", "\"state\": \"ready\""),
    ] {
        let reply = get(&admin, path);
        let (status, head, body) = parts(&reply);
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {content_type}")), "{path}: {head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{path}: {head}");
        assert!(body.contains(contains) && body.ends_with('\n'), "{path}: {body}");
    }
    let reply = get(&admin, "/stats.json");
    let stats: serde_json::Value = serde_json::from_str(parts(&reply).2).unwrap();
    assert_eq!(stats["connections_active"]["messages"], 3);
    assert!(stats["resident_memory_bytes"].as_u64().unwrap() > 1 << 20, "{stats}");
    assert!(stats["start_time_seconds"].as_f64().unwrap() > 1.7e9, "{stats}");
    admin.stop();
}

#[test]
fn head_returns_the_headers_of_get_without_a_body() {
    let (admin, _writers, _drain) = admin(Limits::default());
    for path in ["/", "/healthz", "/readyz"] {
        let (asked, got) = (ask(&admin, "HEAD", path), get(&admin, path));
        let (status, head, body) = parts(&asked);
        assert_eq!((status, body), (200, ""), "{path}");
        assert!(head.contains(&format!("content-length: {}", parts(&got).2.len())), "{head}");
    }
    admin.stop();
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let (admin, _writers, _drain) = admin(Limits::default());
    for path in ["/stats", "/metrics/", "//", "/%2e%2e/etc/passwd", "*"] {
        assert_eq!(status(&get(&admin, path)), 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let reply = ask(&admin, method, "/metrics");
        assert_eq!(status(&reply), 405, "{method}");
        assert!(reply.contains("allow: GET, HEAD"), "{method}: {reply}");
    }
    admin.stop();
}

/// A body is neither read nor taken for a request.
#[test]
fn a_body_is_refused_and_ends_the_connection() {
    let (admin, _writers, _drain) = admin(Limits::default());
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (request, expected) in [
        ("GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n", 413),
        ("GET /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", 413),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 37\r\n\r\n", 405),
        (
            "PUT /none HTTP/1.1\r\nhost: x\r\ncontent-length: 37\r\nexpect: 100-continue\r\n\r\n",
            404,
        ),
    ] {
        let mut stream = connect(&admin);
        stream.write_all(request.as_bytes()).unwrap();
        stream.write_all(smuggled.as_bytes()).unwrap();
        let reply = rest(stream);
        assert_eq!(status(&reply), expected, "{request}: {reply}");
        assert_eq!(reply.matches("HTTP/1.1").count(), 1, "{request}: {reply}");
    }
    admin.stop();
}

#[test]
fn a_head_above_the_limit_is_refused() {
    let (admin, _writers, _drain) = admin(Limits::default());
    let head = |headers: &str| format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let close = "connection: close\r\n";
    for (headers, expected) in [
        (format!("{close}a: {}\r\n", "b".repeat(7 << 10)), 200),
        (format!("{close}a: {}\r\n", "b".repeat(9 << 10)), 431),
        (format!("a: {}", "b".repeat(1 << 20)), 431),
        ("a: b\r\n".repeat(200), 431),
    ] {
        let mut stream = connect(&admin);
        // If the head is too long, its end may not be accepted.
        let _ = stream.write_all(head(&headers).as_bytes());
        assert_eq!(status(&rest(stream)), expected, "{} bytes", headers.len());
    }
    admin.stop();
}

#[test]
fn a_head_that_never_ends_is_cut_while_others_are_served() {
    let limits = Limits { head: Duration::from_millis(300), ..Limits::default() };
    let (admin, _writers, _drain) = admin(limits);
    let mut slow = connect(&admin);
    let silent = connect(&admin);
    let begun = Instant::now();
    while slow.write_all(b"G").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the client can still write");
        assert_eq!(status(&get(&admin, "/healthz")), 200);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rest(silent), "");
    admin.stop();
}

/// The time for a head counts from its first byte, not from the previous request: a connection
/// that has had its reply outlives others that have not sent all of their head.
#[test]
fn the_gap_between_requests_may_exceed_the_time_for_a_head() {
    let limits = Limits { head: Duration::from_millis(500), ..Limits::default() };
    let (admin, _writers, _drain) = admin(limits);
    let mut stream = connect(&admin);
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        assert_eq!(status(&next_reply(&mut stream)), 200);
        let mut half = connect(&admin);
        half.write_all(b"GET /heal").unwrap();
        assert_eq!(rest(half), "");
    }
    admin.stop();
}

#[test]
fn silence_after_a_request_is_cut() {
    let limits = Limits { idle: Duration::from_millis(200), ..Limits::default() };
    let (admin, _writers, _drain) = admin(limits);
    let mut stream = connect(&admin);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(status(&next_reply(&mut stream)), 200);
    assert_eq!(rest(&stream), "");
    admin.stop();
}

#[test]
fn a_connection_serves_several_requests_in_turn_and_pipelined() {
    let (admin, _writers, _drain) = admin(Limits::default());
    let mut stream = connect(&admin);
    for path in ["/metrics", "/stats.json"] {
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        assert_eq!(status(&next_reply(&mut stream)), 200, "{path}");
    }
    let pair = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\nGET /none HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(pair.as_bytes()).unwrap();
    assert_eq!(status(&next_reply(&mut stream)), 200);
    assert_eq!(status(&next_reply(&mut stream)), 404);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(stream), "");
    admin.stop();
}

#[test]
fn a_connection_above_the_limit_gets_503() {
    let (admin, _writers, _drain) = admin(Limits::default());
    let mut open: Vec<_> = (0..Limits::default().connections).map(|_| connect(&admin)).collect();
    let reply = get(&admin, "/metrics");
    assert_eq!(status(&reply), 503);
    assert!(reply.ends_with("\r\n\r\ntoo many admin connections\n"), "{reply}");
    let length = format!("content-length: {}\r\n", parts(&reply).2.len());
    assert!(reply.contains(&length), "{reply}");
    // The others are served, and one that closes makes room.
    let mut last = open.pop().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nconnection: close\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(status(&rest(last)), 200);
    let begun = Instant::now();
    while status(&get(&admin, "/metrics")) != 200 {
        assert!(begun.elapsed() < PATIENCE);
    }
    admin.stop();
}

/// However many say nothing, on whichever places.
#[test]
fn idle_connections_keep_nobody_from_asking_about_health() {
    let forever = Duration::from_secs(3600);
    let limits = Limits { head: forever, idle: forever, ..Limits::default() };
    let (admin, _writers, drain) = admin(limits);
    let mut idle: Vec<_> = (0..ADMIN_CONNECTIONS - 1).map(|_| connect(&admin)).collect();
    for _ in 0..3 {
        idle.extend((0..ADMIN_CONNECTIONS).map(|_| connect(&admin)));
        for path in ["/healthz", "/readyz"] {
            let reply = get(&admin, path);
            assert_eq!(status(&reply), 200, "{path}");
            assert!(reply.contains("connection: close\r\n"), "{reply}");
            assert_eq!(status(&ask(&admin, "HEAD", path)), 200, "{path}");
        }
        let reply = get(&admin, "/stats.json");
        assert!(
            status(&reply) == 503 && reply.ends_with("too many admin connections\n"),
            "{reply}"
        );
    }
    drain.send_replace(Some(Instant::now()));
    assert!(parts(&get(&admin, "/readyz")).2.starts_with("draining"));
    admin.stop();
}

/// Only one request is answered on a place that is kept for health.
#[test]
fn a_place_for_health_is_given_back_after_one_answer() {
    let (admin, _writers, _drain) = admin(Limits::default());
    let _open: Vec<_> = (0..Limits::default().connections).map(|_| connect(&admin)).collect();
    let mut stream = connect(&admin);
    stream.write_all(&b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2)).unwrap();
    let reply = rest(stream);
    assert_eq!((status(&reply), reply.matches("HTTP/1.1 200").count()), (200, 1), "{reply}");
    admin.stop();
}

#[test]
fn bytes_that_are_not_http_do_no_harm() {
    let limits = Limits { head: Duration::from_millis(200), ..Limits::default() };
    let (admin, _writers, _drain) = admin(limits);
    let mut random = fastrand::Rng::with_seed(7);
    for length in [1, 7, 100, 1000, 10_000, 100_000].repeat(4) {
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        let mut stream = connect(&admin);
        let _ = stream.write_all(&bytes);
        let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            received.extend_from_slice(&chunk[..n]);
        }
        let refused = received.starts_with(b"HTTP/1.1 4");
        assert!(received.is_empty() || refused, "{:?}", String::from_utf8_lossy(&received));
    }
    let tls_hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03";
    let mut stream = connect(&admin);
    stream.write_all(tls_hello).unwrap();
    assert_eq!(status(&rest(stream)), 400);
    let mut stream = connect(&admin);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert!(!rest(stream).contains("200"));
    assert_eq!(status(&get(&admin, "/healthz")), 200);
    admin.stop();
}

/// It keeps sending requests and takes no reply: its connection ends, and nothing piles up.
#[test]
fn a_client_that_does_not_read_is_cut() {
    let limits = Limits { reply: Duration::from_millis(300), ..Limits::default() };
    let (admin, _writers, _drain) = admin(limits);
    let mut stream = connect(&admin);
    let requests = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let begun = Instant::now();
    while stream.write_all(&requests).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the client can still write");
    }
    assert_eq!(status(&get(&admin, "/healthz")), 200);
    admin.stop();
}

#[test]
fn a_draining_engine_is_not_ready_but_still_serves_metrics() {
    let (admin, writers, drain) = admin(Limits::default());
    drain.send_replace(Some(Instant::now()));
    let reply = get(&admin, "/readyz");
    assert_eq!(status(&reply), 503);
    assert!(parts(&reply).2.starts_with("draining"), "{reply}");
    assert_eq!(status(&ask(&admin, "HEAD", "/readyz")), 503);
    assert_eq!(status(&get(&admin, "/healthz")), 200);
    // Even after the rest of the engine has ended.
    drop((drain, writers));
    assert!(get(&admin, "/metrics").contains("\nringest_ready 0\n"));
    assert!(get(&admin, "/stats.json").contains("\"state\": \"draining\""));
    admin.stop();
}

#[test]
fn stop_does_not_wait_for_clients_and_frees_the_port() {
    // With these limits, a client that has sent half a request could block it forever.
    let forever = Duration::from_secs(3600);
    let limits = Limits { head: forever, idle: forever, ..Limits::default() };
    let (admin, _writers, _drain) = admin(limits);
    let address = admin.address();
    let mut half = connect(&admin);
    half.write_all(b"GET /metr").unwrap();
    let open = connect(&admin);
    assert_eq!(status(&get(&admin, "/healthz")), 200);
    admin.stop();
    assert_eq!(rest(half) + &rest(open), "");
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn the_thread_ends_when_its_handle_is_dropped() {
    let (admin, _writers, _drain) = admin(Limits::default());
    let AdminHandle { stop, thread, .. } = admin;
    drop(stop);
    thread.join().unwrap();
}

#[test]
fn rates_are_available_after_a_second() {
    let (admin, writers, _drain) = admin(Limits::default());
    let begun = Instant::now();
    loop {
        writers.workers[0].add(|tally| &tally.records, 1_000_000);
        let reply = get(&admin, "/stats.json");
        let stats: serde_json::Value = serde_json::from_str(parts(&reply).2).unwrap();
        if stats["records_per_second"].as_f64().unwrap() > 1e5 {
            assert!(stats["rates_over_seconds"].as_f64().unwrap() > 0.9, "{stats}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{stats}");
        thread::sleep(Duration::from_millis(50));
    }
    admin.stop();
}
