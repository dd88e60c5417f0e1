//! A schema from its TOML form: reads the text, and says of what it does not understand, and of
//! the rules that are broken, where it stands. Opens no file.

use super::complaint::Complaint;
use super::words::{ENDIANS, ENDS, LENGTHS, PADDINGS, TYPES_WITH_BYTES, word_of};
use super::{At, Broken, End, Endian, Framing, Kind, Length, Schema, words};
use crate::config::limits::RECORD_BYTES_MAX;
use crate::wire::text::Escaped;
use crate::wire::text::Padding;
use crate::wire::text::quoted;
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The built-in schema as it is written, with comments.
pub const DEFAULT_TOML: &str = include_str!("default.toml");
/// The name of a schema that gives itself none.
pub const NAME_BY_DEFAULT: &str = "record";

/// Keys of the whole, of `[packet]`, of a `[[field]]` and of `[result]`.
pub const KEYS: [(&str, &[&str]); 4] = [
    ("schema", &["name", "endian", "packet", "field", "result"]),
    ("packet", &["length", "length_includes_itself", "length_endian", "end"]),
    ("field", &["name", "type", "bytes", "padding"]),
    ("result", &["by", "aggregates"]),
];

impl Schema {
    /// The schema of [`DEFAULT_TOML`].
    pub fn built_in() -> Arc<Schema> {
        static BUILT_IN: LazyLock<Arc<Schema>> = LazyLock::new(|| {
            let schema = Schema::from_toml(DEFAULT_TOML);
            Arc::new(schema.unwrap_or_else(|error| panic!("{}", error.in_file("default.toml"))))
        });
        Arc::clone(&BUILT_IN)
    }

    /// A schema as it is written in TOML; docs/SCHEMA.md says how.
    ///
    /// # Errors
    /// The first thing that is wrong, and where it stands.
    pub fn from_toml(text: &str) -> Result<Schema, Complaint> {
        let document = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let problem = format!("this is no TOML: {}", Escaped(error.message().as_bytes()));
            Complaint::new(text, span, problem)
        })?;
        read(document.get_ref())
            .map_err(|TomlFault { span, problem }| Complaint::new(text, span, problem))
    }
}

/// What is wrong, and with which bytes.
struct TomlFault {
    span: Range<usize>,
    problem: String,
}

fn fault<T>(span: Range<usize>, problem: impl Into<String>) -> Result<T, TomlFault> {
    Err(TomlFault { span, problem: problem.into() })
}

type TomlValue<'a> = Spanned<DeValue<'a>>;

/// A table with the keys that it may have.
struct Section<'a> {
    /// What it is called in complaints.
    what: &'static str,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// # Errors
    /// The first key that it may not have.
    fn new(index: usize, span: Range<usize>, entries: &'a DeTable<'a>) -> Result<Self, TomlFault> {
        let (_, known) = KEYS[index];
        let what = ["a schema", "[packet]", "a [[field]]", "[result]"][index];
        let unknown = entries.keys().filter(|key| !known.contains(&&**key.get_ref()));
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            let word = key.get_ref();
            let meant = words::meant(word, known.iter().copied());
            let problem =
                format!("{what} has no key {}{meant} Keys: {}", quoted(word), known.join(", "));
            return fault(key.span(), problem);
        }
        Ok(Section { what, span, entries })
    }

    fn get(&self, key: &str) -> Option<&'a TomlValue<'a>> {
        self.entries.get(key)
    }

    /// A value that must be there.
    fn need(&self, key: &str, example: &str) -> Result<&'a TomlValue<'a>, TomlFault> {
        match self.get(key) {
            Some(value) => Ok(value),
            None => {
                fault(self.span.clone(), format!("{} needs `{key}`, as in {example}", self.what))
            }
        }
    }

    /// A word out of a list.
    fn word<T: Copy>(
        &self,
        key: &str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, TomlFault> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = string(key, value)?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, named)) => Ok(Some(*named)),
            None => {
                let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let meant = words::meant(text, names.iter().copied());
                let problem = format!(
                    "`{key}` is one of \"{}\", and not {}{meant}",
                    names.join("\", \""),
                    quoted(text)
                );
                fault(value.span(), problem)
            }
        }
    }
}

