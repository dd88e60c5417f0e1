//! Strips the padding of text fields and escapes bytes for display. Stores no text and knows
//! nothing of schemas.

use std::fmt::{self, Write};

/// Longest part of a word, in bytes, that is quoted.
const QUOTED_BYTES: usize = 64;

/// Which bytes pad the end of a text field, in any mix.
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
    /// No padding: the value is the whole field.
    pub const NONE: Padding = Padding { nul: false, space: false };

    /// Whether this byte is padding when it ends a field.
    pub fn has(self, byte: u8) -> bool {
        byte == 0x00 && self.nul || byte == 0x20 && self.space
    }
}

/// The value of a padded field: the field without its trailing run of padding. Padding bytes inside
/// the value stay.
pub fn trim_padding(field: &[u8], padding: Padding) -> &[u8] {
    // A word of eight bytes is all padding if `(word ^ flip) & keep` is zero. Clearing bit 5 maps
    // 0x20 to 0x00 and no other non-zero byte. Fields are mostly padding, so this takes a dozen
    // steps where going byte by byte would take 256.
    const SPACES: u64 = 0x2020_2020_2020_2020;
    let (flip, keep) = match padding {
        Padding { nul: true, space: true } => (0, !SPACES),
        Padding { nul: true, space: false } => (0, !0),
        Padding { nul: false, space: true } => (SPACES, !0),
        Padding { nul: false, space: false } => return field,
    };
    let mut end = field.len();
    // Four words at a time, which the compiler turns into vector instructions.
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

/// Displays bytes on one line of printable ASCII so that distinct bytes stay distinct: a backslash
/// as `\\`, a byte that is not printable ASCII as `\xNN`. Bytes from a peer reach a terminal or a
/// log in no other form.
pub struct Escaped<'a>(pub &'a [u8]);

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

/// A word in double quotes, escaped to printable ASCII and cut to fit a line.
pub(crate) fn quoted(word: &str) -> String {
    format!("\"{}\"", printable(word))
}

/// A word escaped to printable ASCII and cut to fit a line.
pub(crate) fn printable(word: &str) -> String {
    let bytes = word.as_bytes();
    let end = if bytes.len() > QUOTED_BYTES { "..." } else { "" };
    format!("{}{end}", Escaped(&bytes[..bytes.len().min(QUOTED_BYTES)]))
}

/// The bytes that [`Escaped`] shows as `shown`, its inverse. Input that it never produces, such as
/// a lone backslash, is kept as it is.
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
    fn only_trailing_padding_is_trimmed() {
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
        fn unescaping_inverts_escaping(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'0')], 0..40)
        ) {
            prop_assert_eq!(unescape(&Escaped(&bytes).to_string()), bytes);
        }

        #[test]
        fn unescaping_any_text_does_not_panic(shown in "[\\\\x0-9a-fg\u{e9}]{0,12}") {
            let _ = unescape(&shown);
        }

        #[test]
        fn trimming_by_words_equals_trimming_by_bytes(
            field in proptest::collection::vec(
                prop_oneof![Just(0u8), Just(0x20), any::<u8>()],
                0..300,
            )
        ) {
            prop_assert_eq!(trim_padding(&field, Padding::BOTH), trim_bytewise(&field));
        }
    }
}
