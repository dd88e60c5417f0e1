//! The `ringest` program: the exit code of the chosen command, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringest::run()
}
