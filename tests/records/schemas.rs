//! Schemas as files and options of the program: what is right is described and shown, what is wrong
//! is told with its line. That docs/reference/schema.json agrees is checked by .ci/schema_json.py.

use crate::common::root;
use ringest::schema::words::{
    ENCODINGS, ENDIANS, ENDS, LENGTHS, PADDINGS, TYPES, TYPES_WITH_BYTES,
};
use ringest::schema::{Function, RESERVED_NAMES, Schema, toml};
use serde_json::Value;
use std::fs;
use std::mem::offset_of;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

/// The program in an environment without variables of its own.
fn ringest(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringest"));
    let own = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("RINGEST_"));
    own.for_each(|name| {
        command.env_remove(name);
    });
    command.args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The error of a command that must be refused as wrong usage.
fn refused(arguments: &[&str]) -> String {
    let output = ringest(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    assert!(output.stdout.is_empty());
    stderr(&output)
}

/// The files of a directory below tests/schemas/.
fn files(directory: &str) -> Vec<(String, String)> {
    let directory = root().join("tests/schemas").join(directory);
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, String)> = files
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    files
}

#[test]
fn what_is_right_is_described_and_shown() {
    for (path, text) in files("valid") {
        let schema =
            Schema::from_toml(&text).unwrap_or_else(|error| panic!("{}", error.in_file(&path)));
        let described = stdout(&ringest(&["schema", "check", &path]));
        let bytes = match schema.record_bytes() {
            1 => "1 byte,".to_owned(),
            bytes => format!("{bytes} bytes,"),
        };
        let heading = format!("schema {}: records of {bytes}", schema.name());
        assert!(described.starts_with(&heading), "{described}");
        for column in schema.column_names() {
            assert!(described.contains(&format!("\n{column} ")), "{column} in\n{described}");
        }
        let shown = stdout(&ringest(&["schema", "show", &path]));
        assert_eq!(Schema::from_toml(&shown).unwrap(), schema, "{shown}");
    }
}

/// The first line of each file is `# line N: what is said`.
#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (path, text) in files("invalid").into_iter().chain(files("broken")) {
        let first = text.lines().next().unwrap();
        let expected = first.strip_prefix("# line ").and_then(|rest| rest.split_once(": "));
        let (line, said) = expected.unwrap_or_else(|| panic!("{path} begins with what is said"));
        let error = refused(&["schema", "check", &path]);
        assert!(error.starts_with(&format!("ringest: {path}:{line}:")), "{path}: {error}");
        assert!(error.contains(said), "{path}: {said}: {error}");
        assert!(error.trim_end().ends_with('^'), "{error}");
        assert_eq!(refused(&["serve", "--schema", &path]), error);
        assert_eq!(refused(&["doctor", "--schema", &path]), error);
        assert_eq!(refused(&["send", "--schema", &path]), error);
    }
}

#[test]
fn the_built_in_schema_is_shown_with_its_comments() {
    let shown = stdout(&ringest(&["schema", "show"]));
    assert_eq!(shown, toml::DEFAULT_TOML);
    assert_eq!(shown, stdout(&ringest(&["schema", "show", "default"])));
    assert_eq!(Schema::from_toml(&shown).unwrap(), *Schema::built_in());
    let described = stdout(&ringest(&["schema", "check"]));
    assert!(described.starts_with("schema default: records of 267 bytes, big-endian\n"));
}

