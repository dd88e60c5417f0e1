//! Parses a schema given on the command line: Python's struct notation plus lists of names. Errors
//! point at the offending character. The caller parses the options themselves.

use super::complaint::Complaint;
use super::{At, Broken, Endian, Framing, Kind, Schema, words};
use crate::config::limits::{RECORD_BYTES_MAX, SCHEMA_FIELDS_MAX, SHORT_TEXT_BYTES};
use crate::wire::text::counted;
use crate::wire::text::{Padding, TextEncoding, printable, quoted};
use std::ops::Range;

/// A schema given by four options.
#[derive(Clone, Copy, Debug)]
pub struct Notation<'a> {
    /// `--struct`: the types, such as `>IHfb256s`.
    pub format: &'a str,
    /// `--fields`: a name for every type except `x`, separated by commas. Behind the name of an `s`
    /// may stand what it is: `ip:bytes`, `unit:text`, `city:latin1`.
    pub fields: &'a str,
    /// `--by`: the names of the fields to group by.
    pub by: &'a str,
    /// `--agg`: the other columns of the result, such as `B:mean`.
    pub aggregates: Option<&'a str>,
}

/// The name of a schema built from options.
pub const NAME: &str = "struct";

type NotationFault = (&'static str, Range<usize>, String);

const STRUCT: &str = "--struct";
const FIELDS: &str = "--fields";
const BY: &str = "--by";
const AGG: &str = "--agg";

impl Notation<'_> {
    /// Builds the schema. It has the default framing: a u32 length that counts itself, in the byte
    /// order of the record, and the all-zero record at the end.
    ///
    /// # Errors
    /// Names the option and the character that is wrong, and says why.
    pub fn schema(&self) -> Result<Schema, String> {
        self.schema_and_doubts().map(|(schema, _)| schema)
    }

    /// The same, with a sentence about each key that may not be what it is taken for.
    ///
    /// # Errors
    /// As [`schema`](Self::schema).
    pub(crate) fn schema_and_doubts(&self) -> Result<(Schema, Vec<String>), String> {
        self.read().map_err(|(option, span, problem)| {
            let text = match option {
                STRUCT => self.format,
                FIELDS => self.fields,
                BY => self.by,
                _ => self.aggregates.unwrap_or_default(),
            };
            Complaint::new(text, span, problem).in_option(option)
        })
    }

    fn read(&self) -> Result<(Schema, Vec<String>), NotationFault> {
        let (endian, mut items) = items(self.format).map_err(|(span, why)| (STRUCT, span, why))?;
        let listed = list(FIELDS, self.fields)?;
        let names = listed.iter().map(|(name, span)| {
            let name = name.split_once(':').map_or(*name, |(name, _)| name);
            (name, span.start..span.start + name.len())
        });
        let names: Names<'_> = names.collect();
        let named = items.iter().filter(|item| !matches!(item.kind, Kind::Skip { .. }));
        let named: Vec<&Item> = named.collect();
        if let Some(item) = named.get(names.len()) {
            let why = format!(
                "this is field {} of {}, but {FIELDS} has {}; every code except x needs one",
                names.len() + 1,
                named.len(),
                counted(names.len(), "name")
            );
            return Err((STRUCT, item.span.clone(), why));
        }
        if let Some((_, span)) = names.get(named.len()) {
            let why = format!(
                "{}, but {STRUCT} has {}; x takes no name, and 16s is one field",
                counted(names.len(), "name"),
                counted(named.len(), "field")
            );
            return Err((FIELDS, span.clone(), why));
        }
        let named = items.iter_mut().filter(|item| !matches!(item.kind, Kind::Skip { .. }));
        for (item, listed) in named.zip(&listed) {
            item.say(listed)?;
        }
        let mut rest = names.iter();
        let fields: Vec<(String, Kind)> = items
            .iter()
            .map(|item| match item.kind {
                Kind::Skip { .. } => (String::new(), item.kind),
                // The counts were compared above.
                kind => (rest.next().map_or("", |(name, _)| name).to_owned(), kind),
            })
            .collect();
        let by = list(BY, self.by)?;
        let keys = each(BY, &by, |name| words::field(name, &fields))?;
        let of_agg = self.aggregates.map_or(Ok(Vec::new()), |text| list(AGG, text))?;
        let aggregates = each(AGG, &of_agg, |text| words::aggregate(text, &fields))?;
        let framing = Framing { endian, ..Framing::default() };
        let is_key = |index: &usize| keys.contains(index);
        let doubts = items.iter().enumerate().filter(|(index, _)| is_key(index));
        let doubts = doubts.filter_map(|(index, item)| item.doubt(&fields[index].0)).collect();
        let schema =
            Schema::new(NAME.to_owned(), endian, framing, fields.clone(), keys, aggregates)
                .map_err(|broken| self.place(broken, &items, &[&names, &by, &of_agg]))?;
        let encodings = items.iter().map(|item| item.encoding).enumerate();
        let schema = encodings.fold(schema, |schema, (field, of)| schema.with_encoding(field, of));
        Ok((schema, doubts))
    }

    /// Maps a broken rule to its option and characters.
    fn place(&self, broken: Broken, items: &[Item], lists: &[&Names<'_>; 3]) -> NotationFault {
        let [names, by, listed] = lists;
        let Broken { at, rule } = broken;
        match at {
            At::Field(i) => {
                let is_named = |item: &&Item| !matches!(item.kind, Kind::Skip { .. });
                let place = items[..i].iter().filter(is_named).count();
                match names.get(place) {
                    Some((_, span)) if is_named(&&items[i]) => (FIELDS, span.clone(), rule),
                    _ => (STRUCT, items[i].span.clone(), rule),
                }
            }
            At::Key(i) => (BY, by[i].1.clone(), rule),
            At::Keys => (BY, 0..self.by.len(), rule),
            At::Aggregate(i) => (AGG, listed[i].1.clone(), rule),
            At::Aggregates => (AGG, 0..self.aggregates.map_or(0, str::len), rule),
            At::Name | At::Framing | At::Fields => (STRUCT, 0..self.format.len(), rule),
        }
    }
}

type Names<'a> = Vec<(&'a str, Range<usize>)>;

