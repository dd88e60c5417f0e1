//! Texts of peers: values must not change by being shown and read back, nothing shown may steer a
//! terminal, and padding must end where a byte-by-byte look says.

use crate::wire::text::{Escaped, Padding, ShownText, TextEncoding, trim_padding, unescape};

pub(super) fn run(data: &[u8]) {
    let escaped = Escaped(data).to_string();
    assert!(escaped.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    assert_eq!(unescape(&escaped), data);
    let shown = ShownText(data, TextEncoding::Utf8).to_string();
    assert!(shown.chars().all(|c| !c.is_control()), "{}", shown.escape_debug());
    assert_eq!(unescape(&shown), data);
    let latin1: String = data.iter().map(|&byte| char::from(byte)).collect();
    let shown = ShownText(data, TextEncoding::Latin1).to_string();
    assert!(shown.chars().all(|c| !c.is_control()), "{}", shown.escape_debug());
    assert_eq!(unescape(&shown), latin1.as_bytes());
    for (nul, space) in [(false, false), (false, true), (true, false), (true, true)] {
        let is_padding = |byte: &u8| *byte == 0 && nul || *byte == b' ' && space;
        let end = data.iter().rposition(|byte| !is_padding(byte)).map_or(0, |last| last + 1);
        assert_eq!(trim_padding(data, Padding { nul, space }), &data[..end]);
    }
}
