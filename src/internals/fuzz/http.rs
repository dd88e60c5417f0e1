//! Heads of HTTP requests to the admin port: each answer must be one that the documents list, and
//! every connection must end.

use super::input::FuzzInput;
use crate::runtime::admin::connection::Questions;
use crate::runtime::admin::test_client::answers;

const STATUSES: [&str; 8] = ["200", "400", "404", "405", "413", "414", "431", "503"];
/// The longest answer is that of /metrics.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// `GET / HTTP/1.1` and two line ends.
const REQUEST_BYTES_MIN: usize = 16;

pub(super) fn run(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let flags = input.byte();
    let questions = if flags & 1 == 0 { Questions::All } else { Questions::Health };
    let piece_bytes = if flags & 2 == 0 { usize::MAX } else { usize::from(flags >> 2) };
    let sent = input.rest();
    let received = answers(sent, piece_bytes, questions);
    if received.is_empty() {
        return;
    }
    let head = received.strip_prefix(b"HTTP/1.1 ").or(received.strip_prefix(b"HTTP/1.0 "));
    let status = head.and_then(|head| head.get(..3)).expect("an answer begins with a status");
    assert!(STATUSES.iter().any(|known| known.as_bytes() == status), "{}", received.escape_ascii());
    let requests = 1 + sent.len() / REQUEST_BYTES_MIN;
    assert!(received.len() <= requests * ANSWER_BYTES_MAX, "{} bytes", received.len());
}
