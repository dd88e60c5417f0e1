//! Validates a schema and reports the first rule that it breaks.

use super::columns::{Part, RESERVED_NAMES, names};
use super::model::{Aggregate, Endian, Field, Framing, Kind, Length, Schema};
use crate::config::limits::{
    NAME_BYTES_MAX, RECORD_BYTES_MAX, SCHEMA_AGGREGATES_MAX, SCHEMA_FIELDS_MAX, SCHEMA_KEYS_MAX,
    TEXT_KEY_BYTES_MAX,
};
use crate::wire::text::{TextEncoding, quoted};
use std::collections::HashSet;

/// The part of a schema that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The schema's name.
    Name,
    /// The framing.
    Framing,
    /// The list of fields.
    Fields,
    /// One field, by its index.
    Field(usize),
    /// The list of keys.
    Keys,
    /// One key, by its position among the keys.
    Key(usize),
    /// The list of aggregates.
    Aggregates,
    /// One aggregate, by its position among those listed.
    Aggregate(usize),
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Broken {
    /// The part that breaks it.
    pub at: At,
    /// What is wrong and how to fix it.
    pub rule: String,
}

fn broken(at: At, rule: impl Into<String>) -> Broken {
    Broken { at, rule: rule.into() }
}

/// Whether this can be the name of a field: a letter or `_`, then letters, digits or `_`.
fn is_field_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_BYTES_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Schema {
    /// A schema whose fields follow one another without gaps.
    ///
    /// `fields` are names and types; `keys` and `aggregates` refer to them by index. A count that
    /// is not among the aggregates is appended to them.
    ///
    /// # Errors
    /// Returns the first broken rule and the part that breaks it.
    pub fn new(
        name: String,
        endian: Endian,
        mut framing: Framing,
        fields: Vec<(String, Kind)>,
        keys: Vec<usize>,
        mut aggregates: Vec<Aggregate>,
    ) -> Result<Self, Broken> {
        if framing.length == Length::None {
            // Unused settings get a fixed value, so that equivalent schemas are equal.
            framing = Framing { includes_itself: false, endian, ..framing };
        }
        let mut record_bytes = 0;
        let fields: Vec<Field> = fields
            .into_iter()
            .map(|(name, kind)| {
                let offset = record_bytes;
                record_bytes = usize::saturating_add(record_bytes, kind.width());
                Field { name, kind, offset, encoding: TextEncoding::default() }
            })
            .collect();
        check(&name, &fields, record_bytes, &keys, &aggregates)?;
        if !aggregates.contains(&Aggregate::Count) {
            aggregates.push(Aggregate::Count);
        }
        let schema = Schema { name, endian, framing, fields, record_bytes, keys, aggregates };
        check_columns(&schema)?;
        check_framing(&schema)?;
        Ok(schema)
    }
}

fn check(
    name: &str,
    fields: &[Field],
    record_bytes: usize,
    keys: &[usize],
    aggregates: &[Aggregate],
) -> Result<(), Broken> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let rule = format!(
            "a name is 1 to {NAME_BYTES_MAX} letters, digits, `-` or `_`, such as \"meter-2\""
        );
        return Err(broken(At::Name, rule));
    }
    check_fields(fields, record_bytes)?;
    check_keys(fields, keys)?;
    check_aggregates(fields, aggregates)
}

fn check_fields(fields: &[Field], record_bytes: usize) -> Result<(), Broken> {
    if fields.is_empty() || fields.len() > SCHEMA_FIELDS_MAX {
        let rule = format!("{} fields; a record has 1 to {SCHEMA_FIELDS_MAX}", fields.len());
        return Err(broken(At::Fields, rule));
    }
    let mut names = HashSet::new();
    for (i, field) in fields.iter().enumerate() {
        check_field(field, &mut names).map_err(|rule| broken(At::Field(i), rule))?;
    }
    if record_bytes > RECORD_BYTES_MAX {
        let rule = format!(
            "this field makes a record of {record_bytes} bytes or more; the limit is \
             {RECORD_BYTES_MAX}"
        );
        return Err(broken(At::Fields, rule));
    }
    Ok(())
}

fn check_field<'a>(field: &'a Field, names: &mut HashSet<&'a str>) -> Result<(), String> {
    let (name, bytes) = (field.name.as_str(), field.kind.width());
    if bytes == 0 || bytes > RECORD_BYTES_MAX {
        return Err(format!("{bytes} bytes; a field has 1 to {RECORD_BYTES_MAX}"));
    }
    if let Kind::Skip { .. } = field.kind {
        return match name {
            "" => Ok(()),
            _ => Err("skipped bytes have no name; leave it out".to_owned()),
        };
    }
    if !is_field_name(name) {
        return Err(format!(
            "{} is not a field name; use a letter or `_`, then letters, digits or `_`, at most \
             {NAME_BYTES_MAX} in all",
            quoted(name)
        ));
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(format!(
            "\"{name}\" is reserved for a column of results or partials; choose another name, \
             such as \"{name}_\""
        ));
    }
    if !names.insert(name) {
        return Err(format!("two fields are named \"{name}\"; field names must be unique"));
    }
    Ok(())
}

