//! Records of another size than the schema says, without packets: zeros within them end the stream,
//! and what follows is no whole number of records.

use crate::common::{Engine, send};
use std::fs;

#[test]
fn zeros_within_records_of_another_size_complete_no_stream() {
    let directory = tempfile::tempdir().unwrap();
    let schema = directory.path().join("schema.toml");
    let text = "packet.length='none'\nendian='little'\n\
        field=[{name='A', type='u16'}, {name='B', type='u8'}]\nresult.by=['A']";
    fs::write(&schema, text).unwrap();
    let engine = Engine::start(&["--schema", schema.to_str().unwrap(), "--exit-after", "2"]);
    // Structs of 4 bytes for records of 3, and the end record of the sender.
    send(&engine, b"\x01\0\x02\x09\x02\0\0\0\0\0\0\0\0\0\0\0");
    engine.wait_for_results(1);
    send(&engine, b"\x01\0\x02\0\0\0abc");
    let (_, results, log) = engine.wait();
    let facts = |key: &str| [&results[0][key], &results[1][key]].map(|value| value.clone());
    assert_eq!(facts("status"), ["incomplete", "complete"], "{log}");
    assert_eq!(results[0]["reason"], "closed_in_record");
    assert_eq!(facts("bytes_after_end"), [7, 3]);
}
