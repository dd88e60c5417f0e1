//! docs/reference/vectors.json against the program: every frame, packet, stream and padding is
//! encoded, decoded or sent, and gives what the file says.

use super::common::wire::Client;
use super::common::{Engine, result_of, send};
use super::read;
use ringest::internals::{
    PacketParser, Padding, Reason, RecordForm, RunList, ShownText, Stop, TextEncoding,
    begins_with_packet, check_whole_packets, trim_padding,
};
use ringest::protocol::frame::{self, FrameType};
use ringest::protocol::payload::{Credentials, ErrorCode, Reply, Request};
use ringest::schema::{Endian, Kind, Schema};
use serde_json::Value;
use std::fs;

/// The default of `--packet-bytes-limit`.
const PACKET_BYTES_LIMIT: u64 = 16 << 20;

/// The whole file.
pub fn vectors() -> Value {
    serde_json::from_str(&read("docs/reference/vectors.json")).unwrap()
}

/// Bytes in hexadecimal.
pub fn bytes(hex: &Value) -> Vec<u8> {
    super::common::wire::unhex(hex.as_str().unwrap())
}

fn list(value: &Value) -> &[Value] {
    let list = value.as_array().unwrap();
    assert!(!list.is_empty());
    list
}

#[test]
fn the_check_value_of_the_checksum() {
    let check = &vectors()["check_value"];
    let crc = super::common::wire::crc32(&bytes(&check["data"]));
    assert_eq!(format!("{crc:08x}"), check["crc32"]);
}

#[test]
fn frames_encode_and_decode() {
    let vectors = vectors();
    for vector in list(&vectors["frames"]) {
        let (encoded, payload) = (bytes(&vector["frame"]), bytes(&vector["payload"]));
        let decoded = frame::decode(&encoded).unwrap().unwrap();
        assert_eq!(decoded.kind.name(), vector["type"], "{vector}");
        assert_eq!(decoded.kind as u8, vector["type_byte"], "{vector}");
        assert_eq!(decoded.payload, payload, "{vector}");
        let mut out = Vec::new();
        frame::encode(decoded.kind, &[&payload], &mut out);
        assert_eq!(out, encoded, "{vector}");
        let fields = &vector["fields"];
        let is_right = match vector["from"].as_str().unwrap() {
            "client" => is_request(Request::parse(decoded).unwrap(), fields),
            _ => is_reply(Reply::parse(decoded).unwrap(), fields),
        };
        assert!(is_right, "{vector}");
    }
    let named = |name| list(&vectors["frames"]).iter().any(|vector| vector["type"] == name);
    assert!(FrameType::ALL.into_iter().all(|kind| named(kind.name())));
}

fn is_request(request: Request<'_>, fields: &Value) -> bool {
    let is_data = |data: &[u8]| bytes(&fields["data"]) == data;
    match request {
        Request::Ping(timestamp) => fields["timestamp"] == u64::from_be_bytes(*timestamp),
        Request::Echo(data) | Request::Broadcast(data) => is_data(data),
        Request::Auth(Credentials { user, token }) => {
            fields["user"] == user && fields["token"] == token
        }
        Request::Data { sequence, body } => fields["sequence"] == sequence && is_data(body),
        // What a client says with an ERROR is not looked at.
        Request::Close | Request::Error => true,
    }
}

fn is_reply(reply: Reply<'_>, fields: &Value) -> bool {
    match reply {
        Reply::Pong(timestamp) => fields["timestamp"] == u64::from_be_bytes(*timestamp),
        Reply::EchoReply(data) | Reply::Broadcast(data) => bytes(&fields["data"]) == data,
        Reply::AuthReply(session) => {
            fields["accepted"] == session.is_some() && fields["session"].as_str() == session
        }
        Reply::DataAck(sequence) => fields["sequence"] == sequence,
        Reply::Error { code, message } => {
            let name = ErrorCode::from_byte(code).unwrap().name();
            let text = std::str::from_utf8(message).unwrap();
            fields["code"] == code && fields["code_name"] == name && fields["message"] == text
        }
    }
}

/// A server answers as soon as the byte that breaks a rule is there, and closes.
#[test]
fn faulty_frames_get_their_error() {
    let vectors = vectors();
    let engines =
        [Engine::start_messages(&[]), Engine::start_messages(&["--require-auth", "--auth-open"])];
    for vector in list(&vectors["faulty_frames"]) {
        let require_auth = vector["require_auth"].as_bool().unwrap();
        let mut client = Client::connect(engines[usize::from(require_auth)].messages());
        let until = vector["noticed_after"].as_u64().unwrap() as usize;
        client.send(&bytes(&vector["bytes"])[..until]);
        match vector["error_byte"].as_u64() {
            Some(code) => {
                let code = u8::try_from(code).unwrap();
                assert_eq!(ErrorCode::from_byte(code).unwrap().name(), vector["error"]);
                client.expect_error(code);
            }
            None => assert!(vector["error"].is_null()),
        }
        client.expect_end();
    }
}