/// The items of a comma-separated list, without the spaces around them.
fn list<'a>(option: &'static str, text: &'a str) -> Result<Names<'a>, NotationFault> {
    let mut names = Vec::new();
    let mut start = 0;
    for piece in text.split(',') {
        let name = piece.trim();
        let from = start + piece.len() - piece.trim_start().len();
        let span = from..from + name.len();
        if name.is_empty() {
            let why = "a name is missing here; separate names with one comma, as in A,E";
            return Err((option, span, why.to_owned()));
        }
        names.push((name, span));
        start += piece.len() + 1;
    }
    Ok(names)
}

fn each<T>(
    option: &'static str,
    names: &Names<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, NotationFault> {
    let read = |(name, span): &(&str, Range<usize>)| {
        read(name).map_err(|problem| (option, span.clone(), problem))
    };
    names.iter().map(read).collect()
}

/// A field and the code it comes from.
struct Item {
    kind: Kind,
    encoding: TextEncoding,
    span: Range<usize>,
    /// Whether `--fields` says what it is.
    is_said: bool,
}

impl Item {
    fn new(kind: Kind, span: Range<usize>) -> Self {
        Item { kind, encoding: TextEncoding::default(), span, is_said: false }
    }

    /// Takes what a name in `--fields` says about an `s`.
    fn say(&mut self, (listed, span): &(&str, Range<usize>)) -> Result<(), NotationFault> {
        let Some((name, what)) = listed.split_once(':') else { return Ok(()) };
        let at = span.start + name.len() + 1..span.end;
        let Kind::Text { bytes, .. } = self.kind else {
            let why = format!(
                "only an s can be text or bytes, and \"{}\" is {}; leave this out",
                printable(name),
                self.kind.name()
            );
            return Err((FIELDS, at, why));
        };
        self.is_said = true;
        match what {
            "text" => {}
            "bytes" => self.kind = Kind::Bytes { bytes },
            "latin1" => self.encoding = TextEncoding::Latin1,
            _ => {
                let meant = words::meant(what, ["text", "bytes", "latin1"]);
                let why = format!(
                    "an s is text (in UTF-8), latin1 (text in Latin-1) or bytes, not {}{meant}",
                    quoted(what)
                );
                return Err((FIELDS, at, why));
            }
        }
        Ok(())
    }

    /// What is in doubt if it is a key of this name.
    fn doubt(&self, name: &str) -> Option<String> {
        let Kind::Text { bytes, .. } = self.kind else { return None };
        (!self.is_said && bytes <= SHORT_TEXT_BYTES).then(|| {
            format!(
                "the key {name} is {bytes}s, which is taken for text: values that differ only in \
                 NULs and spaces at the end are one group, such as the IPv4 addresses 10.0.0.0 and \
                 10.0.0.32. In --fields, write {name}:bytes if it is binary, or {name}:text"
            )
        })
    }
}

/// The byte order and the fields of a format, in Python's standard sizes.
fn items(format: &str) -> Result<(Endian, Vec<Item>), (Range<usize>, String)> {
    let endian = match format.chars().next() {
        Some('>' | '!') => Endian::Big,
        Some('<') => Endian::Little,
        first => {
            let why = "the first character sets the byte order: \">\" or \"!\" for \
                       big-endian, \"<\" for little-endian. With \"@\", \"=\" or none, \
                       sizes and order differ between machines";
            let is_wrong = matches!(first, Some('@' | '='));
            return Err((0..usize::from(is_wrong), why.to_owned()));
        }
    };
    let mut items = Vec::new();
    let mut rest = format[1..].char_indices().map(|(at, code)| (at + 1, code)).peekable();
    while let Some((start, first)) = rest.next() {
        if first.is_ascii_whitespace() {
            continue;
        }
        let (mut count, mut code, mut end) = (None, first, start);
        while code.is_ascii_digit() {
            // Saturating is fine: no record may have that many fields or bytes.
            let number = count.unwrap_or(0_usize).saturating_mul(10);
            count = Some(number.saturating_add(code as usize - '0' as usize));
            let Some((at, next)) = rest.next() else {
                return Err((
                    start..format.len(),
                    "a number must be followed by a type".to_owned(),
                ));
            };
            (code, end) = (next, at);
        }
        let span = start..end + code.len_utf8();
        if count == Some(0) && !matches!(code, 'x' | 's') && kind_of(code, None).is_ok() {
            return Err((span, no_alignment(code, &items)));
        }
        let (kind, fields) = kind_of(code, count).map_err(|why| (span.clone(), why))?;
        if fields > SCHEMA_FIELDS_MAX - items.len() {
            let why = format!("this makes more than {SCHEMA_FIELDS_MAX} fields");
            return Err((span, why));
        }
        items.extend((0..fields).map(|_| Item::new(kind, span.clone())));
    }
    if items.is_empty() {
        let why = "no fields; list the type of each, as in >IHfb256s";
        return Err((0..format.len(), why.to_owned()));
    }
    Ok((endian, items))
}

/// The message for a count of 0, with which Python aligns the end of a native struct.
fn no_alignment(code: char, items: &[Item]) -> String {
    let width = kind_of(code, None).map_or(1, |(kind, _)| kind.width());
    let bytes: usize = items.iter().map(|item| item.kind.width()).sum();
    let begin = format!("0{code} makes no field, and nothing is aligned after \"<\" or \">\"");
    match bytes.next_multiple_of(width) - bytes {
        0 => format!("{begin}; leave it out"),
        gap => format!("{begin}; write {gap}x for the gap that a compiler would leave"),
    }
}

/// The type that a code stands for with the number before it, and how many such fields it makes.
fn kind_of(code: char, count: Option<usize>) -> Result<(Kind, usize), String> {
    let count_or_one = count.unwrap_or(1);
    let bytes = count_or_one;
    let kind = match code {
        'x' => Kind::Skip { bytes },
        's' => Kind::Text { bytes, padding: Padding::BOTH },
        'c' => Kind::Bytes { bytes: 1 },
        'b' => Kind::I8,
        'B' => Kind::U8,
        '?' => Kind::Bool,
        'h' => Kind::I16,
        'H' => Kind::U16,
        'i' | 'l' => Kind::I32,
        'I' | 'L' => Kind::U32,
        'q' => Kind::I64,
        'Q' => Kind::U64,
        'f' => Kind::F32,
        'd' => Kind::F64,
        'e' => return Err("e (2-byte float) is not supported; skip it with 2x".to_owned()),
        'p' => {
            // It begins with its length, which the number includes.
            let instead = match count_or_one {
                0 | 1 => "B".to_owned(),
                bytes => format!("B{}s", bytes - 1),
            };
            return Err(format!(
                "p (Pascal string) is not supported; write {instead}: a length, and a text that \
                 the sender must pad with zeros"
            ));
        }
        'n' | 'N' | 'P' => {
            return Err(format!(
                "the size of {code} differs between machines; write q or Q for 8 bytes, i or I \
                 for 4"
            ));
        }
        '>' | '<' | '!' | '=' | '@' => {
            return Err("the byte order is set once, by the first character".to_owned());
        }
        _ => {
            return Err(format!(
                "unknown type {}; expected one of x c b B ? h H i I l L q Q f d s",
                quoted(code.encode_utf8(&mut [0; 4]))
            ));
        }
    };
    if count_or_one == 0 || kind.width() > RECORD_BYTES_MAX {
        let number = count_or_one.min(RECORD_BYTES_MAX + 1);
        let more = if number > RECORD_BYTES_MAX { " or more" } else { "" };
        return Err(format!(
            "a count of {number}{more} before {code}; a field has 1 to {RECORD_BYTES_MAX} bytes"
        ));
    }
    // The number before x and s is a width; before any other code it is a count of fields.
    let fields = if matches!(code, 'x' | 's') { 1 } else { count_or_one };
    Ok((kind, fields))
}

#[cfg(test)]
#[path = "notation_tests.rs"]
mod tests;
