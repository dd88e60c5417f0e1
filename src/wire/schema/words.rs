//! The vocabulary that both written forms of a schema share: types, functions and field names, with
//! suggestions for misspelled ones. Parses no document.

use super::{Aggregate, End, Endian, Function, Kind, Length};
use crate::wire::text::{Padding, TextEncoding};
use crate::wire::text::{printable, quoted};

/// The types of fields, in the order of the documents.
pub const TYPES: [&str; 14] = [
    "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64", "bool", "text", "bytes",
    "skip",
];
/// The types that need `bytes`, because they do not imply a width.
pub const TYPES_WITH_BYTES: [&str; 3] = ["text", "bytes", "skip"];
/// The words for byte orders.
pub const ENDIANS: [(&str, Endian); 2] = [("big", Endian::Big), ("little", Endian::Little)];
/// The words for the length prefix of a packet.
pub const LENGTHS: [(&str, Length); 3] =
    [("u32", Length::U32), ("u16", Length::U16), ("none", Length::None)];
/// The words for what ends a stream.
pub const ENDS: [(&str, End); 2] = [("zero-record", End::ZeroRecord), ("close", End::Close)];
/// The words for how a text is encoded.
pub const ENCODINGS: [(&str, TextEncoding); 2] =
    [("utf-8", TextEncoding::Utf8), ("latin1", TextEncoding::Latin1)];
/// The words for padding bytes.
pub const PADDINGS: [&str; 2] = ["nul", "space"];
/// The word for the aggregate that has no field.
pub const COUNT: &str = "count";

/// The type with this name, if any. `bytes` and `padding` apply to the types that need them.
pub fn kind(name: &str, bytes: usize, padding: Padding) -> Option<Kind> {
    Some(match name {
        "u8" => Kind::U8,
        "u16" => Kind::U16,
        "u32" => Kind::U32,
        "u64" => Kind::U64,
        "i8" => Kind::I8,
        "i16" => Kind::I16,
        "i32" => Kind::I32,
        "i64" => Kind::I64,
        "f32" => Kind::F32,
        "f64" => Kind::F64,
        "bool" => Kind::Bool,
        "text" => Kind::Text { bytes, padding },
        "bytes" => Kind::Bytes { bytes },
        "skip" => Kind::Skip { bytes },
        _ => return None,
    })
}

/// The word for this value in one of the lists above.
pub fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, named)| named == value).map_or("", |(word, _)| word)
}

/// The message for an unknown type. Names from C, Rust and other languages get their equivalent.
pub fn no_type(name: &str) -> String {
    let meant = match name.trim_end_matches("_t").trim_start_matches("std::") {
        "uint8" | "unsigned char" | "uchar" | "byte" => "u8".to_owned(),
        "uint16" | "ushort" | "unsigned short" | "be16" | "le16" => "u16".to_owned(),
        "uint32" | "uint" | "unsigned" | "unsigned int" | "be32" | "le32" => "u32".to_owned(),
        "uint64" | "ulong" | "size" | "usize" | "unsigned long long" => "u64".to_owned(),
        "int8" | "signed char" => "i8".to_owned(),
        "int16" | "short" => "i16".to_owned(),
        "int32" | "int" => "i32".to_owned(),
        "int64" | "long long" | "isize" | "ssize" => "i64".to_owned(),
        "long" | "unsigned long" => {
            return format!(
                "{name} has 8 bytes on 64-bit Linux and 4 elsewhere; write \"i64\", \"u64\", \
                 \"i32\" or \"u32\""
            );
        }
        "char" => {
            return "a char that holds a number is \"i8\", one that holds a letter is \"text\" with \
                    `bytes = 1`; for an array, `bytes` is its length"
                .to_owned();
        }
        "float" => "f32".to_owned(),
        "double" => "f64".to_owned(),
        "boolean" | "_Bool" => "bool".to_owned(),
        "string" | "str" | "char[]" | "char*" => "text".to_owned(),
        "pad" | "padding" | "pad_byte" | "gap" | "unused" | "reserved" => "skip".to_owned(),
        "binary" | "blob" | "u8[]" => "bytes".to_owned(),
        other => {
            if let Some(said) = no_width(other) {
                return format!(
                    "unknown type {}; {said} Types: {}",
                    quoted(name),
                    TYPES.join(", ")
                );
            }
            let meant = meant(other, TYPES);
            return format!("unknown type {}{meant} Types: {}", quoted(name), TYPES.join(", "));
        }
    };
    format!("unknown type {}; use \"{meant}\"", quoted(name))
}

/// What to do about a number of a width that no type has, such as `u24`.
fn no_width(name: &str) -> Option<String> {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let bits: usize = digits.parse().ok().filter(|bits| (1..=512).contains(bits))?;
    let widths = match name[..name.len() - digits.len()].to_ascii_lowercase().as_str() {
        "u" | "i" | "uint" | "int" => "integers have 8, 16, 32 or 64 bits.",
        "f" | "float" => "floats have 32 or 64 bits.",
        _ => return None,
    };
    if matches!(bits, 8 | 16 | 32 | 64) && !(widths.starts_with('f') && bits < 32) {
        return None;
    }
    if !bits.is_multiple_of(8) {
        return Some(format!("{widths} Fields have whole bytes."));
    }
    let bytes = bits / 8;
    Some(format!(
        "{widths} \"bytes\" with `bytes = {bytes}` keeps it as a key, \"skip\" leaves it out."
    ))
}