#[test]
fn the_struct_notation_becomes_a_file() {
    let options = [
        "--struct",
        ">IHfb256s",
        "--fields",
        "A,B,C,D,E",
        "--by",
        "A,E",
        "--agg",
        "B:mean,C:sum,D:min",
    ];
    let shown = stdout(&ringest(&[&["schema", "show"], &options[..]].concat()));
    let named = shown.replace("name = \"struct\"", "name = \"default\"");
    assert_eq!(Schema::from_toml(&named).unwrap(), *Schema::built_in());
    // Variables do the same.
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringest"));
    for pair in options.chunks(2) {
        command.env(format!("RINGEST_{}", pair[0][2..].to_uppercase()), pair[1]);
    }
    let output = command.args(["schema", "show"]).env_remove("RINGEST_SCHEMA").output().unwrap();
    assert_eq!(stdout(&output), shown);

    let error = refused(&["schema", "check", "--struct", ">IwH", "--fields", "A,B", "--by", "A"]);
    assert!(error.starts_with("ringest: --struct, character 3: unknown type \"w\""), "{error}");
    assert!(error.ends_with("\n  >IwH\n    ^\n"), "{error}");
}

#[test]
fn options_that_exclude_or_need_each_other_are_told() {
    let format = ["--struct", ">I", "--fields", "A", "--by", "A"];
    let both = refused(&[&["serve", "--schema", "default"], &format[..]].concat());
    assert!(both.contains("cannot be used with"), "{both}");
    let both = refused(&[&["schema", "show", "default"], &format[..]].concat());
    assert!(both.contains("cannot be used with"), "{both}");
    for alone in [["--fields", "A"], ["--by", "A"], ["--agg", "A:sum"], ["--struct", ">I"]] {
        let error = refused(&["serve", alone[0], alone[1]]);
        assert!(error.contains("required arguments were not provided"), "{error}");
    }
    assert!(refused(&["demo", "--schema", "default"]).contains("unexpected argument"));
}

#[test]
fn what_is_no_file_of_a_schema_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let said = |path: &str, what: &str| {
        let error = refused(&["serve", "--schema", path]);
        assert!(error.contains(what), "{path}: {what}: {error}");
    };
    said(&path("missing.toml"), "does not exist; give the path of a TOML file");
    said(&path("missing.toml"), "start from `ringest schema show`");
    said(&path(""), "is a directory; it must be a TOML file");
    said("/dev/null", "is a device");
    let _socket = UnixListener::bind(path("socket")).unwrap();
    said(&path("socket"), "is a socket");
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    said(&path("pipe"), "is a pipe");
    fs::write(path("latin1.toml"), b"endian = \"big\"\n# gr\xf6\xdfe\n").unwrap();
    said(&path("latin1.toml"), "latin1.toml:2:5: byte 0xf6 is not valid UTF-8");

    let limit = ringest::internals::SCHEMA_FILE_BYTES_MAX;
    let mut text = toml::DEFAULT_TOML.to_owned() + "#";
    text += &"x".repeat(limit - text.len());
    fs::write(path("large.toml"), &text).unwrap();
    stdout(&ringest(&["schema", "check", &path("large.toml")]));
    fs::write(path("large.toml"), text + "x").unwrap();
    said(&path("large.toml"), "is larger than 1048576 bytes");
}

/// The program takes a schema that it is going to use, and so far only one.
#[test]
fn the_built_in_schema_may_be_a_file_too() {
    let copy = root().join("src/wire/schema/default.toml").display().to_string();
    let of_free_ports = ["--records-port", "0", "--port", "0", "--admin-port", "0"];
    let output = ringest(&[&["doctor", "--schema", &copy], &of_free_ports[..]].concat());
    assert!(!output.stdout.is_empty(), "{}", stderr(&output));
}