fn check_keys(fields: &[Field], keys: &[usize]) -> Result<(), Broken> {
    if keys.is_empty() || keys.len() > SCHEMA_KEYS_MAX {
        let rule = format!("{} keys; records are grouped by 1 to {SCHEMA_KEYS_MAX}", keys.len());
        return Err(broken(At::Keys, rule));
    }
    for (i, &key) in keys.iter().enumerate() {
        let Field { name, kind, .. } = &fields[key];
        let bytes = kind.width();
        let rule = if keys[..i].contains(&key) {
            format!("\"{name}\" is listed twice as a key; leave one out")
        } else if matches!(kind, Kind::Skip { .. }) {
            "skipped bytes cannot be a key; give the field a type".to_owned()
        } else if kind.is_float() {
            format!(
                "\"{name}\" is {}; a key must be an integer, bool, text or bytes, because equal \
                 measurements may differ in their bits",
                kind.name()
            )
        } else if kind.is_text() && bytes > TEXT_KEY_BYTES_MAX {
            format!("\"{name}\" has {bytes} bytes; a key has at most {TEXT_KEY_BYTES_MAX}")
        } else {
            continue;
        };
        return Err(broken(At::Key(i), rule));
    }
    Ok(())
}

fn check_aggregates(fields: &[Field], aggregates: &[Aggregate]) -> Result<(), Broken> {
    // The count does not use up the limit: every schema has it, listed or not.
    let listed = aggregates.iter().filter(|&&aggregate| aggregate != Aggregate::Count).count();
    if listed > SCHEMA_AGGREGATES_MAX {
        let rule = format!("{listed} aggregates; the limit is {SCHEMA_AGGREGATES_MAX}");
        return Err(broken(At::Aggregates, rule));
    }
    for (i, aggregate) in aggregates.iter().enumerate() {
        let rule = match aggregate {
            _ if aggregates[..i].contains(aggregate) => {
                "this aggregate is listed twice; leave one out".to_owned()
            }
            Aggregate::Of { field, .. } if matches!(fields[*field].kind, Kind::Skip { .. }) => {
                "skipped bytes cannot be aggregated; give the field a type".to_owned()
            }
            Aggregate::Of { field, function } if fields[*field].kind.is_text() => format!(
                "\"{}\" is {}, which has no {}; functions take numbers or bool",
                fields[*field].name,
                fields[*field].kind.name(),
                function.name()
            ),
            _ => continue,
        };
        return Err(broken(At::Aggregate(i), rule));
    }
    Ok(())
}

/// Checks that column names are unique, in results and in partials.
fn check_columns(schema: &Schema) -> Result<(), Broken> {
    let keys = schema.keys.len();
    if let Some((name, place)) = first_twice(&schema.column_names()) {
        let at = listed(schema, place - keys);
        return Err(broken(at, same_name("the result", name)));
    }
    let partials = names(schema.partial_columns());
    if let Some((name, place)) = first_twice(&partials) {
        // The parts come last. No column before them shares its name with another one there.
        let parts = schema.parts();
        let (field, part) = parts[place - (partials.len() - parts.len())];
        let needs = |aggregate: &Aggregate| match *aggregate {
            Aggregate::Count => false,
            Aggregate::Of { field: other, function } => {
                other == field && Part::of(function, schema.fields[field].kind).contains(&part)
            }
        };
        let first = schema.aggregates.iter().position(needs).unwrap_or(0);
        return Err(broken(listed(schema, first), same_name("partials", name)));
    }
    Ok(())
}

fn same_name(what: &str, name: &str) -> String {
    format!(
        "with this, two columns of {what} would be named \"{name}\"; rename one of the fields \
         they come from"
    )
}

/// The first name that repeats an earlier one, and its position.
fn first_twice(names: &[String]) -> Option<(&str, usize)> {
    let mut seen = HashSet::new();
    let place = names.iter().position(|name| !seen.insert(name.as_str()))?;
    Some((&names[place], place))
}

/// The aggregate at this position. A count that was added, not listed, has no position.
fn listed(schema: &Schema, place: usize) -> At {
    match schema.aggregates.get(place) {
        Some(Aggregate::Of { .. }) => At::Aggregate(place),
        _ => At::Aggregates,
    }
}

/// Checks that the length can express a packet of one record.
fn check_framing(schema: &Schema) -> Result<(), Broken> {
    let (packet_bytes, most) = (schema.packet_bytes_min() as u64, schema.packet_bytes_max());
    if schema.framing.length == Length::U16 && packet_bytes > most {
        let rule = format!(
            "with a u16 length a packet has at most {most} bytes, but one record with its length \
             has {packet_bytes}; use length = \"u32\""
        );
        return Err(broken(At::Framing, rule));
    }
    Ok(())
}
