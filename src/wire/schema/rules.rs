//! The rules that a schema keeps: finds the first that is broken, and mends nothing.

use super::columns::{Part, RESERVED_NAMES, names};
use super::model::{Aggregate, Endian, Field, Framing, Kind, Length, Schema};
use crate::config::limits::{
    NAME_BYTES_MAX, RECORD_BYTES_MAX, SCHEMA_AGGREGATES_MAX, SCHEMA_FIELDS_MAX, SCHEMA_KEYS_MAX,
    TEXT_KEY_BYTES_MAX,
};
use crate::wire::text::quoted;
use std::collections::HashSet;

/// Which part of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The schema's name.
    Name,
    /// How records come.
    Framing,
    /// All of the fields.
    Fields,
    /// One field, by its index.
    Field(usize),
    /// All of the keys.
    Keys,
    /// One key, by its place among the keys.
    Key(usize),
    /// All of the aggregates.
    Aggregates,
    /// One aggregate, by its place among those that were listed.
    Aggregate(usize),
}

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Broken {
    /// Where.
    pub at: At,
    /// What is wrong, the rule, and what would be right.
    pub rule: String,
}

fn broken(at: At, rule: impl Into<String>) -> Broken {
    Broken { at, rule: rule.into() }
}

/// Whether it can be the name of a field: a letter or `_`, then letters, digits and `_`.
fn is_field_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_BYTES_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Schema {
    /// A schema of fields that lie end to end, of which some are keys.
    ///
    /// `fields` are names and types, `keys` and `aggregates` name them by their index. Where the
    /// count is not among the aggregates it becomes the last.
    ///
    /// # Errors
    /// The first rule that is broken, and where.
    pub fn new(
        name: String,
        endian: Endian,
        mut framing: Framing,
        fields: Vec<(String, Kind)>,
        keys: Vec<usize>,
        mut aggregates: Vec<Aggregate>,
    ) -> Result<Self, Broken> {
        if framing.length == Length::None {
            // What says nothing has one value, so that schemas that mean the same are equal.
            framing = Framing { includes_itself: false, endian, ..framing };
        }
        let mut record_bytes = 0;
        let fields: Vec<Field> = fields
            .into_iter()
            .map(|(name, kind)| {
                let offset = record_bytes;
                record_bytes = usize::saturating_add(record_bytes, kind.width());
                Field { name, kind, offset }
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
            "a name has 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`, as in \"meter-2\""
        );
        return Err(broken(At::Name, rule));
    }
    check_fields(fields, record_bytes)?;
    check_keys(fields, keys)?;
    check_aggregates(fields, aggregates)
}

fn check_fields(fields: &[Field], record_bytes: usize) -> Result<(), Broken> {
    if fields.is_empty() || fields.len() > SCHEMA_FIELDS_MAX {
        let rule = format!("{} fields, a record has 1 to {SCHEMA_FIELDS_MAX}", fields.len());
        return Err(broken(At::Fields, rule));
    }
    let mut names = HashSet::new();
    for (i, field) in fields.iter().enumerate() {
        check_field(field, &mut names).map_err(|rule| broken(At::Field(i), rule))?;
    }
    if record_bytes > RECORD_BYTES_MAX {
        let rule = format!(
            "with this field a record has {record_bytes} bytes or more; allowed are \
             {RECORD_BYTES_MAX}"
        );
        return Err(broken(At::Fields, rule));
    }
    Ok(())
}

fn check_field<'a>(field: &'a Field, names: &mut HashSet<&'a str>) -> Result<(), String> {
    let (name, bytes) = (field.name.as_str(), field.kind.width());
    if bytes == 0 || bytes > RECORD_BYTES_MAX {
        return Err(format!("{bytes} bytes, a field has 1 to {RECORD_BYTES_MAX}"));
    }
    if let Kind::Skip { .. } = field.kind {
        return match name {
            "" => Ok(()),
            _ => Err("skipped bytes have no name; leave it out".to_owned()),
        };
    }
    if !is_field_name(name) {
        return Err(format!(
            "the name of a field is a letter or `_`, then letters, digits and `_`, \
             {NAME_BYTES_MAX} at most; {} is none",
            quoted(name)
        ));
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(format!(
            "\"{name}\" is a column of its own in results or partials; call the field otherwise, \
             such as \"{name}_\""
        ));
    }
    if !names.insert(name) {
        return Err(format!("two fields are called \"{name}\"; each needs a name of its own"));
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
            format!("\"{name}\" is a key twice; leave one out")
        } else if matches!(kind, Kind::Skip { .. }) {
            "skipped bytes are no key; give the field a type".to_owned()
        } else if kind.is_float() {
            format!(
                "\"{name}\" is {}; a key is an integer, bool, text or bytes, since equal \
                 measurements need not be equal bits",
                kind.name()
            )
        } else if kind.is_text() && bytes > TEXT_KEY_BYTES_MAX {
            format!("\"{name}\" has {bytes} bytes; a key has {TEXT_KEY_BYTES_MAX} at most")
        } else {
            continue;
        };
        return Err(broken(At::Key(i), rule));
    }
    Ok(())
}

fn check_aggregates(fields: &[Field], aggregates: &[Aggregate]) -> Result<(), Broken> {
    // The count is always there, whether it is listed or not.
    let listed = aggregates.iter().filter(|&&aggregate| aggregate != Aggregate::Count).count();
    if listed > SCHEMA_AGGREGATES_MAX {
        let rule = format!("{listed} aggregates, allowed are {SCHEMA_AGGREGATES_MAX}");
        return Err(broken(At::Aggregates, rule));
    }
    for (i, aggregate) in aggregates.iter().enumerate() {
        let rule = match aggregate {
            _ if aggregates[..i].contains(aggregate) => {
                "this aggregate stands there twice; leave one out".to_owned()
            }
            Aggregate::Of { field, .. } if matches!(fields[*field].kind, Kind::Skip { .. }) => {
                "skipped bytes have no functions; give the field a type".to_owned()
            }
            Aggregate::Of { field, function } if fields[*field].kind.is_text() => format!(
                "\"{}\" is {}, which has no {}; functions are of numbers and bool",
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

/// Whether the columns of results and of partials have names of their own.
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
        "with this, two columns of {what} would be called \"{name}\"; rename one of the fields \
         that they are made of"
    )
}

/// A name that stood there before, and its place.
fn first_twice(names: &[String]) -> Option<(&str, usize)> {
    let mut seen = HashSet::new();
    let place = names.iter().position(|name| !seen.insert(name.as_str()))?;
    Some((&names[place], place))
}

/// An aggregate by its place. The count that nobody listed has no place of its own.
fn listed(schema: &Schema, place: usize) -> At {
    match schema.aggregates.get(place) {
        Some(Aggregate::Of { .. }) => At::Aggregate(place),
        _ => At::Aggregates,
    }
}

/// Whether a packet of one record can say its length.
fn check_framing(schema: &Schema) -> Result<(), Broken> {
    let (packet_bytes, most) = (schema.packet_bytes_min() as u64, schema.packet_bytes_max());
    if schema.framing.length == Length::U16 && packet_bytes > most {
        let rule = format!(
            "with a u16 length a packet has {most} bytes at most, and one record with its length \
             has {packet_bytes}; use length = \"u32\""
        );
        return Err(broken(At::Framing, rule));
    }
    Ok(())
}
