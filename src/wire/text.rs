//! The padding of a text field and how its bytes are shown: keeps no text and knows no field.

use std::fmt::{self, Write};

/// Bytes of a word that are quoted at most.
const QUOTED_BYTES: usize = 64;

/// The bytes that a text is padded with at its end, in any mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Padding {
    /// 0x00 is padding.
    pub nul: bool,
    /// 0x20 is padding.
    pub space: bool,
}

impl Padding {
    /// 0x00 and 0x20.
    pub const BOTH: Padding = Padding { nul: true, space: true };
    /// Nothing: a value is its whole field.
    pub const NONE: Padding = Padding { nul: false, space: false };

    /// Whether a byte at the end of a field is padding.
    pub fn has(self, byte: u8) -> bool {
        byte == 0x00 && self.nul || byte == 0x20 && self.space
    }
}

/// The value of a padded field: the field without its trailing run of padding. Bytes inside the
/// value stay, whatever they are.
pub(crate) fn trim_padding(field: &[u8], padding: Padding) -> &[u8] {
    // Eight bytes are padding when the whole word is zero after these: to clear bit 5 makes 0x20 a
    // 0x00 and no other byte one. Fields are mostly padding: this takes a dozen steps where bytes
    // took 256.
    const SPACES: u64 = 0x2020_2020_2020_2020;
    let (flip, keep) = match padding {
        Padding { nul: true, space: true } => (0, !SPACES),
        Padding { nul: true, space: false } => (0, !0),
        Padding { nul: false, space: true } => (SPACES, !0),
        Padding { nul: false, space: false } => return field,
    };
    let mut end = field.len();
    // Four words at a time, which compilers make vector instructions of.
    while let Some(block) = field[..end].last_chunk::<32>() {
        let (words, _) = block.as_chunks::<8>();
        let all = words.iter().fold(0, |all, word| all | (u64::from_ne_bytes(*word) ^ flip));
        if all & keep != 0 {
            break;
        }
        end -= 32;
    }
    while let Some(word) = field[..end].last_chunk::<8>() {
        if (u64::from_ne_bytes(*word) ^ flip) & keep != 0 {
            break;
        }
        end -= 8;
    }
    while end > 0 && padding.has(field[end - 1]) {
        end -= 1;
    }
    &field[..end]
}

/// Shows bytes on one line of printable ASCII, so that distinct bytes stay distinct: a backslash
/// as `\\`, a byte that is not printable ASCII as `\xNN`. Nothing a peer sends reaches a terminal
/// or a log in another form.
pub(crate) struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                0x20..=0x7e => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

/// A word as it is quoted: in printable ASCII, and not longer than a line.
pub(crate) fn quoted(word: &str) -> String {
    format!("\"{}\"", printable(word))
}

/// A word in printable ASCII, and not longer than a line.
pub(crate) fn printable(word: &str) -> String {
    let bytes = word.as_bytes();
    let end = if bytes.len() > QUOTED_BYTES { "..." } else { "" };
    format!("{}{end}", Escaped(&bytes[..bytes.len().min(QUOTED_BYTES)]))
}

/// The bytes that are shown as `shown`: the way back from [`Escaped`]. What it never shows, such
/// as a backslash alone, stays as it is.
pub(crate) fn unescape(shown: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(shown.len());
    let mut rest = shown.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, taken) = match after {
            [b'\\', ..] if *first == b'\\' => (b'\\', 2),
            [b'x', high, low, ..] if *first == b'\\' => match (nibble(*high), nibble(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (*first, 1),
            },
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trim_bytewise(field: &[u8]) -> Vec<u8> {
        let mut value = field.to_vec();
        while value.last() == Some(&0) || value.last() == Some(&b' ') {
            value.pop();
        }
        value
    }

    #[test]
    fn padding_goes_and_inner_bytes_stay() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"", b""),
            (b"        ", b""),
            (b"abc\0\0   \0", b"abc"),
            (b"a\0b c\0 ", b"a\0b c"),
            (b"  lead", b"  lead"),
            (b"\x80\x40\x60\x01                ", b"\x80\x40\x60\x01"),
            (b"12345678\0\0\0\0\0\0\0\0", b"12345678"),
            (&[b'x'; 256], &[b'x'; 256]),
        ];
        for (field, value) in cases {
            assert_eq!(trim_padding(field, Padding::BOTH), value);
        }
    }

    #[test]
    fn escapes_keep_distinct_bytes_distinct() {
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=255u8 {
            let shown = Escaped(&[byte]).to_string();
            assert!(shown.bytes().all(|b| (0x20..0x7f).contains(&b)), "{shown:?}");
            assert!(seen.insert(shown));
        }
        assert_eq!(Escaped(b"a\\x00\x00\x1b[31m").to_string(), "a\\\\x00\\x00\\x1b[31m");
    }

    #[test]
    fn quoted_words_are_printable_and_short() {
        assert_eq!(quoted("a\u{1b}\"é"), "\"a\\x1b\"\\xc3\\xa9\"");
        assert!(quoted(&"x".repeat(1000)).len() < 80);
    }

    proptest! {
        #[test]
        fn what_is_shown_leads_back_to_the_bytes(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'0')], 0..40)
        ) {
            prop_assert_eq!(unescape(&Escaped(&bytes).to_string()), bytes);
        }

        #[test]
        fn what_is_never_shown_does_not_panic(shown in "[\\\\x0-9a-fg\u{e9}]{0,12}") {
            let _ = unescape(&shown);
        }

        #[test]
        fn trimming_equals_the_bytewise_way(
            field in proptest::collection::vec(
                prop_oneof![Just(0u8), Just(0x20), any::<u8>()],
                0..300,
            )
        ) {
            prop_assert_eq!(trim_padding(&field, Padding::BOTH), trim_bytewise(&field));
        }
    }
}
