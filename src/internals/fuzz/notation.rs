//! Struct notation: four lines are the values of `--struct`, `--fields`, `--by` and `--agg`.

use super::schema_toml::check_schema;
use crate::wire::schema::notation::Notation;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (format, fields, by) = (next(), next(), next());
    let notation = Notation { format, fields, by, aggregates: lines.next() };
    match notation.schema() {
        Ok(schema) => check_schema(&schema),
        Err(message) => {
            let is_shown = |c: char| c == '\n' || !c.is_control();
            assert!(message.chars().all(is_shown), "{}", message.escape_debug());
            assert!(message.starts_with("--"), "{message}");
        }
    }
}