fn json_schema() -> Value {
    let text = fs::read_to_string(root().join("docs/reference/schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn the_json_schema_has_the_words_of_the_program() {
    let json = json_schema();
    let (packet, field) = (&json["properties"]["packet"]["properties"], &json["$defs"]["field"]);
    assert_eq!(words(&field["properties"]["type"]["enum"]), TYPES);
    let sized = &field["allOf"][0]["if"]["properties"]["type"]["enum"];
    assert_eq!(words(sized), TYPES_WITH_BYTES);
    assert_eq!(words(&field["properties"]["padding"]["items"]["enum"]), PADDINGS);
    assert_eq!(words(&field["properties"]["encoding"]["enum"]), ENCODINGS.map(|(word, _)| word));
    assert_eq!(words(&json["properties"]["endian"]["enum"]), ENDIANS.map(|(word, _)| word));
    assert_eq!(words(&packet["length_endian"]["enum"]), ENDIANS.map(|(word, _)| word));
    assert_eq!(words(&packet["length"]["enum"]), LENGTHS.map(|(word, _)| word));
    assert_eq!(words(&packet["end"]["enum"]), ENDS.map(|(word, _)| word));
    assert_eq!(words(&json["$defs"]["field_name"]["not"]["enum"]), RESERVED_NAMES);
    let aggregate = &json["properties"]["result"]["properties"]["aggregates"]["items"]["pattern"];
    let functions = Function::ALL.map(Function::name).join("|");
    assert!(aggregate.as_str().unwrap().contains(&format!(":({functions})")), "{aggregate}");
    // Numbers of more than one byte need an order.
    let wide = &json["if"]["properties"]["field"]["contains"]["properties"]["type"]["enum"];
    let bits = |name: &str| name.trim_start_matches(['u', 'i', 'f']).parse::<u32>();
    let has_order = |name: &&str| bits(name).is_ok_and(|bits| bits > 8);
    assert_eq!(words(wide), TYPES.into_iter().filter(has_order).collect::<Vec<_>>());
}

#[test]
fn the_json_schema_has_the_keys_and_limits_of_the_program() {
    use ringest::internals::limits::*;
    let json = json_schema();
    let sections = [
        &json,
        &json["properties"]["packet"],
        &json["$defs"]["field"],
        &json["properties"]["result"],
    ];
    for (section, (name, keys)) in sections.into_iter().zip(toml::KEYS) {
        let mut known: Vec<&str> = keys.to_vec();
        known.sort_unstable();
        let listed: Vec<&String> = section["properties"].as_object().unwrap().keys().collect();
        assert_eq!(listed, known, "{name}");
        assert_eq!(section["additionalProperties"], false, "{name}");
    }
    let result = &json["properties"]["result"]["properties"];
    let limits = [
        (&json["properties"]["field"]["maxItems"], SCHEMA_FIELDS_MAX),
        (&result["by"]["maxItems"], SCHEMA_KEYS_MAX),
        // And the count, which may be listed.
        (&result["aggregates"]["maxItems"], SCHEMA_AGGREGATES_MAX + 1),
        (&json["$defs"]["field"]["properties"]["bytes"]["maximum"], RECORD_BYTES_MAX),
    ];
    for (limit, expected) in limits {
        assert_eq!(limit.as_u64(), Some(expected as u64));
    }
    let pattern = json["properties"]["name"]["pattern"].as_str().unwrap();
    assert!(pattern.contains(&format!("{{1,{NAME_BYTES_MAX}}}")), "{pattern}");
    let name = json["properties"]["name"]["default"].as_str();
    assert_eq!(name, Some(toml::NAME_BY_DEFAULT));
}

/// Explains schemas, and has the struct below.
const DOCUMENT: &str = "docs/reference/schema.md";

/// The struct of that page, as a C compiler lays it out.
#[repr(C)]
struct Reading {
    station: u16,
    energy_wh: u64,
    power_w: f32,
    online: bool,
    site: [u8; 16],
}

#[test]
fn the_struct_of_the_document_is_what_its_schema_says() {
    let document = fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let (_, rest) = document.split_once("```toml\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let schema = Schema::from_toml(block).unwrap();
    let offsets = [
        ("station", offset_of!(Reading, station)),
        ("energy_wh", offset_of!(Reading, energy_wh)),
        ("power_w", offset_of!(Reading, power_w)),
        ("online", offset_of!(Reading, online)),
        ("site", offset_of!(Reading, site)),
    ];
    let named = schema.fields().iter().filter(|field| !field.name.is_empty());
    let found: Vec<(&str, usize)> = named.map(|field| (&*field.name, field.offset)).collect();
    assert_eq!(found, offsets);
    assert_eq!(schema.record_bytes(), size_of::<Reading>());

    // The file of the tests is the same, below a line of its own, and is described as shown.
    let path = root().join("tests/schemas/valid/meter.toml").display().to_string();
    assert!(fs::read_to_string(&path).unwrap().ends_with(block));
    let described = stdout(&ringest(&["schema", "check", &path]));
    assert!(document.contains(&described), "{described}");

    let options = rest.split_once("schema show --struct '").unwrap().1;
    let (format, options) = options.split_once("' --fields ").unwrap();
    let fields = options.split(' ').next().unwrap();
    let shown = stdout(&ringest(&[
        "schema",
        "show",
        "--struct",
        format,
        "--fields",
        fields,
        "--by",
        "site,station",
    ]));
    assert_eq!(Schema::from_toml(&shown).unwrap().fields(), schema.fields());
}

/// The sample error is what the program says of the page's own schema with a slip in it.
#[test]
fn the_error_of_the_document_is_what_the_program_says() {
    let document = fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let block = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("meter.toml"), block.replacen("\"u16\"", "\"uint16_t\"", 1))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringest"));
    let output = command
        .args(["schema", "check", "meter.toml"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(document.contains(&stderr(&output)), "{}", stderr(&output));
}

#[test]
fn every_schema_of_the_documents_is_right() {
    let documents =
        [DOCUMENT, "docs/reference/protocol.md", "docs/getting-started.md", "README.md"];
    let mut count = 0;
    for document in documents {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for block in blocks.filter(|block| block.contains("[result]")) {
            let schema = Schema::from_toml(block);
            schema.unwrap_or_else(|error| panic!("{}", error.in_file(document)));
            count += 1;
        }
    }
    assert!(count >= 2, "{count} schemas");
}

/// What is valid and may surprise is told on stderr, and what a file holds is shown.
#[test]
fn keys_and_names_in_doubt_and_samples_are_told() {
    let notation = |fields, by| {
        ringest(&["schema", "show", "--struct", "<4sI", "--fields", fields, "--by", by])
    };
    let doubted = notation("ip,n", "ip");
    let warning = "ringest: warning: the key ip is 4s, which is taken for text";
    assert!(stderr(&doubted).starts_with(warning), "{}", stderr(&doubted));
    assert!(stdout(&doubted).contains("type = \"text\""));
    let said = notation("ip:bytes,n", "ip");
    assert_eq!(stderr(&said), "");
    assert!(stdout(&said).contains("type = \"bytes\""));
    let case = notation("Count:bytes,n", "Count");
    let warning = "ringest: warning: the columns Count and count differ only in case: Spark";
    assert!(stderr(&case).starts_with(warning), "{}", stderr(&case));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sample");
    fs::write(&file, b"\0\0\0\x0e\0\x02Zz\0\0\0\0\0\x07").unwrap();
    let check = |schema: &[&str], sample: &str| {
        ringest(&[&["schema", "check", "--sample", sample], schema].concat())
    };
    let schema = ["--struct", ">2x4s2xH", "--fields", "t:text,n", "--by", "t"];
    let shown = check(&schema, file.to_str().unwrap());
    assert!(stdout(&shown).contains("t      text       2  \"Zz\"\n"), "{}", stdout(&shown));
    assert!(stdout(&shown).contains("note: skipped bytes are not zero in 1 of 1 record shown"));
    let other = check(&["--struct", ">I", "--fields", "n", "--by", "n"], file.to_str().unwrap());
    assert_eq!(other.status.code(), Some(1));
    let wrong = String::from_utf8(other.stdout).unwrap();
    assert!(wrong.contains("\nwrong: byte 0: packet length 14"), "{wrong}");
    let gone = check(&schema, "/nowhere");
    assert_eq!(gone.status.code(), Some(2));
    assert!(stderr(&gone).contains("cannot read --sample /nowhere: No such file"));
}
