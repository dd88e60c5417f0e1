//! The protocol page has every name and number that a client may meet, and the page for operators
//! says what to do about each.

use super::{read, row, section};
use ringest::internals::{Fault, Reason};
use ringest::protocol::frame::FrameType;
use ringest::protocol::payload::ErrorCode;

const PROTOCOL: &str = "docs/reference/protocol.md";
const TROUBLESHOOTING: &str = "docs/operating/troubleshooting.md";

#[test]
fn every_reason_is_documented_for_clients_and_for_operators() {
    let (protocol, operating) = (read(PROTOCOL), read(TROUBLESHOOTING));
    let operating = section(&operating, "### Record streams");
    for reason in Reason::ALL {
        let (name, status) = (format!("`{}`", reason.as_str()), reason.status().as_str());
        let has = |line: &str| line.contains(&name) && line.contains(status);
        assert!(protocol.lines().any(has), "{name} with {status} in {PROTOCOL}");
        assert!(row(&operating, reason.as_str()).is_some(), "{name} in {TROUBLESHOOTING}");
    }
    let count = format!("These {} names are stable", Reason::ALL.len());
    assert!(protocol.contains(&count), "{count}");
}

#[test]
fn every_fault_is_documented_for_clients_and_for_operators() {
    let (protocol, operating) = (read(PROTOCOL), read(TROUBLESHOOTING));
    let operating = section(&operating, "### Message connections");
    for fault in Fault::ALL {
        let name = format!("`{}`", fault.as_str());
        let code = fault.code().map_or("nothing", ErrorCode::name);
        // The name may be a reason of record streams, too: one of its rows has the code.
        let has = |line: &str| line.contains(&name) && line.contains(code);
        assert!(protocol.lines().any(has), "{name} with {code} in {PROTOCOL}");
        let said = fault.code().is_none() || protocol.contains(fault.message());
        assert!(said, "{:?} in {PROTOCOL}", fault.message());
        assert!(row(&operating, fault.as_str()).is_some(), "{name} in {TROUBLESHOOTING}");
    }
    let count = format!("These {} are stable", Fault::ALL.len());
    assert!(protocol.contains(&count), "{count}");
}

#[test]
fn every_type_and_every_error_code_is_in_the_protocol() {
    let protocol = read(PROTOCOL);
    for kind in FrameType::ALL {
        let start = format!("| {} | 0x{:02X} |", kind.name(), kind as u8);
        assert!(protocol.lines().any(|line| line.starts_with(&start)), "{start}");
    }
    for code in ErrorCode::ALL {
        let start = format!("| {} | 0x{:02X} |", code.name(), code as u8);
        assert!(protocol.lines().any(|line| line.starts_with(&start)), "{start}");
    }
}
