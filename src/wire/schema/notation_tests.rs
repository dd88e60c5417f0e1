//! Compares the struct notation with the sizes that Python gives, and checks the message for each
//! way to write it wrong.

use super::*;
use crate::wire::schema::Length;
use proptest::prelude::*;

fn schema(format: &str, fields: &str, by: &str, aggregates: &str) -> Result<Schema, String> {
    let aggregates = (!aggregates.is_empty()).then_some(aggregates);
    Notation { format, fields, by, aggregates }.schema()
}

#[test]
fn the_built_in_schema_can_be_written_in_notation() {
    let built_in = Schema::built_in();
    let made = schema(">IHfb256s", "A,B,C,D,E", "A,E", "B:mean,C:sum,D:min").unwrap();
    assert_eq!(made.fields(), built_in.fields());
    assert_eq!(made.aggregates(), built_in.aggregates());
    assert_eq!(made.framing(), built_in.framing());
    assert_eq!(made.endian(), built_in.endian());
    assert_eq!(made.column_names(), built_in.column_names());
}

/// The sizes are those of `struct.calcsize` in Python 3.11.
#[test]
fn sizes_are_those_of_python() {
    let cases = [
        (">IHfb256s", 5, 267),
        ("<IHfb256s", 5, 267),
        ("!IHfb256s", 5, 267),
        ("<cbB?hHiIlLqQfds", 15, 53),
        (">3I", 3, 12),
        (">3c", 3, 3),
        ("<I4x 2H\tx ?", 4, 14),
        ("<10x10s", 1, 20),
        (">256B", 256, 256),
        (">65535s", 1, 65_535),
    ];
    for (format, fields, bytes) in cases {
        let names: Vec<String> = (0..fields).map(|i| format!("f{i}")).collect();
        // The first field is the key, and none of these is a float, which cannot be one.
        let made = schema(format, &names.join(","), "f0", "");
        let made = match made {
            // A field of 65,535 bytes is valid but too wide for a key.
            Err(error) if bytes > 4095 => {
                assert!(error.contains("65535 bytes; a key has at most 4095"), "{error}");
                continue;
            }
            made => made.unwrap_or_else(|error| panic!("{error}")),
        };
        assert_eq!(made.record_bytes(), bytes, "{format}");
        let named = made.fields().iter().filter(|field| !field.name.is_empty()).count();
        assert_eq!(named, fields, "{format}");
    }
}