#[test]
fn faulty_replies_are_refused() {
    for vector in list(&vectors()["faulty_replies"]) {
        let bytes = bytes(&vector["bytes"]);
        let refused = match frame::decode(&bytes) {
            Ok(frame) => Reply::parse(frame.expect("a whole frame")).is_err(),
            Err(_) => true,
        };
        assert!(refused, "{vector}");
    }
}

fn schema_of(vector: &Value) -> Schema {
    match vector["toml"].as_str() {
        Some(text) => Schema::from_toml(text).unwrap(),
        None => Schema::clone(&Schema::built_in()),
    }
}

#[test]
fn schemas_have_the_layout_of_the_file() {
    for vector in list(&vectors()["schemas"]) {
        let schema = schema_of(vector);
        assert_eq!(schema.name(), vector["name"]);
        assert_eq!(schema.record_bytes() as u64, vector["record_bytes"]);
        let named = schema.fields().iter().filter(|field| !field.name.is_empty());
        let fields = list(&vector["fields"]);
        assert_eq!(named.clone().count(), fields.len());
        for (field, listed) in named.zip(fields) {
            assert_eq!(field.name, listed["name"].as_str().unwrap());
            assert_eq!(field.kind.name(), listed["type"], "{listed}");
            assert_eq!(field.offset as u64, listed["offset"], "{listed}");
            assert_eq!(field.kind.width() as u64, listed["bytes"], "{listed}");
        }
    }
}

#[test]
fn packets_have_the_records_of_the_file() {
    for of_schema in list(&vectors()["schemas"]) {
        let schema = schema_of(of_schema);
        let form = RecordForm::of(&schema);
        for vector in list(&of_schema["packets"]) {
            let packet = bytes(&vector["bytes"]);
            let mut parser = PacketParser::new(form, PACKET_BYTES_LIMIT);
            let mut found = RunList::with_limit(8);
            let pass = parser.parse(&packet, 0, usize::MAX, &mut found);
            assert_eq!(pass.bytes, packet.len(), "{vector}");
            assert_eq!(parser.ended(), vector["end_record"].as_bool().unwrap(), "{vector}");
            let records = vector["records"].as_array().unwrap();
            assert_eq!(found.records(), records.len(), "{vector}");
            let mut body = Vec::new();
            for record in records {
                encode(&schema, record, vector["padding"].as_str().unwrap(), &mut body);
            }
            if parser.ended() {
                body.extend(bytes(&of_schema["end_record"]));
            }
            assert_eq!(body, packet[form.header_bytes()..], "{vector}");
        }
    }
}

/// Appends a record, field by field as the schema says.
fn encode(schema: &Schema, record: &Value, padding: &str, out: &mut Vec<u8>) {
    for field in schema.fields() {
        let value = &record[field.name.as_str()];
        let begin = out.len();
        match field.kind {
            Kind::Skip { bytes } => out.resize(begin + bytes, 0),
            Kind::Text { bytes, .. } | Kind::Bytes { bytes } => {
                out.extend(text(value));
                for at in 0..begin + bytes - out.len() {
                    out.push(match padding {
                        "nul" => 0,
                        "space" => b' ',
                        _ => [0, b' '][at % 2],
                    });
                }
            }
            kind => {
                out.extend(number(kind, value));
                if schema.endian() == Endian::Little {
                    out[begin..].reverse();
                }
            }
        }
        assert_eq!(out.len() - begin, field.kind.width(), "{}", field.name);
    }
}

fn text(value: &Value) -> Vec<u8> {
    match value.as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => bytes(&value["hex"]),
    }
}

/// The big-endian bytes of a number.
fn number(kind: Kind, value: &Value) -> Vec<u8> {
    let float = || match value.as_str() {
        Some(word) => word.parse().unwrap(),
        None => value.as_f64().unwrap(),
    };
    match kind {
        Kind::Bool => vec![u8::from(value.as_bool().unwrap())],
        Kind::F32 => (float() as f32).to_be_bytes().into(),
        Kind::F64 => float().to_be_bytes().into(),
        kind => {
            let whole = match value.as_i64() {
                Some(signed) => signed.to_be_bytes(),
                None => value.as_u64().unwrap().to_be_bytes(),
            };
            whole[8 - kind.width()..].into()
        }
    }
}