/// The index of the field with this name.
///
/// # Errors
/// Lists the fields that there are.
pub fn field(name: &str, fields: &[(String, Kind)]) -> Result<usize, String> {
    let found = fields.iter().position(|(known, _)| !known.is_empty() && known == name);
    found.ok_or_else(|| {
        // Names have not been validated yet, so they may hold anything.
        let names = fields.iter().map(|(name, _)| printable(name)).filter(|name| !name.is_empty());
        let names: Vec<String> = names.collect();
        let meant = meant(name, names.iter().map(String::as_str));
        let mut list: Vec<&str> = names.iter().take(17).map(String::as_str).collect();
        if list.len() > 16 {
            list[16] = "...";
        }
        format!("there is no field {}{meant} Fields: {}", quoted(name), list.join(", "))
    })
}

/// Parses an aggregate: `FIELD:FUNCTION` or `count`.
///
/// # Errors
/// Says what it must look like.
pub fn aggregate(text: &str, fields: &[(String, Kind)]) -> Result<Aggregate, String> {
    if text == COUNT {
        return Ok(Aggregate::Count);
    }
    let Some((name, function)) = text.split_once(':') else {
        return Err(format!(
            "{} is not an aggregate; write FIELD:FUNCTION, such as \"B:mean\", or \"count\"",
            quoted(text)
        ));
    };
    let field = field(name, fields)?;
    let names = Function::ALL.map(Function::name);
    let found = Function::ALL.into_iter().find(|known| known.name() == function);
    let function = found.ok_or_else(|| {
        let meant = match function {
            "avg" | "average" => "; did you mean \"mean\"?".to_owned(),
            "stddev" | "sd" => "; did you mean \"std\"?".to_owned(),
            "variance" => "; did you mean \"var\"?".to_owned(),
            "count" => "; \"count\" takes no field: write it alone.".to_owned(),
            _ => meant(function, names),
        };
        format!("unknown function {}{meant} Functions: {}", quoted(function), names.join(", "))
    })?;
    Ok(Aggregate::Of { field, function })
}

/// Ends a sentence with `; did you mean "X"?` if the word is close to one of these, else with a
/// full stop.
pub fn meant<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    // A longer word is no misspelling of a known one, and comparing it would take long.
    if word.len() > 80 {
        return ".".to_owned();
    }
    let lower = word.to_ascii_lowercase();
    let distances = words.into_iter().map(|known| (distance(&lower, known), known));
    match distances.min() {
        Some((edits, known)) if edits <= (known.len() / 3).clamp(1, 2) && edits < known.len() => {
            format!("; did you mean \"{known}\"?")
        }
        _ => ".".to_owned(),
    }
}

/// The edit distance between two words, ignoring case.
fn distance(lower: &str, other: &str) -> usize {
    let other = other.to_ascii_lowercase();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in lower.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_name() {
        for name in TYPES {
            let found = kind(name, 3, Padding::BOTH).unwrap();
            assert_eq!(found.name(), name);
            assert_eq!(found.width() == 3, TYPES_WITH_BYTES.contains(&name));
        }
        assert_eq!(kind("u128", 3, Padding::BOTH), None);
    }

    #[test]
    fn types_of_other_languages_get_their_equivalent() {
        let cases = [
            ("uint32_t", "u32"),
            ("std::int64_t", "i64"),
            ("unsigned char", "u8"),
            ("double", "use \"f64\""),
            ("long", "i32"),
            ("char", "bytes = 1"),
            ("U32", "u32"),
            ("flt32", "f32"),
            ("u24", "integers have 8, 16, 32 or 64 bits. \"bytes\" with `bytes = 3`"),
            ("int48_t", "`bytes = 6`"),
            ("u128", "`bytes = 16`"),
            ("i12", "whole bytes"),
            ("f16", "floats have 32 or 64 bits. \"bytes\" with `bytes = 2`"),
            ("f80", "`bytes = 10`"),
        ];
        for (word, here) in cases {
            let said = no_type(word);
            assert!(said.contains(here), "{word}: {said}");
        }
        assert!(!no_type("quaternion").contains("did you mean"));
        // The nearest word would be another number.
        for word in ["u24", "u128", "i12", "f16"] {
            assert!(!no_type(word).contains("did you mean"), "{}", no_type(word));
        }
    }

    #[test]
    fn only_close_words_are_suggested() {
        assert_eq!(meant("endain", ["endian", "name"]), "; did you mean \"endian\"?");
        assert_eq!(meant("BIG", ["big", "little"]), "; did you mean \"big\"?");
        assert_eq!(meant("x", ["A", "B"]), ".");
        assert_eq!(meant("a", ["A", "B"]), "; did you mean \"A\"?");
        assert_eq!(meant("middle", ["big", "little"]), ".");
        assert_eq!(meant(&"x".repeat(1 << 20), ["big"]), ".");
    }
}
