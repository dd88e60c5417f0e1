//! Parses a schema from TOML. Errors in syntax and broken rules alike point at their place in the
//! text. The caller reads the file.

use super::complaint::Complaint;
use super::words::{ENCODINGS, ENDIANS, ENDS, LENGTHS, PADDINGS, TYPES_WITH_BYTES, word_of};
use super::{At, Broken, End, Endian, Framing, Kind, Length, Schema, words};
use crate::config::limits::RECORD_BYTES_MAX;
use crate::wire::text::{Escaped, Padding, TextEncoding, quoted};
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The built-in schema as TOML, with comments.
pub const DEFAULT_TOML: &str = include_str!("default.toml");
/// The name of a schema without `name`.
pub const NAME_BY_DEFAULT: &str = "record";

/// The keys of the top level, of `[packet]`, of a `[[field]]` and of `[result]`.
pub const KEYS: [(&str, &[&str]); 4] = [
    ("schema", &["name", "endian", "packet", "field", "result"]),
    ("packet", &["length", "length_includes_itself", "length_endian", "end"]),
    ("field", &["name", "type", "bytes", "padding", "encoding"]),
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

    /// A schema as it is written in TOML; docs/reference/schema.md says how.
    ///
    /// # Errors
    /// Returns the first error with its position.
    pub fn from_toml(text: &str) -> Result<Schema, Complaint> {
        let document = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let problem = format!("not valid TOML: {}", Escaped(error.message().as_bytes()));
            Complaint::new(text, span, problem)
        })?;
        read(document.get_ref())
            .map_err(|TomlFault { span, problem }| Complaint::new(text, span, problem))
    }
}

/// What is wrong, and the bytes it is about.
struct TomlFault {
    span: Range<usize>,
    problem: String,
}

fn fault<T>(span: Range<usize>, problem: impl Into<String>) -> Result<T, TomlFault> {
    Err(TomlFault { span, problem: problem.into() })
}

type TomlValue<'a> = Spanned<DeValue<'a>>;

/// A table whose keys are all known ones.
struct Section<'a> {
    /// Its name in error messages.
    what: &'static str,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// # Errors
    /// Names the first unknown key.
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

    /// A required value.
    fn need(&self, key: &str, example: &str) -> Result<&'a TomlValue<'a>, TomlFault> {
        match self.get(key) {
            Some(value) => Ok(value),
            None => {
                fault(self.span.clone(), format!("{} needs `{key}`, as in {example}", self.what))
            }
        }
    }

    /// A value that must be one of these words.
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
                    "`{key}` must be one of \"{}\", not {}{meant}",
                    names.join("\", \""),
                    quoted(text)
                );
                fault(value.span(), problem)
            }
        }
    }
}

/// The error for a value of the wrong TOML type.
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
    fault(value.span(), format!("`{key}` must be {wanted}; this is {found}"))
}

fn string<'a>(key: &str, value: &'a TomlValue<'_>) -> Result<&'a str, TomlFault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => wrong_type(key, value, "a string, in double quotes"),
    }
}

/// Strings with their positions.
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

/// A field, with the positions of its table and its name.
struct FieldText {
    name: String,
    kind: Kind,
    encoding: TextEncoding,
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

    let result = top.need("result", "a line [result] with by = [\"A\"] below it")?;
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
    let schema = Schema::new(name, endian, framing, fields, keys, aggregates)
        .map_err(|Broken { at, rule }| TomlFault { span: place(at), problem: rule })?;
    let encodings = field_texts.iter().map(|field| field.encoding).enumerate();
    Ok(encodings.fold(schema, |schema, (field, encoding)| schema.with_encoding(field, encoding)))
}

/// Parses each word, keeping its position for errors.
fn each<T>(
    words: &Strings<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, TomlFault> {
    let read = |(word, span): &(&str, Range<usize>)| {
        read(word).map_err(|problem| TomlFault { span: span.clone(), problem })
    };
    words.iter().map(read).collect()
}

/// A table under this key.
fn section<'a>(
    index: usize,
    key: &str,
    value: &'a TomlValue<'a>,
) -> Result<Section<'a>, TomlFault> {
    match value.get_ref() {
        DeValue::Table(entries) => Section::new(index, value.span(), entries),
        _ => wrong_type(key, value, &format!("a table: write [{key}] with its keys below it")),
    }
}

fn read_fields(top: &Section<'_>) -> Result<Vec<FieldText>, TomlFault> {
    const RULE: &str = "for each field write [[field]], in double brackets, with its keys below it";
    let value = top.need("field", "a line [[field]] with name and type below it")?;
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
    for key in ["padding", "encoding"] {
        if let (Some(value), true) = (field.get(key), type_name != "text") {
            let problem = format!("only text has `{key}`, and this is {type_name}; leave it out");
            return fault(value.span(), problem);
        }
    }
    let encoding = field.word("encoding", &ENCODINGS)?.unwrap_or_default();
    let name_value = field.get("name");
    if name_value.is_none() && type_name != "skip" {
        let problem = "a [[field]] needs `name`, as in name = \"A\"; bytes to ignore have the \
                       type \"skip\" and no name";
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
    let name_span = name_value.map(Spanned::span);
    Ok(FieldText { name, kind, encoding, span: field.span.clone(), name_span })
}

/// The `bytes` of a field whose type needs it; 0 for other types, which must not have it.
fn read_bytes(field: &Section<'_>, type_name: &str) -> Result<usize, TomlFault> {
    let value = field.get("bytes");
    if !TYPES_WITH_BYTES.contains(&type_name) {
        return match value {
            None => Ok(0),
            Some(value) => fault(
                value.span(),
                format!(
                    "the type {type_name} has a fixed width; leave `bytes` out. Only text, bytes \
                     and skip need it"
                ),
            ),
        };
    }
    let Some(value) = value else {
        let problem = format!("a field of type {type_name} needs `bytes`, as in bytes = 16");
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
                    "`padding` lists \"nul\" (0x00), \"space\" (0x20), both, or none as in []; \
                     not {}{meant}",
                    quoted(word)
                );
                return fault(span, problem);
            }
        };
        if std::mem::replace(there, true) {
            return fault(span, format!("\"{word}\" is listed twice; leave one out"));
        }
    }
    Ok(padding)
}

/// The framing. `endian` is the byte order of the record, if given.
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
                    "length = \"none\" means no length, so leave `{key}` out; or set length \
                     to \"u32\" or \"u16\""
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

/// The byte order, which is required if a number has more than one byte.
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
                "{} has more than one byte, so the schema needs `endian` at the top: endian = \
                 \"{}\" as on x86 and ARM, endian = \"{}\" as is usual on networks",
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

/// The position of the first field that exceeds the count of fields or the size of a record.
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
