//! CPU lists in the form that `taskset -c` takes. Does not check which cores exist.

use crate::wire::text::quoted;

/// Highest core number accepted: the most that a CPU mask of the C library holds (`CPU_SETSIZE`).
pub(crate) const CORE_MAX: usize = 1023;

/// The requested cores; empty means all that the process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuList(pub Vec<usize>);

/// Parses `all`, or numbers and ranges such as `0,2-5,8-14:2`, into ascending cores without
/// duplicates.
///
/// # Errors
/// Names the part that is wrong.
pub(crate) fn parse(text: &str) -> Result<CpuList, String> {
    if text.trim() == "all" {
        return Ok(CpuList::default());
    }
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once(':') {
            Some((range, step)) => (range, number(step)?),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(format!("range {} runs backwards", quoted(range)));
        }
        if step == 0 {
            return Err(format!("the step in {} is 0", quoted(part)));
        }
        cores.extend((first..=last).step_by(step));
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(CpuList(cores))
}

fn number(text: &str) -> Result<usize, String> {
    let number = text.trim().parse::<usize>().ok().filter(|&core| core <= CORE_MAX);
    number.ok_or_else(|| {
        let text = quoted(text);
        format!("{text} is not a core number (0-{CORE_MAX}); write e.g. 0,2-5 or all")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_taskset_takes_them() {
        for (text, cores) in [
            ("0", vec![0]),
            ("0,2-5", vec![0, 2, 3, 4, 5]),
            ("5-6,0,5", vec![0, 5, 6]),
            ("0-10:4", vec![0, 4, 8]),
            (" 1 , 3 ", vec![1, 3]),
            ("1023", vec![1023]),
            ("all", vec![]),
        ] {
            assert_eq!(parse(text), Ok(CpuList(cores)), "{text}");
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        for text in ["", ",", "a", "1-", "-1", "3-1", "0-4:0", "1024", "0-9999999999", "0x1", "1;2"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_is_short_and_printable() {
        let long = "7".repeat(1000);
        for text in ["5-\x0c3", "0-4\n:0", "\u{1b}[31m", &long] {
            let message = parse(text).unwrap_err();
            assert!(message.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{message:?}");
            assert!(message.len() < 200, "{message}");
        }
    }
}