/// What a value is, for those who wrote another.
fn wrong_type<T>(key: &str, value: &TomlValue<'_>, wanted: &str) -> Result<T, TomlFault> {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    fault(value.span(), format!("`{key}` is {wanted}; this is {found}"))
}

fn string<'a>(key: &str, value: &'a TomlValue<'_>) -> Result<&'a str, TomlFault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => wrong_type(key, value, "a string, in double quotes"),
    }
}

/// Strings with where they stand.
type Strings<'a> = Vec<(&'a str, Range<usize>)>;

fn strings<'a>(
    key: &str,
    value: &'a TomlValue<'_>,
    example: &str,
) -> Result<Strings<'a>, TomlFault> {
    let DeValue::Array(values) = value.get_ref() else {
        return wrong_type(key, value, &format!("a list, such as {example}"));
    };
    let each = values.iter().map(|value| match value.get_ref() {
        DeValue::String(text) => Ok((&**text, value.span())),
        _ => wrong_type(key, value, &format!("a list of strings, such as {example}")),
    });
    each.collect()
}

/// A field, and where it and its name stand.
struct FieldText {
    name: String,
    kind: Kind,
    span: Range<usize>,
    name_span: Option<Range<usize>>,
}

fn read(document: &DeTable<'_>) -> Result<Schema, TomlFault> {
    let top = Section::new(0, 0..0, document)?;
    let name = top.get("name").map(|value| string("name", value)).transpose()?;
    let endian = top.word("endian", &ENDIANS)?;
    let field_texts = read_fields(&top)?;
    let framing = read_framing(&top, endian)?;
    let endian = needed_endian(endian, &field_texts)?;
    let fields: Vec<(String, Kind)> =
        field_texts.iter().map(|field| (field.name.clone(), field.kind)).collect();

    let result = top.need("result", "a line [result], and below it by = [\"A\"]")?;
    let result = section(3, "result", result)?;
    let by_value = result.need("by", "by = [\"A\", \"E\"]")?;
    let by = strings("by", by_value, "[\"A\", \"E\"]")?;
    let keys = each(&by, |name| words::field(name, &fields))?;
    let listed_value = result.get("aggregates");
    let listed = match listed_value {
        Some(value) => strings("aggregates", value, "[\"B:mean\", \"count\"]")?,
        None => Vec::new(),
    };
    let aggregates = each(&listed, |text| words::aggregate(text, &fields))?;

    let place = |at: At| match at {
        At::Name => top.get("name").map_or(0..0, Spanned::span),
        At::Framing => top.get("packet").map_or(0..0, packet_span),
        At::Fields => span_of_fields(&top, &field_texts),
        At::Field(i) => {
            field_texts[i].name_span.clone().unwrap_or_else(|| field_texts[i].span.clone())
        }
        At::Keys => by_value.span(),
        At::Key(i) => by[i].1.clone(),
        At::Aggregates => listed_value.map_or(result.span.clone(), Spanned::span),
        At::Aggregate(i) => listed[i].1.clone(),
    };
    let name = name.unwrap_or(NAME_BY_DEFAULT).to_owned();
    Schema::new(name, endian, framing, fields, keys, aggregates)
        .map_err(|Broken { at, rule }| TomlFault { span: place(at), problem: rule })
}

