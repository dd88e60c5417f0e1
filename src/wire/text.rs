//! Strips the padding of text fields, shows their values as text, and escapes bytes for display.
//! Stores no text and knows nothing of schemas.

pub(crate) use crate::config::{counted, time_text};
use std::cmp::Ordering;
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

/// How the sender encodes a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TextEncoding {
    /// UTF-8. ASCII is a part of it.
    #[default]
    Utf8,
    /// ISO 8859-1: each byte is the character with its number.
    Latin1,
}

/// Displays the value of a text field as results have it: printable text is itself, a backslash is
/// `\\`, and each byte of anything else is `\xNN`. Latin-1 is converted to UTF-8 first. Distinct
/// values stay distinct, and `unescape` gives the UTF-8 bytes back.
///
/// What is printable is fixed here instead of by the release of Unicode that a library knows, so
/// that partials of all nodes show a value in the same form.
pub struct ShownText<'a>(pub &'a [u8], pub TextEncoding);

impl fmt::Display for ShownText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShownText(bytes, encoding) = *self;
        if encoding == TextEncoding::Latin1 {
            return bytes.iter().try_for_each(|&byte| show(char::from(byte), f));
        }
        for chunk in bytes.utf8_chunks() {
            chunk.valid().chars().try_for_each(|character| show(character, f))?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

fn show(character: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match character {
        '\\' => f.write_str("\\\\"),
        ' '..='~' => f.write_char(character),
        _ if is_printable(character) => f.write_char(character),
        _ => {
            let mut utf8 = [0; 4];
            let utf8 = character.encode_utf8(&mut utf8);
            utf8.bytes().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        }
    }
}

/// Characters beyond ASCII that are not shown as themselves: controls, formatting such as
/// zero-width characters and changes of direction, spaces and line ends other than the ASCII
/// space, whatever is ignored by default, private use, and planes without scripts.
const HIDDEN: [(u32, u32); 34] = [
    (0x0080, 0x00a0),
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x0600, 0x0605),
    (0x061c, 0x061c),
    (0x06dd, 0x06dd),
    (0x070f, 0x070f),
    (0x0890, 0x0891),
    (0x08e2, 0x08e2),
    (0x115f, 0x1160),
    (0x1680, 0x1680),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x2000, 0x200f),
    (0x2028, 0x202f),
    (0x205f, 0x206f),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xe000, 0xf8ff),
    (0xfdd0, 0xfdef),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0xfffe, 0xffff),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0x1fffe, 0x1ffff),
    (0x2fffe, 0x2ffff),
    (0x3fffe, 0x3ffff),
    (0x40000, 0x10ffff),
];

/// Whether a character has a glyph of its own and steers nothing.
fn is_printable(character: char) -> bool {
    let code = u32::from(character);
    let place = HIDDEN.binary_search_by(|&(first, last)| match () {
        () if last < code => Ordering::Less,
        () if first > code => Ordering::Greater,
        () => Ordering::Equal,
    });
    !character.is_ascii_control() && place.is_err()
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

/// The bytes that [`Escaped`] or [`ShownText`] shows as `shown`: the inverse of both. Input that
/// they never produce, such as a lone backslash, is kept as it is.
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

/// Whether a PEM file has a private key that is encrypted with a password, in the form of PKCS #8
/// or in OpenSSL's older one.
pub(crate) fn has_encrypted_key(pem: &[u8]) -> bool {
    const MARKS: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
    MARKS.iter().any(|mark| memchr::memmem::find(pem, mark).is_some())
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

    fn shown(bytes: &[u8]) -> String {
        ShownText(bytes, TextEncoding::Utf8).to_string()
    }

    #[test]
    fn printable_text_is_itself_and_everything_else_is_escaped() {
        for text in
            ["", "Zürich", "東京", "Ελλάδα", "a\u{301}", "שלום", "😀", "naïve ~", "\u{fffd}"]
        {
            assert_eq!(shown(text.as_bytes()), text);
        }
        let cases: [(&[u8], &str); 13] = [
            (b"a\\b", r"a\\b"),
            (b"\\xc3", r"\\xc3"),
            ("\u{1b}[31m".as_bytes(), r"\x1b[31m"),
            ("a\u{202e}b".as_bytes(), r"a\xe2\x80\xaeb"),
            ("\u{2066}\u{200f}".as_bytes(), r"\xe2\x81\xa6\xe2\x80\x8f"),
            ("\u{200b}\u{feff}".as_bytes(), r"\xe2\x80\x8b\xef\xbb\xbf"),
            ("\u{85}\u{a0}\u{ad}".as_bytes(), r"\xc2\x85\xc2\xa0\xc2\xad"),
            ("\u{2028}\t\r\n\u{7f}".as_bytes(), r"\xe2\x80\xa8\x09\x0d\x0a\x7f"),
            ("\u{e000}\u{e0041}".as_bytes(), r"\xee\x80\x80\xf3\xa0\x81\x81"),
            // Cut in the middle of a character, too long a form, a surrogate.
            (b"Z\xc3", r"Z\xc3"),
            (b"\xe6\x9d\xb1\xe4\xba", "\u{6771}\\xe4\\xba"),
            (b"\xc0\xaf", r"\xc0\xaf"),
            (b"\xed\xa0\x80\xff", r"\xed\xa0\x80\xff"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(shown(bytes), expected);
        }
    }

    #[test]
    fn latin_1_is_shown_as_the_text_that_it_means() {
        let latin1 = |bytes: &[u8]| ShownText(bytes, TextEncoding::Latin1).to_string();
        assert_eq!(latin1(b"Z\xfcrich \\ \xb5"), r"Zürich \\ µ");
        assert_eq!(latin1(b"\x85\xa0\xad\x00"), r"\xc2\x85\xc2\xa0\xc2\xad\x00");
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=255u8 {
            let text = char::from(byte).to_string();
            let shown = latin1(&[byte]);
            assert_eq!(unescape(&shown), text.as_bytes());
            assert!(seen.insert(shown));
        }
    }

    /// What the standard library escapes when it quotes a text is what its Unicode calls not
    /// printable. It escapes whatever it does not know, too, so only the reverse must hold.
    #[test]
    fn nothing_that_is_shown_can_steer_a_terminal() {
        assert!(HIDDEN.is_sorted_by(|left, right| left.1 < right.0));
        for code in 0..=u32::from(char::MAX) {
            let Some(character) = char::from_u32(code) else { continue };
            let steers = character.is_control()
                || character.is_whitespace() && character != ' '
                || matches!(code, 0x61c | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f)
                || matches!(code, 0xad | 0xfe00..=0xfe0f | 0xfeff | 0xfff9..=0xfffb)
                || matches!(code, 0xe0000..=0xe0fff);
            assert!(!(steers && is_printable(character)), "U+{code:04X}");
        }
    }

    proptest! {
        #[test]
        fn showing_a_text_loses_nothing(
            pieces in proptest::collection::vec(
                prop_oneof![
                    "[\\\\xéü東\u{202e}a0-9]{1,3}".prop_map(String::into_bytes),
                    proptest::collection::vec(any::<u8>(), 1..3),
                    any::<char>().prop_map(|one| one.to_string().into_bytes()),
                ],
                0..8,
            )
        ) {
            let bytes = pieces.concat();
            let shown = shown(&bytes);
            prop_assert_eq!(unescape(&shown), bytes);
            prop_assert!(shown.chars().all(is_printable), "{:?}", shown);
        }

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