#[test]
fn lengths_are_refused_for_their_reason() {
    for of_schema in list(&vectors()["schemas"]) {
        let form = RecordForm::of(&schema_of(of_schema));
        let refused = of_schema["refused_lengths"].as_array().unwrap();
        assert_eq!(refused.is_empty(), form.is_bare());
        for vector in refused {
            let mut parser = PacketParser::new(form, PACKET_BYTES_LIMIT);
            let bytes = bytes(&vector["bytes"]);
            let pass = parser.parse(&bytes, 0, usize::MAX, &mut RunList::with_limit(1));
            let Stop::Refused(violation) = pass.stop else { panic!("{vector}: {pass:?}") };
            assert_eq!(Reason::from(violation).as_str(), vector["reason"], "{vector}");
        }
    }
}

#[test]
fn data_carries_records_or_not() {
    for of_schema in list(&vectors()["schemas"]) {
        let form = RecordForm::of(&schema_of(of_schema));
        for vector in list(&of_schema["data_payloads"]) {
            let payload = bytes(&vector["data"]);
            let records = begins_with_packet(&form, &payload, PACKET_BYTES_LIMIT);
            assert_eq!(records, vector["records"].as_bool().unwrap(), "{vector}");
            let checked = check_whole_packets(&form, &payload, PACKET_BYTES_LIMIT);
            let reason =
                checked.err().filter(|_| records).map(|fault| Reason::from(fault).as_str());
            assert_eq!(reason, vector["reason"].as_str(), "{vector}");
        }
    }
}

/// Each stream over a connection of its own.
#[test]
fn streams_give_their_result() {
    for of_schema in list(&vectors()["schemas"]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("schema.toml");
        fs::write(&path, of_schema["toml"].as_str().unwrap_or_default()).unwrap();
        let schema = match of_schema["toml"].is_null() {
            true => "default",
            false => path.to_str().unwrap(),
        };
        let streams = list(&of_schema["streams"]);
        let count = streams.len().to_string();
        let engine = Engine::start(&["--schema", schema, "--exit-after", &count]);
        let send = |stream: &Value| send(&engine, &bytes(&stream["bytes"]));
        let peers: Vec<_> = streams.iter().map(send).collect();
        let (_, results, log) = engine.wait();
        for (stream, peer) in streams.iter().zip(peers) {
            let result = result_of(&results, peer);
            for key in ["status", "reason", "records", "packets", "bytes_after_end", "groups"] {
                assert_eq!(result[key], stream[key], "{key} of {}\n{log}", stream["name"]);
            }
        }
    }
}

#[test]
fn paddings_are_taken_off() {
    for vector in list(&vectors()["paddings"]) {
        let kinds = vector["padding"].as_array().unwrap();
        let has = |name: &str| kinds.iter().any(|kind| kind == name);
        let padding = Padding { nul: has("nul"), space: has("space") };
        let field = bytes(&vector["field"]);
        let value = trim_padding(&field, padding);
        assert_eq!(value, bytes(&vector["value"]), "{vector}");
        let shown = ShownText(value, TextEncoding::Utf8).to_string();
        assert_eq!(shown, vector["shown"].as_str().unwrap());
    }
}

#[test]
fn texts_are_shown() {
    for vector in list(&vectors()["texts"]) {
        let encoding = match vector["encoding"].as_str().unwrap() {
            "utf-8" => TextEncoding::Utf8,
            "latin1" => TextEncoding::Latin1,
            other => panic!("{other} is not an encoding"),
        };
        let shown = ShownText(&bytes(&vector["value"]), encoding).to_string();
        assert_eq!(shown, vector["shown"].as_str().unwrap(), "{vector}");
    }
}

/// What the protocol page shows in hexadecimal is in the file.
#[test]
fn the_page_shows_vectors_of_the_file() {
    let (page, vectors) = (read("docs/reference/protocol.md"), vectors());
    let frames: Vec<&Value> = list(&vectors["frames"]).iter().map(|one| &one["frame"]).collect();
    let shown = page.split_ascii_whitespace().filter(|word| word.starts_with("deadbeef"));
    let shown: Vec<&str> = shown.collect();
    assert!(shown.len() >= 13, "{shown:?}");
    for frame in shown {
        assert!(frames.iter().any(|one| *one == frame), "{frame}");
    }
    let gauge = &vectors["schemas"][1];
    let (_, after) = page.split_once(gauge["toml"].as_str().unwrap()).unwrap();
    let block = after.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let (record, end) = block.trim_end().rsplit_once('\n').unwrap();
    let record: String = record.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(record, gauge["packets"][0]["bytes"].as_str().unwrap());
    assert!(end.starts_with("3800 and 00, 56 times"), "{end}");
}
