//! Where the size of files is limited (`ulimit -f`, LimitFSIZE=), a command fails with an error and
//! is not killed by a signal. The tests of results check the same of `serve`.

use crate::common::{RINGEST, ringest, run, stderr_of};
use std::fs::{self, File};
use std::process::{Command, Stdio};

/// The program, which may not write a byte to a file. Python would not do as a launcher: it ignores
/// the signal, and the program would inherit that.
fn limited() -> Command {
    let mut command = Command::new("bash");
    for (name, _) in ringest().get_envs() {
        command.env_remove(name);
    }
    command.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\"", RINGEST]).stdin(Stdio::null());
    command
}

#[test]
fn a_command_whose_file_may_not_be_so_large_says_so_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("partials")).unwrap();
    let schema = run(ringest().args(["schema", "show"]));
    fs::write(path("partials/schema.toml"), schema.stdout).unwrap();
    fs::create_dir(path("made")).unwrap();
    let (csv, parquet) = (path("made/merged.csv"), path("made/merged.parquet"));
    let (users, certificates) = (path("made/users"), path("made/certificates"));
    for arguments in [
        &["merge", &path("partials"), "--output", &csv][..],
        &["merge", &path("partials"), "--output", &parquet],
        &["token", "alice", "--auth-file", &users],
        &["gen-cert", "--dir", &certificates],
    ] {
        let output = run(limited().args(arguments));
        let said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {:?} {said}", output.status);
        assert!(said.contains("(ulimit -f, LimitFSIZE)"), "{arguments:?}: {said}");
        let _ = fs::remove_dir(&certificates);
        let left: Vec<_> = fs::read_dir(path("made")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{arguments:?} left {left:?}");
    }
}

/// What a command prints may go to a file too.
#[test]
fn a_stdout_that_may_not_be_so_large_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let doctor = ["doctor", "--host", "127.0.0.1", "--port", "0", "--admin-port", "0"];
    for arguments in [&["schema", "show"][..], &["reference", "options"], &doctor] {
        let mut command = limited();
        let printed = File::create(directory.path().join("printed")).unwrap();
        let child = command.args(arguments).stdout(printed).stderr(Stdio::piped());
        let output = child.spawn().expect("python3").wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {:?}", output.status);
        assert!(stderr_of(&output).contains("stdout"), "{arguments:?}: {}", stderr_of(&output));
    }
}
