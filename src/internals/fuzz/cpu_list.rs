//! CPU lists: what is accepted must be ascending, in range, and written back as a list that means
//! the same.

use crate::cli::args::cpu_list::{CORE_MAX, CpuList, parse};
use crate::runtime::host::cores::cpu_list;

/// A quoted word is cut, but each of its bytes may be shown as four.
const MESSAGE_BYTES_MAX: usize = 400;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text) {
        Ok(CpuList(cores)) => {
            assert!(cores.is_sorted_by(|a, b| a < b), "{cores:?}");
            assert!(cores.last().is_none_or(|&last| last <= CORE_MAX));
            if !cores.is_empty() {
                assert_eq!(parse(&cpu_list(&cores)), Ok(CpuList(cores)));
            } else {
                assert_eq!(text.trim(), "all");
            }
        }
        Err(message) => {
            assert!(message.chars().all(|c| !c.is_control()), "{message:?}");
            assert!(message.len() <= MESSAGE_BYTES_MAX, "{} bytes of message", message.len());
        }
    }
}