/// What each word stands for.
fn each<T>(
    words: &Strings<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, TomlFault> {
    let read = |(word, span): &(&str, Range<usize>)| {
        read(word).map_err(|problem| TomlFault { span: span.clone(), problem })
    };
    words.iter().map(read).collect()
}

/// A table that stands under a name.
fn section<'a>(
    index: usize,
    key: &str,
    value: &'a TomlValue<'a>,
) -> Result<Section<'a>, TomlFault> {
    match value.get_ref() {
        DeValue::Table(entries) => Section::new(index, value.span(), entries),
        _ => wrong_type(key, value, &format!("a table: write [{key}], and its keys below it")),
    }
}

fn read_fields(top: &Section<'_>) -> Result<Vec<FieldText>, TomlFault> {
    const RULE: &str = "for each field write [[field]], in double brackets, and its keys below it";
    let value = top.need("field", "a line [[field]], and below it name and type")?;
    let DeValue::Array(fields) = value.get_ref() else {
        return wrong_type("field", value, &format!("a list of tables: {RULE}"));
    };
    let each = fields.iter().map(|field| match field.get_ref() {
        DeValue::Table(entries) => read_field(&Section::new(2, field.span(), entries)?),
        _ => wrong_type("field", field, &format!("a list of tables: {RULE}")),
    });
    each.collect()
}

fn read_field(field: &Section<'_>) -> Result<FieldText, TomlFault> {
    let type_value = field.need("type", "type = \"u32\"")?;
    let type_name = string("type", type_value)?;
    let padding = field.get("padding").map(read_padding).transpose()?.unwrap_or(Padding::BOTH);
    if words::kind(type_name, 1, padding).is_none() {
        return fault(type_value.span(), words::no_type(type_name));
    }
    let bytes = read_bytes(field, type_name)?;
    if let (Some(padding), true) = (field.get("padding"), type_name != "text") {
        let problem = format!("only a text has `padding`, and this is {type_name}; leave it out");
        return fault(padding.span(), problem);
    }
    let name_value = field.get("name");
    if name_value.is_none() && type_name != "skip" {
        let problem = "a [[field]] needs `name`, as in name = \"A\"; bytes that mean nothing \
                       have the type \"skip\" and no name";
        return fault(field.span.clone(), problem);
    }
    let name = name_value.map_or(Ok(""), |value| string("name", value))?.to_owned();
    // The type was found above.
    let kind = words::kind(type_name, bytes, padding).unwrap_or(Kind::Skip { bytes });
    let named_skip = type_name == "skip" && name_value.is_some();
    if named_skip && name.is_empty() {
        let problem = "skipped bytes have no name; leave `name` out";
        return fault(name_value.map_or(0..0, Spanned::span), problem);
    }
    Ok(FieldText { name, kind, span: field.span.clone(), name_span: name_value.map(Spanned::span) })
}

/// The `bytes` of a field whose type needs them; 0 for the others, which may not have any.
fn read_bytes(field: &Section<'_>, type_name: &str) -> Result<usize, TomlFault> {
    let value = field.get("bytes");
    if !TYPES_WITH_BYTES.contains(&type_name) {
        return match value {
            None => Ok(0),
            Some(value) => fault(
                value.span(),
                format!(
                    "the width of a {type_name} is part of its type; leave `bytes` out. Only \
                     text, bytes and skip have `bytes`"
                ),
            ),
        };
    }
    let Some(value) = value else {
        let problem = format!("a field of the type {type_name} needs `bytes`, as in bytes = 16");
        return fault(field.span.clone(), problem);
    };
    let DeValue::Integer(number) = value.get_ref() else {
        return wrong_type("bytes", value, "a whole number");
    };
    match usize::from_str_radix(number.as_str(), number.radix()) {
        Ok(bytes @ 1..=RECORD_BYTES_MAX) => Ok(bytes),
        _ => fault(
            value.span(),
            format!("`bytes` is {}; a field has 1 to {RECORD_BYTES_MAX}", quoted(number.as_str())),
        ),
    }
}

