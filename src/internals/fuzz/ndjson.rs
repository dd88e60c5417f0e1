//! Results as ndjson, which `send --verify` reads: of the built-in schema, or of one with every
//! type.

use super::input::FuzzInput;
use crate::client::verify::results::{finished_lines, parse_line};
use crate::wire::schema::Schema;
use crate::wire::schema::notation::Notation;
use std::sync::{Arc, LazyLock};

static WIDE: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let notation = Notation {
        format: "<4s2sQqdf?bHI",
        fields: "name,raw:bytes,big,low,double,single,on,tiny,half,word",
        by: "name,raw,on",
        aggregates: Some("big:sum,low:min,double:mean,single:var,on:last,tiny:std,half:max,count"),
    };
    Arc::new(notation.schema().expect("a valid schema"))
});

pub(super) fn run(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let schema = match input.byte() {
        b'w' => Arc::clone(&WIDE),
        _ => Schema::built_in(),
    };
    let text = input.rest();
    let (lines, bytes) = finished_lines(text);
    let mut taken = 0;
    for line in lines {
        taken += line.len() + 1;
        match parse_line(line, &schema) {
            Ok(result) => {
                let groups = line.iter().filter(|&&byte| byte == b'{').count();
                assert!(result.groups.len() <= groups, "no more groups than objects");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert_eq!(taken, bytes);
    assert!(!text[bytes..].contains(&b'\n'), "a whole line was not read");
}
