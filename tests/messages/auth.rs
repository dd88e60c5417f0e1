//! Users and tokens: from `ringest token` through the auth file to an authenticated connection.

use crate::common::beside::stats;
use crate::common::wire::*;
use crate::common::{Engine, RINGEST, ringest, run, stderr_of, until};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

struct Users {
    directory: tempfile::TempDir,
}

impl Users {
    fn new() -> Self {
        Users { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("users")
    }

    /// Lets a user in; gives the token.
    fn add(&self, user: &str) -> String {
        let output = run(ringest().args(["token", user, "--auth-file"]).arg(self.file()));
        assert!(output.status.success(), "{}", stderr_of(&output));
        let token = std::str::from_utf8(&output.stdout).unwrap().trim_end().to_owned();
        assert!(!stderr_of(&output).contains(&token), "it is said once");
        assert!(!fs::read_to_string(self.file()).unwrap().contains(&token), "it is kept nowhere");
        token
    }

    fn remove(&self, user: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        let left = text.lines().filter(|line| !line.starts_with(&format!("{user}:")));
        fs::write(self.file(), left.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
}

fn start(file: &Path, options: &[&str]) -> Engine {
    let file = ["--debug", "--auth-file", file.to_str().unwrap()];
    Engine::start_messages(&[&file, options].concat())
}

fn assert_let_in(engine: &Engine, user: &str, token: &str) {
    Client::connect(engine.messages()).log_in(user, token);
}

fn assert_refused(engine: &Engine, user: &str, token: &str) {
    let mut client = Client::connect(engine.messages());
    client.send(&auth(user, token));
    client.expect(AUTH_REPLY, b"\0");
}

#[test]
fn a_token_lets_its_user_in() {
    let users = Users::new();
    let (ann, bob) = (users.add("ann"), users.add("Zoë"));
    let engine = start(&users.file(), &["--require-auth"]);
    let mut client = Client::connect(engine.messages());
    let id = client.log_in("ann", &ann);
    assert!(id.len() >= 32 && id.is_ascii(), "128 bits: {id}");
    client.send(&frame(ECHO, b"in"));
    client.expect(ECHO_REPLY, b"in");
    let other = Client::connect(engine.messages()).log_in("Zoë", &bob);
    let again = Client::connect(engine.messages()).log_in("ann", &ann);
    assert!(id != other && id != again && other != again);
    for (user, token) in [("ann", &bob), ("Zoë", &ann), ("ann", &String::new())] {
        assert_refused(&engine, user, token);
    }
    for secret in [&ann, &bob, &id] {
        assert!(!engine.log().contains(secret.as_str()), "secrets stay out of the log");
    }
}

#[test]
fn an_unknown_user_is_answered_like_a_wrong_token() {
    let users = Users::new();
    let token = users.add("ann");
    let engine = start(&users.file(), &["--require-auth"]);
    let mut client = Client::connect(engine.messages());
    for (user, token) in [("ann", "guess"), ("nobody", token.as_str())] {
        client.send(&auth(user, token));
        client.expect(AUTH_REPLY, b"\0");
        client.ping(1);
    }
    client.send(&auth("ann", "third"));
    client.expect(AUTH_REPLY, b"\0");
    client.expect_error(AUTHENTICATION_FAILED);
    client.expect_end();
    let stats = stats(&engine);
    assert_eq!((&stats["auth_failures"], &stats["faults"]), (&3.into(), &0.into()));
    // Two failures are forgiven.
    let mut client = Client::connect(engine.messages());
    for _ in 0..2 {
        client.send(&auth("ann", "guess"));
        client.expect(AUTH_REPLY, b"\0");
    }
    client.log_in("ann", &token);
    client.ping(2);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A secret that others on the host can read is none.
#[test]
fn files_with_a_token_are_for_their_owner_only() {
    let users = Users::new();
    let path = |name: &str| users.directory.path().join(name);
    let token = |user: &str, file: &Path, auth_file: &Path| {
        let mut command = ringest();
        command.args(["token", user, "--token-file"]).arg(file).arg("--auth-file").arg(auth_file);
        run(&mut command)
    };
    let output = token("ann", &path("ann.token"), &users.file());
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr_of(&output));
    let ann = fs::read_to_string(path("ann.token")).unwrap();
    assert_eq!((ann.len(), mode(&path("ann.token"))), (65, 0o600));
    // A file that exists is kept, and nobody is let in with a token that is lost.
    let output = token("bob", &path("ann.token"), &users.file());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr_of(&output).contains("name a new file with --token-file"));
    assert_eq!(fs::read_to_string(path("ann.token")).unwrap(), ann);
    assert!(!fs::read_to_string(users.file()).unwrap().contains("bob"));
    let output = token("ann", &path("again.token"), &users.file());
    assert_eq!(output.status.code(), Some(1), "ann has a token");
    assert!(!path("again.token").exists());
    // The shell makes the file here, for everybody to read.
    let script = format!("umask 022; exec {RINGEST} token eve > eve.token");
    let output = run(Command::new("sh").args(["-c", &script]).current_dir(users.directory.path()));
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert_eq!(mode(&path("eve.token")), 0o600);
    assert_eq!(fs::read_to_string(path("eve.token")).unwrap().len(), 65);

    let engine = start(&users.file(), &["--require-auth"]);
    assert_let_in(&engine, "ann", ann.trim_end());
}

/// A file that is just being written, or that an editor has begun with a byte order mark.
#[test]
fn users_are_not_locked_out_by_a_slip_in_the_file() {
    let users = Users::new();
    let ann = users.add("ann");
    let line = fs::read_to_string(users.file()).unwrap();
    fs::write(users.file(), format!("\u{feff}{line}")).unwrap();
    let engine = start(&users.file(), &["--require-auth"]);
    assert_let_in(&engine, "ann", &ann);
    let reload = |text: &str, said: &str, times: usize| {
        fs::write(users.file(), text).unwrap();
        engine.signal(Signal::HUP);
        until(said, || engine.log().matches(said).count() == times);
    };
    for (text, times) in [("", 1), ("\n# nobody\n", 2), ("\u{feff}", 3)] {
        reload(text, "keeping the old users", times);
        assert!(engine.log().contains("lists no user"), "{}", engine.log());
        assert_let_in(&engine, "ann", &ann);
    }
    assert!(!engine.log().contains("auth file reloaded"), "{}", engine.log());
    reload(&line.replace("ann:", "ann :"), "auth file reloaded", 1);
    assert!(engine.log().contains("line 1: the user's name begins or ends with a blank"));
    assert_refused(&engine, "ann", &ann);
    reload(&line, "auth file reloaded", 2);
    assert_let_in(&engine, "ann", &ann);
}

#[test]
fn a_start_without_users_warns_and_the_first_user_comes_by_sighup() {
    let users = Users::new();
    fs::write(users.file(), "").unwrap();
    let engine = start(&users.file(), &["--require-auth"]);
    assert!(engine.log().contains("lists no user, so nobody can authenticate"));
    let ann = users.add("ann");
    engine.signal(Signal::HUP);
    until("the reload", || engine.log().contains("auth file reloaded"));
    assert_let_in(&engine, "ann", &ann);
}

/// What fail2ban looks for, at the level that is logged by default: a fixed text and the address.
#[test]
fn each_failed_authentication_leaves_a_line_with_the_peer() {
    const FAILED: &str = "authentication failed";
    let users = Users::new();
    users.add("ann");
    let file = users.file();
    let options = ["--require-auth", "--auth-file", file.to_str().unwrap()];
    let engine = Engine::start_messages(&options);
    let mut peers = Vec::new();
    for request in [auth("ann", "guess"), auth("peer=192.0.2.1:1", "x"), frame(ECHO, b"early")] {
        let mut client = Client::connect(engine.messages());
        peers.push(client.stream.local_addr().unwrap());
        client.send(&request);
        client.next().expect("an answer");
    }
    for peer in peers {
        until("a line with the peer", || {
            let log = engine.log();
            let mut lines = log.lines().filter(|line| line.contains(FAILED));
            lines.any(|line| line.contains(" WARN ") && line.ends_with(&format!("peer={peer}")))
        });
    }
    assert!(!engine.log().contains("192.0.2.1"), "a user cannot blame others: {}", engine.log());
    // However many there are, each is in a line or counted.
    let mut guessing: Vec<_> = (0..60).map(|_| Client::connect(engine.messages())).collect();
    guessing.iter_mut().for_each(|client| client.send(&auth("ann", "guess")));
    guessing.iter_mut().for_each(|client| client.expect(AUTH_REPLY, b"\0"));
    engine.signal(Signal::TERM);
    let (_, _, log) = engine.wait();
    let lines = log.lines().filter(|line| line.contains(FAILED)).count();
    let counted = log.lines().filter(|line| line.contains("further failed authentications"));
    let number = |line: &str| line.split_once("connections=").unwrap().1.parse::<usize>().unwrap();
    assert_eq!(lines + counted.map(number).sum::<usize>(), 63, "{log}");
}

/// Those who wait for the answer to a wrong token hold nobody up.
#[test]
fn guessing_takes_time_and_costs_others_none() {
    let users = Users::new();
    users.add("ann");
    let engine = start(&users.file(), &["--cores", &crate::common::one_core()]);
    let mut other = Client::connect(engine.messages());
    let mut guessing: Vec<_> = (0..50).map(|_| Client::connect(engine.messages())).collect();
    guessing.iter_mut().for_each(|client| client.send(&auth("ann", "guess")));
    (0..100).for_each(|number| other.ping(number));
    guessing.iter_mut().for_each(|client| client.expect(AUTH_REPLY, b"\0"));
}

/// Whoever keeps the engine writing is not let off authenticating.
#[test]
fn reading_slowly_wins_no_time_to_authenticate() {
    let users = Users::new();
    users.add("ann");
    let unlimited = ["--rate-limit", "0", "--global-rate-limit", "0"];
    let options = ["--require-auth", "--auth-timeout", "1s"];
    let engine = start(&users.file(), &[&unlimited[..], &options].concat());
    let mut client = Client::connect(engine.messages());
    client.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let (pings, mut sent) = (frame(PING, b"12345678").repeat(1000), 0);
    let mut some = [0; 30_000];
    until("the cut", || {
        // Both directions are kept full, whole frames or not: only time can end this.
        while let Ok(more @ 1..) = client.stream.write(&pings[sent % pings.len()..]) {
            sent += more;
        }
        let _ = client.stream.read(&mut some);
        stats(&engine)["faults_by_reason"]["auth_timeout"] == 1
    });
}

#[test]
fn without_a_file_nobody_is_believed_unless_all_are() {
    let engine = Engine::start_messages(&[]);
    assert_refused(&engine, "ann", "token");
    let engine = Engine::start_messages(&["--auth-open"]);
    assert_let_in(&engine, "ann", "token");
    assert_let_in(&engine, "", "");
}

#[test]
fn users_are_read_again_at_sighup() {
    let users = Users::new();
    let ann = users.add("ann");
    let engine = start(&users.file(), &["--require-auth"]);
    let mut early = Client::connect(engine.messages());
    early.log_in("ann", &ann);
    let bob = users.add("bob");
    users.remove("ann");
    assert_refused(&engine, "bob", &bob);
    let reload = |said: &str, times: usize| {
        engine.signal(Signal::HUP);
        until(said, || engine.log().matches(said).count() == times);
    };
    reload("auth file reloaded", 1);
    assert_let_in(&engine, "bob", &bob);
    assert_refused(&engine, "ann", &ann);
    // Whoever is in stays.
    early.send(&frame(ECHO, b"still here"));
    early.expect(ECHO_REPLY, b"still here");
    // A file that cannot be read changes nothing.
    fs::write(users.file(), "ann:sha256:oops\n").unwrap();
    reload("keeping the old users", 1);
    assert_let_in(&engine, "bob", &bob);
    fs::remove_file(users.file()).unwrap();
    reload("keeping the old users", 2);
    assert_let_in(&engine, "bob", &bob);
}