fn read_padding(value: &TomlValue<'_>) -> Result<Padding, TomlFault> {
    let mut padding = Padding::NONE;
    for (word, span) in strings("padding", value, "[\"nul\", \"space\"]")? {
        let there = match word {
            "nul" => &mut padding.nul,
            "space" => &mut padding.space,
            _ => {
                let meant = words::meant(word, PADDINGS);
                let problem = format!(
                    "texts are padded with \"nul\" (0x00), \"space\" (0x20), both or [] for \
                     nothing, and not with {}{meant}",
                    quoted(word)
                );
                return fault(span, problem);
            }
        };
        if std::mem::replace(there, true) {
            return fault(span, format!("\"{word}\" stands there twice; leave one out"));
        }
    }
    Ok(padding)
}

/// How records come, where `endian` is that of the record, if it says one.
fn read_framing(top: &Section<'_>, endian: Option<Endian>) -> Result<Framing, TomlFault> {
    const LENGTH_ENDIAN: &str = "length_endian";
    let packet = top.get("packet").map(|value| section(1, "packet", value)).transpose()?;
    let Some(packet) = packet else {
        let endian = endian.unwrap_or(Endian::Big);
        return Ok(Framing { endian, ..Framing::default() });
    };
    let length = packet.word("length", &LENGTHS)?.unwrap_or(Length::U32);
    if length == Length::None {
        for key in ["length_includes_itself", LENGTH_ENDIAN] {
            if let Some(value) = packet.get(key) {
                let problem = format!(
                    "with length = \"none\" there is no length, so leave `{key}` out; or name the \
                     length: \"u32\" or \"u16\""
                );
                return fault(value.span(), problem);
            }
        }
    }
    let includes_itself = match packet.get("length_includes_itself") {
        None => true,
        Some(value) => match value.get_ref() {
            DeValue::Boolean(includes_itself) => *includes_itself,
            _ => return wrong_type("length_includes_itself", value, "true or false, unquoted"),
        },
    };
    let length_endian = packet.word(LENGTH_ENDIAN, &ENDIANS)?;
    Ok(Framing {
        length,
        includes_itself,
        endian: length_endian.or(endian).unwrap_or(Endian::Big),
        end: packet.word("end", &ENDS)?.unwrap_or(End::ZeroRecord),
    })
}

/// The order of bytes, which must be said where a field has a number of more than one.
fn needed_endian(endian: Option<Endian>, fields: &[FieldText]) -> Result<Endian, TomlFault> {
    let is_wide = |field: &&FieldText| {
        !TYPES_WITH_BYTES.contains(&field.kind.name()) && field.kind.width() > 1
    };
    match (endian, fields.iter().find(is_wide)) {
        (Some(endian), _) => Ok(endian),
        (None, None) => Ok(Endian::Big),
        (None, Some(field)) => fault(
            field.span.clone(),
            format!(
                "a {} has more than one byte, so a schema needs `endian` at its top: endian = \
                 \"{}\" as x86 and ARM keep numbers, endian = \"{}\" as networks usually do",
                field.kind.name(),
                word_of(&ENDIANS, &Endian::Little),
                word_of(&ENDIANS, &Endian::Big),
            ),
        ),
    }
}

fn packet_span(packet: &TomlValue<'_>) -> Range<usize> {
    let length = packet.get_ref().as_table().and_then(|table| table.get("length"));
    length.map_or(packet.span(), Spanned::span)
}

/// The first field that is one too many, or with which the record is too large.
fn span_of_fields(top: &Section<'_>, fields: &[FieldText]) -> Range<usize> {
    let mut bytes = 0;
    let beyond = fields.iter().enumerate().find(|(i, field)| {
        bytes += field.kind.width();
        *i >= crate::config::limits::SCHEMA_FIELDS_MAX || bytes > RECORD_BYTES_MAX
    });
    match beyond {
        Some((_, field)) => field.span.clone(),
        None => top.get("field").map_or(0..0, Spanned::span),
    }
}

#[cfg(test)]
#[path = "toml_tests.rs"]
mod tests;
