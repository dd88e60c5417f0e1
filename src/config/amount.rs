//! Amounts as people read them: numbers, and times with their units.

use std::fmt;
use std::time::Duration;

/// The value of an option that has a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// A number without a unit, or of bytes.
    Number(u64),
    /// A time.
    Time(Duration),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Number(number) => write!(f, "{number}"),
            Amount::Time(time) => f.write_str(&time_text(*time)),
        }
    }
}

/// A number with its noun, such as `1 byte`, `2 bytes`, `3 batches` and `4 replies`.
pub(crate) fn counted(number: impl fmt::Display, noun: &str) -> String {
    let number = number.to_string();
    match number.as_str() {
        "1" => format!("1 {noun}"),
        _ if noun.ends_with("ch") => format!("{number} {noun}es"),
        _ if noun.ends_with("ply") => format!("{number} {}ies", noun.trim_end_matches('y')),
        _ => format!("{number} {noun}s"),
    }
}

/// A time for people, such as `7 days` or `1min 30s`. Short units follow their number directly,
/// words after a blank.
pub(crate) fn time_text(time: Duration) -> String {
    let text = humantime::format_duration(time).to_string();
    let parts = text.split(' ').map(|part| {
        let number = part.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        match &part[number.len()..] {
            unit @ ("day" | "days" | "month" | "months" | "year" | "years") => {
                format!("{number} {unit}")
            }
            _ => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(0, "byte"), "0 bytes");
        assert_eq!(counted(1_u64, "more byte"), "1 more byte");
        assert_eq!(counted(21_usize, "byte"), "21 bytes");
        assert_eq!([1, 2].map(|n| counted(n, "batch")), ["1 batch", "2 batches"]);
        assert_eq!([1, 0].map(|n| counted(n, "reply")), ["1 reply", "0 replies"]);
    }

    #[test]
    fn words_for_times_follow_a_blank() {
        let day = 24 * 3600;
        for (seconds, text) in [
            (7 * day, "7 days"),
            (day + 7200, "1 day 2h"),
            (90, "1m 30s"),
            (0, "0s"),
            (40 * day, "1 month 9 days 13h 26m 24s"),
        ] {
            let time = Duration::from_secs(seconds);
            assert_eq!(time_text(time), text);
            // What is printed can be given to an option.
            assert_eq!(humantime::parse_duration(text), Ok(time));
        }
        assert_eq!(time_text(Duration::from_millis(1500)), "1s 500ms");
    }
}
