//! Schema files: an accepted schema must survive being written and read again, and have a layout;
//! a message must fit a terminal.

use crate::config::limits::RECORD_BYTES_MAX;
use crate::engine::groups::plan::Plan;
use crate::wire::schema::Schema;
use std::sync::Arc;

/// Wider than any line of an excerpt.
const EXCERPT_COLUMNS_MAX: usize = 120;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Schema::from_toml(text) {
        Ok(schema) => check_schema(&schema),
        Err(complaint) => {
            let message = complaint.in_file("schema.toml");
            let is_shown = |c: char| c == '\n' || !c.is_control();
            assert!(message.chars().all(is_shown), "{}", message.escape_debug());
            let excerpt = message.lines().rev().take(2);
            for line in excerpt {
                assert!(line.len() <= EXCERPT_COLUMNS_MAX, "{line}");
            }
        }
    }
}

pub(super) fn check_schema(schema: &Schema) {
    let text = schema.to_toml();
    let again = Schema::from_toml(&text).unwrap_or_else(|why| panic!("{}", why.in_file("again")));
    assert_eq!(&again, schema, "{text}");
    assert!((1..=RECORD_BYTES_MAX).contains(&schema.record_bytes()));
    let width: usize = schema.fields().iter().map(|field| field.kind.width()).sum();
    assert_eq!(width, schema.record_bytes());
    assert!(schema.packet_bytes_min() as u64 <= schema.packet_bytes_max());
    let columns = schema.column_names();
    assert_eq!(columns.len(), schema.keys().len() + schema.aggregates().len());
    let plan = Plan::new(Arc::new(schema.clone()));
    let sizes = plan.sizes();
    assert_eq!(sizes.record_bytes, width);
    assert!(sizes.window_bytes_min() >= schema.packet_bytes_min());
}
