//! `ringest health`: whether something listens on the record port of this host, for a container
//! that has nothing else in it. Opens no connection, which would be counted and reported.

use super::args::HealthOptions;
use super::{EXIT_FAILED, EXIT_OK, say};
use crate::runtime::host::is_listening;

/// Runs the command and returns its exit code.
pub fn run(options: &HealthOptions) -> u8 {
    let port = options.records_port;
    match is_listening(port) {
        Ok(true) => EXIT_OK,
        Ok(false) => {
            say(format_args!("nothing listens on port {port} here"));
            EXIT_FAILED
        }
        Err(error) => {
            say(format_args!("cannot read the table of sockets: {error}"));
            EXIT_FAILED
        }
    }
}