#[test]
fn each_code_maps_to_its_type() {
    let names = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o";
    let made = schema("<cbB?hHiIlLqQfd5s3x", names, "a", "").unwrap();
    let kinds: Vec<&str> = made.fields().iter().map(|field| field.kind.name()).collect();
    let expected = [
        "bytes", "i8", "u8", "bool", "i16", "u16", "i32", "u32", "i32", "u32", "i64", "u64", "f32",
        "f64", "text", "skip",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(made.fields()[14].kind, Kind::Text { bytes: 5, padding: Padding::BOTH });
    assert_eq!(made.fields()[15].kind, Kind::Skip { bytes: 3 });
    let framing = made.framing();
    assert_eq!((framing.length, framing.includes_itself), (Length::U32, true));
    assert_eq!(framing.endian, Endian::Little);
}

#[test]
fn errors_name_the_problem_and_the_character() {
    // Format, fields, by, aggregates; part of the message, and the text that the carets mark.
    let cases: [(&str, &str, &str, &str, &str, &str); 34] = [
        ("IH", "A,B", "A", "", "--struct, character 1: the first character", "I"),
        ("@IH", "A,B", "A", "", "sizes and order differ between machines", "@"),
        ("=IH", "A,B", "A", "", "--struct, character 1: ", "="),
        ("", "A", "A", "", "the first character sets the byte order", ""),
        (">", "A", "A", "", "no fields; list the type of each", ">"),
        (">IwH", "A,B", "A", "", "character 3: unknown type \"w\"; expected one of x c", "w"),
        (">I\u{1b}H", "A,B", "A", "", "unknown type \"\\x1b\"", "\\u{1b}"),
        (">Ie", "A,B", "A", "", "character 3: e (2-byte float) is not supported", "e"),
        (">I9p", "A,B", "A", "", "p (Pascal string) is not supported; write B8s", "9p"),
        (">Ip", "A,B", "A", "", "write B: a length", "p"),
        (">In", "A,B", "A", "", "the size of n differs between machines", "n"),
        (">IN", "A,B", "A", "", "write q or Q for 8 bytes", "N"),
        (">IP", "A,B", "A", "", "the size of P differs", "P"),
        (">I<H", "A,B", "A", "", "set once, by the first character", "<"),
        (">I12", "A,B", "A", "", "character 3: a number must be followed by", "12"),
        (">I0s", "A,B", "A", "", "a count of 0 before s; a field has 1 to 65535", "0s"),
        (">I0H", "A,B", "A", "", "0H makes no field, and nothing is aligned", "0H"),
        (">I0H", "A,B", "A", "", "\">\"; leave it out", "0H"),
        // What Python does with @ at the end of a struct.
        ("<QI0Q", "A,B", "A", "", "write 4x for the gap", "0Q"),
        (">I65536s", "A,B", "A", "", "65536 or more before s; a", "65536s"),
        (">I99999999999999999999s", "A,B", "A", "", "65536 or more", "99999999999999999999s"),
        (">I99999999999999999999H", "A,B", "A", "", "more than 256", "99999999999999999999H"),
        (">256BH", "A,B", "A", "", "character 6: this makes more than 256", "H"),
        (">IHf", "A,B", "A", "", "this is field 3 of 3, but --fields has 2 names", "f"),
        (">I3xH", "A,B,C", "A", "", "--fields, character 5: 3 names, but --struct has 2", "C"),
        (">IH", "A,,B", "A", "", "--fields, character 3: a name is missing here", ","),
        (">IH", "A,node", "A", "", "--fields, character 3: \"node\" is reserved for", "node"),
        (">I2xH", "A,A", "A", "", "--fields, character 3: two fields are named \"A\"", "A"),
        (">IH", "A,2B", "A", "", "\"2B\" is not a field name", "2B"),
        (">IH", "A,B", "A, C", "", "--by, character 4: there is no field \"C\"", "C"),
        (">IH", "A,B", "A,B,A", "", "--by, character 5: \"A\" is listed twice", "A"),
        (">IH", "A,B", "A", "B:mode", "character 1: unknown function \"mode\"", "B:mode"),
        (">I4s", "A,B", "A", "count,B:sum", "--agg, character 7: \"B\" is text", "B:sum"),
        (">IH", "A,B", "A", "B", "\"B\" is not an aggregate; write FIELD:FUN", "B"),
    ];
    for (format, fields, by, aggregates, said, marked) in cases {
        let error = schema(format, fields, by, aggregates).unwrap_err();
        assert!(error.contains(said), "{format}: {error}");
        let lines: Vec<&str> = error.lines().collect();
        let (text, carets) = (lines[1], lines[2]);
        let from = carets.find('^').unwrap();
        let under = text.get(from..carets.len().min(text.len())).unwrap_or_default();
        assert_eq!(under, marked, "{error}");
    }
}

#[test]
fn an_s_may_be_bytes_or_latin_1() {
    let notation =
        |fields| Notation { format: "<4s4s16sI", fields, by: "ip,unit", aggregates: None };
    let said = |fields| notation(fields).schema_and_doubts().unwrap();
    let (schema, doubts) = said("ip:bytes,unit:text,city:latin1,n");
    let kinds: Vec<Kind> = schema.fields().iter().map(|field| field.kind).collect();
    let text = |bytes| Kind::Text { bytes, padding: Padding::BOTH };
    assert_eq!(kinds, [Kind::Bytes { bytes: 4 }, text(4), text(16), Kind::U32]);
    assert_eq!(schema.fields()[2].encoding, TextEncoding::Latin1);
    assert_eq!(schema.fields()[1].encoding, TextEncoding::Utf8);
    assert!(doubts.is_empty(), "{doubts:?}");
    // The same schema as a file.
    assert_eq!(Schema::from_toml(&schema.to_toml()).unwrap(), schema);
    // A key in doubt is named, and no field that is not a key.
    let (_, doubts) = said("ip, unit:text ,city,n");
    assert_eq!(doubts.len(), 1);
    let expected = "the key ip is 4s, which is taken for text";
    assert!(doubts[0].starts_with(expected) && doubts[0].contains("ip:bytes"), "{doubts:?}");
    let error = |fields| notation(fields).schema().unwrap_err();
    let unknown = error("ip:byte,unit,city,n");
    assert!(
        unknown.contains("--fields, character 4: an s is text") && unknown.contains("\"bytes\"?")
    );
    let number = error("ip,unit,city,n:bytes");
    assert!(number.contains("character 16: only an s can be text or bytes, and \"n\" is u32"));
}

#[test]
fn a_long_s_as_a_key_is_not_in_doubt() {
    let doubts = |format| {
        let notation = Notation { format, fields: "a", by: "a", aggregates: None };
        notation.schema_and_doubts().unwrap().1.len()
    };
    assert_eq!((doubts("<16s"), doubts("<17s")), (1, 0));
}

proptest! {
    /// Whatever the options hold, nothing panics and nothing is shown unescaped.
    #[test]
    fn any_text_gives_a_schema_or_says_why(
        format in "[><]([0-9]{0,3}[xcbB?hHiIlLqQfdsepnNP \\PC])*",
        fields in "([A-D],){0,5}\\PC{0,3}",
        by in "[A-D,:]{0,5}",
        aggregates in "([A-D]:(sum|min|x),?){0,3}\\PC?",
    ) {
        if let Err(error) = schema(&format, &fields, &by, &aggregates) {
            prop_assert!(error.bytes().all(|b| b == b'\n' || (0x20..0x7f).contains(&b)));
        }
    }
}
