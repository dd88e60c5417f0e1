//! Checks each rule of a schema at its limit, with the line that the error names, and the round
//! trip through TOML for any schema.

use super::*;
use crate::wire::schema::{Aggregate, Function};
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

/// A valid schema, one line per key. Tests change one thing in it.
const RIGHT: &str = r#"name = "meter"
endian = "little"
[packet]
length = "u16"
end = "close"
[[field]]
name = "A"
type = "u32"
[[field]]
name = "B"
type = "f64"
[[field]]
type = "skip"
bytes = 3
[[field]]
name = "E"
type = "text"
bytes = 16
padding = ["nul"]
[result]
by = ["A", "E"]
aggregates = ["B:mean", "A:max"]
"#;

fn complaint(text: &str) -> Complaint {
    match Schema::from_toml(text) {
        Ok(schema) => panic!("this should be rejected:\n{text}\nbut gave {schema:?}"),
        Err(complaint) => complaint,
    }
}

/// Checks the error for [`RIGHT`] with one thing changed: its line, the text it marks, its words.
fn assert_says(from: &str, to: &str, line: usize, marked: &str, said: &str) {
    assert_eq!(RIGHT.matches(from).count(), 1, "{from} occurs once");
    assert_says_of(&RIGHT.replacen(from, to, 1), line, marked, said);
}

fn assert_says_of(text: &str, line: usize, marked: &str, said: &str) {
    let complaint = complaint(text);
    let shown = complaint.in_file("meter.toml");
    assert!(complaint.problem.contains(said), "{said:?} in\n{shown}");
    assert_eq!(complaint.line, line, "{shown}");
    assert!(shown.starts_with(&format!("meter.toml:{line}:{}: ", complaint.column)), "{shown}");
    let mut lines = shown.lines().rev();
    let (carets, excerpt) = (lines.next().unwrap(), lines.next().unwrap());
    let from = carets.find('^').unwrap();
    let under = excerpt.get(from..carets.len().min(excerpt.len())).unwrap_or_default();
    assert_eq!(under, marked, "{shown}");
}

#[test]
fn the_built_in_schema_is_that_of_the_protocol() {
    let schema = Schema::built_in();
    assert_eq!(schema.name(), "default");
    assert_eq!(schema.record_bytes(), 267);
    assert_eq!(schema.framing(), Framing::default());
    let fields: Vec<(&str, &str, usize, usize)> = schema
        .fields()
        .iter()
        .map(|field| (&*field.name, field.kind.name(), field.offset, field.kind.width()))
        .collect();
    let expected = [
        ("A", "u32", 0, 4),
        ("B", "u16", 4, 2),
        ("C", "f32", 6, 4),
        ("D", "i8", 10, 1),
        ("E", "text", 11, 256),
    ];
    assert_eq!(fields, expected);
    assert_eq!(schema.column_names(), ["A", "E", "B_mean", "C_sum", "D_min", "count"]);
    assert_eq!(Schema::from_toml(&schema.to_toml()).unwrap(), *schema);
    assert!(Arc::ptr_eq(&schema, &Schema::built_in()), "parsed once");
}

#[test]
fn every_key_is_read() {
    let schema = Schema::from_toml(RIGHT).unwrap();
    assert_eq!((schema.name(), schema.endian()), ("meter", Endian::Little));
    let framing = Framing {
        length: Length::U16,
        includes_itself: true,
        endian: Endian::Little,
        end: End::Close,
    };
    assert_eq!(schema.framing(), framing);
    let kinds: Vec<Kind> = schema.fields().iter().map(|field| field.kind).collect();
    let padding = Padding { nul: true, space: false };
    let text = Kind::Text { bytes: 16, padding };
    assert_eq!(kinds, [Kind::U32, Kind::F64, Kind::Skip { bytes: 3 }, text]);
    let offsets: Vec<usize> = schema.fields().iter().map(|field| field.offset).collect();
    assert_eq!((offsets, schema.record_bytes()), (vec![0, 4, 12, 15], 31));
    assert_eq!(schema.column_names(), ["A", "E", "B_mean", "A_max", "count"]);
}

#[test]
fn optional_keys_have_defaults() {
    let text = "[[field]]\nname='A'\ntype='u8'\n[[field]]\nname='E'\ntype='text'\nbytes=1\n\
                [result]\nby=['A']";
    let schema = Schema::from_toml(text).unwrap();
    assert_eq!(schema.name(), "record");
    assert_eq!(schema.framing(), Framing::default());
    assert_eq!(schema.fields()[1].kind, Kind::Text { bytes: 1, padding: Padding::BOTH });
    assert_eq!(schema.aggregates(), [Aggregate::Count]);
    // The length has the byte order of the record unless `length_endian` is set.
    let framing = |packet: &str| {
        Schema::from_toml(&format!("endian='little'\n{packet}\n{text}")).unwrap().framing()
    };
    assert_eq!(framing("").endian, Endian::Little);
    assert_eq!(framing("[packet]").endian, Endian::Little);
    assert_eq!(framing("[packet]\nlength_endian='big'").endian, Endian::Big);
    assert!(!framing("[packet]\nlength_includes_itself=false").includes_itself);
    let bare = framing("packet.length='none'");
    assert_eq!((bare.length, bare.end), (Length::None, End::ZeroRecord));
}

#[test]
fn a_text_may_be_in_latin_1() {
    let of = |encoding: &str| {
        let field = format!("{{name='E', type='text', bytes=4 {encoding}}}");
        Schema::from_toml(&format!("field=[{field}]\n[result]\nby=['E']"))
    };
    let latin1 = of(", encoding='latin1'").unwrap();
    assert_eq!(latin1.fields()[0].encoding, TextEncoding::Latin1);
    assert!(latin1.to_toml().contains("\nencoding = \"latin1\"\n"), "{}", latin1.to_toml());
    assert_eq!(Schema::from_toml(&latin1.to_toml()).unwrap(), latin1);
    assert_eq!(of("").unwrap(), of(", encoding='utf-8'").unwrap());
    assert_ne!(of("").unwrap(), latin1);
    let error = of(", encoding='latin-1'").unwrap_err().in_file("f");
    assert!(
        error.contains("one of \"utf-8\", \"latin1\"") && error.contains("did you mean"),
        "{error}"
    );
}

#[test]
fn any_toml_style_is_accepted() {
    let crlf = RIGHT.replace('\n', "\r\n");
    assert_eq!(Schema::from_toml(&crlf).unwrap(), Schema::from_toml(RIGHT).unwrap());
    let marked = format!("\u{feff}{RIGHT}");
    assert_eq!(Schema::from_toml(&marked).unwrap(), Schema::from_toml(RIGHT).unwrap());
    let inline = "endian = 'big'\nfield = [{ name = 'A', type = 'u16' }]\nresult = { by = ['A'] }";
    assert_eq!(Schema::from_toml(inline).unwrap().record_bytes(), 2);
    let hex = RIGHT.replace("bytes = 16", "bytes = 0x1_0");
    assert_eq!(Schema::from_toml(&hex).unwrap(), Schema::from_toml(RIGHT).unwrap());
}

#[test]
fn invalid_toml_is_reported_with_its_position() {
    assert_says("\"meter\"", "meter", 1, "meter", "not valid TOML: ");
    assert_says("[packet]", "[packet", 3, "", "not valid TOML: ");
    assert_says("end = ", "length = \"u16\"\nend = ", 5, "length", "duplicate key");
    assert_says("[result]", "[packet]\n[result]", 20, "packet", "duplicate key");
    let deep = format!("name = {}", "[".repeat(100_000));
    assert!(complaint(&deep).problem.contains("not valid TOML"));
    assert_says_of("\u{0}", 1, "", "not valid TOML");
}

#[test]
fn unknown_keys_are_reported_with_the_known_ones() {
    assert_says("endian", "endain", 2, "endain", "a schema has no key \"endain\"; did you mean");
    assert_says("end = ", "and = ", 5, "and", "[packet] has no key \"and\"; did you mean \"end\"");
    assert_says("bytes = 3", "size = 3", 14, "size", "Keys: name, type, bytes, padding");
    assert_says("by = ", "group_by = ", 21, "group_by", "[result] has no key \"group_by\"");
    assert_says("[result]", "[results]", 20, "results", "no key \"results\"; did you mean");
    assert_says("[packet]", "\"\\u001b[31m\" = 1\n[packet]", 3, "\"\\u001b[31m\"", "\\x1b[31m");
}

#[test]
fn missing_keys_are_reported_with_an_example() {
    assert_says("type = \"u32\"\n", "", 6, "[[field]]", "a [[field]] needs `type`, as in type = ");
    assert_says("name = \"A\"\n", "", 6, "[[field]]", "a [[field]] needs `name`, as in name = ");
    assert_says("bytes = 3\n", "", 12, "[[field]]", "of type skip needs `bytes`, as in");
    assert_says("bytes = 16\n", "", 15, "[[field]]", "of type text needs `bytes`");
    assert_says("by = [\"A\", \"E\"]\n", "", 20, "[result]", "[result] needs `by`, as in by = [");
    let (fields, _) = RIGHT.split_once("[result]").unwrap();
    assert_says_of(fields, 1, "n", "a schema needs `result`, as in a line [result]");
    assert_says_of("name = 'x'", 1, "n", "a schema needs `field`, as in a line [[field]]");
    assert_says("endian = \"little\"\n", "", 5, "[[field]]", "u32 has more than one byte");
}

#[test]
fn wrong_types_are_reported() {
    assert_says("\"meter\"", "5", 1, "5", "`name` must be a string, in double quotes; this is");
    assert_says("\"little\"", "true", 2, "true", "this is true or false");
    assert_says("\"A\"\ntype", "1.5\ntype", 7, "1.5", "this is a number with a fraction");
    assert_says("\"u32\"", "1979-05-27", 8, "1979-05-27", "this is a date");
    assert_says("= 3", "= \"3\"", 14, "\"3\"", "`bytes` must be a whole number; this is a string");
    assert_says("= 3", "= 3.0", 14, "3.0", "`bytes` must be a whole number");
    assert_says(
        "[\"nul\"]",
        "\"nul\"",
        19,
        "\"nul\"",
        "`padding` must be a list, such as [\"nul\"",
    );
    assert_says(
        "[\"A\", \"E\"]",
        "\"A\"",
        21,
        "\"A\"",
        "`by` must be a list, such as [\"A\", \"E\"]",
    );
    assert_says("\"E\"]", "5]", 21, "5", "`by` must be a list of strings");
    assert_says("\"A:max\"", "{}", 22, "{}", "`aggregates` must be a list of strings");
    let flag = "\"close\"\nlength_includes_itself = \"yes\"";
    assert_says("\"close\"", flag, 6, "\"yes\"", "true or false, unquoted; this is a string");
    let (_, fields) = RIGHT.split_once("end = \"close\"\n").unwrap();
    let text = format!("packet = 'u16'\nendian = 'big'\n{fields}");
    assert_says_of(&text, 1, "'u16'", "`packet` must be a table: write [packet]");
    assert_says_of(
        "result = 5\n[[field]]\nname='A'\ntype='u8'",
        1,
        "5",
        "`result` must be a table",
    );
    assert_says_of("[field]\nname='A'", 1, "[field]", "write [[field]], in double brackets");
    assert_says_of("field = [5]", 1, "5", "write [[field]], in double brackets");
}

#[test]
fn unknown_words_are_reported_with_the_known_ones() {
    assert_says("\"little\"", "\"network\"", 2, "\"network\"", "one of \"big\", \"little\"");
    assert_says("\"u16\"", "\"u8\"", 4, "\"u8\"", "one of \"u32\", \"u16\", \"none\", not");
    assert_says("\"close\"", "\"closed\"", 5, "\"closed\"", "did you mean \"close\"?");
    assert_says("\"f64\"", "\"double\"", 11, "\"double\"", "use \"f64\"");
    assert_says("\"f64\"", "\"f46\"", 11, "\"f46\"", "Types: u8, u16, u32");
    assert_says("\"nul\"", "\"null\"", 19, "\"null\"", "not \"null\"; did you mean");
    assert_says("\"nul\"", "\"nul\", \"nul\"", 19, "\"nul\"", "is listed twice");
    let length = "\"close\"\nlength_endian = \"\"";
    assert_says("\"close\"", length, 6, "\"\"", "`length_endian` must be one of");
}

#[test]
fn bytes_are_required_or_forbidden_by_type_and_limited() {
    let rule = "a field has 1 to 65535";
    assert_says("= 3", "= 0", 14, "0", rule);
    assert_says("= 3", "= -1", 14, "-1", rule);
    assert_says("= 3", "= 65536", 14, "65536", rule);
    assert_says("= 3", "= 99999999999999999999", 14, "99999999999999999999", rule);
    assert_says("\"u32\"", "\"u32\"\nbytes = 4", 9, "4", "the type u32 has a fixed width");
    let padded = "= 3\npadding = [\"nul\"]";
    assert_says("= 3", padded, 15, "[\"nul\"]", "only text has `padding`, and this is skip");
    let encoded = "= 3\nencoding = \"latin1\"";
    assert_says("= 3", encoded, 15, "\"latin1\"", "only text has `encoding`, and this is skip");
    let named = "\"skip\"\nname = \"gap\"";
    assert_says("\"skip\"", named, 14, "\"gap\"", "skipped bytes have no name; leave it out");
    let unnamed = "\"skip\"\nname = \"\"";
    assert_says("\"skip\"", unnamed, 14, "\"\"", "skipped bytes have no name");
}

#[test]
fn packets_without_length_take_no_settings_for_it() {
    let flag = "\"none\"\nlength_includes_itself = true";
    assert_says("\"u16\"", flag, 5, "true", "means no length, so leave `length_includes");
    let order = "\"none\"\nlength_endian = \"big\"";
    assert_says("\"u16\"", order, 5, "\"big\"", "leave `length_endian` out");
}

#[test]
fn names_have_limited_characters_and_length() {
    let longest = "N".repeat(64);
    let text = RIGHT.replace("\"meter\"", &format!("\"{longest}\""));
    assert_eq!(Schema::from_toml(&text).unwrap().name(), longest);
    let rule = "a name is 1 to 64 letters, digits, `-` or `_`";
    for name in ["\"\"", "\"a.b\"", "\"a b\"", &format!("\"{longest}N\"")] {
        assert_says("\"meter\"", name, 1, name, rule);
    }
    let text =
        RIGHT.replace("\"B\"", &format!("\"{longest}\"")).replace("B:", &format!("{longest}:"));
    assert_eq!(Schema::from_toml(&text).unwrap().fields()[1].name, longest);
    let right = RIGHT.replace("B:mean", "A:mean");
    let rule = "is not a field name; use a letter or `_`, then letters";
    for name in ["\"\"", "\"2B\"", "\"B C\"", "\"B-C\"", &format!("\"{longest}N\"")] {
        let text = right.replace("\"B\"", name);
        assert_says_of(&text, 10, name, rule);
    }
    for name in crate::wire::schema::RESERVED_NAMES {
        let name = format!("\"{name}\"");
        assert_says_of(&right.replace("\"B\"", &name), 10, &name, "is reserved for a column");
    }
    let twice = right.replace("\"B\"", "\"A\"");
    assert_says_of(&twice, 10, "\"A\"", "two fields are named \"A\"");
}

/// A schema with this many one-byte fields, of which the first is the key.
fn of_fields(fields: usize) -> String {
    let field = |i| format!("[[field]]\nname = \"f{i}\"\ntype = \"u8\"\n");
    (0..fields).map(field).collect::<String>() + "[result]\nby = [\"f0\"]\n"
}

#[test]
fn fields_and_bytes_have_a_maximum() {
    assert_eq!(Schema::from_toml(&of_fields(256)).unwrap().record_bytes(), 256);
    let line = 1 + 256 * 3;
    assert_says_of(&of_fields(257), line, "[[field]]", "257 fields; a record has 1 to 256");
    assert_says_of("field = []\nresult.by = []", 1, "[]", "0 fields; a record has 1 to 256");

    // 28 bytes besides the gap.
    let large = RIGHT.replace("\"u16\"", "\"u32\"");
    let with_gap = |bytes: usize| large.replace("= 3", &format!("= {bytes}"));
    assert_eq!(Schema::from_toml(&with_gap(65_507)).unwrap().record_bytes(), 65_535);
    assert_says_of(
        &with_gap(65_508),
        15,
        "[[field]]",
        "of 65536 bytes or more; the limit is 65535",
    );
}

#[test]
fn a_u16_length_has_room_for_a_record() {
    let with_gap = |bytes: usize| RIGHT.replace("= 3", &format!("= {bytes}"));
    assert_eq!(Schema::from_toml(&with_gap(65_505)).unwrap().packet_bytes_min(), 65_535);
    let rule = "with a u16 length a packet has at most 65535 bytes, but one record with its length";
    assert_says_of(&with_gap(65_506), 4, "\"u16\"", rule);
}

#[test]
fn keys_are_limited_distinct_and_not_floats() {
    let eight = of_fields(9).replace("[\"f0\"]", "['f0','f1','f2','f3','f4','f5','f6','f7']");
    assert_eq!(Schema::from_toml(&eight).unwrap().keys().len(), 8);
    let nine = eight.replace("'f7']", "'f7','f8']");
    let marked = "['f0','f1','f2','f3','f4','f5','f6','f7','f8']";
    assert_says_of(&nine, 29, marked, "9 keys; records are grouped by 1 to 8");
    assert_says("[\"A\", \"E\"]", "[]", 21, "[]", "0 keys; records are grouped by 1 to 8");
    assert_says("\"E\"]", "\"A\"]", 21, "\"A\"", "\"A\" is listed twice as a key");
    assert_says(
        "\"E\"]",
        "\"B\"]",
        21,
        "\"B\"",
        "\"B\" is f64; a key must be an integer, bool, text",
    );
    assert_says("\"E\"]", "\"e\"]", 21, "\"e\"", "no field \"e\"; did you mean \"E\"?");
    assert_says("\"E\"]", "\"\"]", 21, "\"\"", "there is no field \"\". Fields: A, B, E");
    // Invalid names are escaped in the message as well.
    let said = r#"there is no field "E". Fields: A, B, \xe2\x80\xae\x1b\xc3\xa9"#;
    assert_says("name = \"E\"", "name = \"\u{202e}\\u001b\u{e9}\"", 21, "\"E\"", said);

    let with_text = |bytes: usize| RIGHT.replace("= 16", &format!("= {bytes}"));
    assert!(Schema::from_toml(&with_text(4095)).is_ok());
    assert_says_of(&with_text(4096), 21, "\"E\"", "has 4096 bytes; a key has at most 4095");
    let no_key = with_text(4096).replace(", \"E\"]", "]");
    assert!(Schema::from_toml(&no_key).is_ok(), "only keys are limited");
}

#[test]
fn aggregates_are_distinct_and_of_numbers() {
    let list: Vec<String> =
        (0..64).map(|i| format!("'f{}:{}'", i / 8, Function::ALL[i % 8].name())).collect();
    let with = |list: &[String]| of_fields(9) + &format!("aggregates = [{}]\n", list.join(","));
    assert_eq!(Schema::from_toml(&with(&list)).unwrap().aggregates().len(), 65);
    let more = [list, vec!["'f8:sum'".to_owned()]].concat();
    let complaint = complaint(&with(&more));
    assert_eq!((complaint.line, complaint.column), (30, 14));
    assert!(complaint.problem.contains("65 aggregates; the limit is 64"), "{complaint:?}");

    let said = "this aggregate is listed twice";
    assert_says("\"A:max\"", "\"B:mean\"", 22, "\"B:mean\"", said);
    assert_says("\"A:max\"", "\"count\", \"count\"", 22, "\"count\"", said);
    assert_says("\"A:max\"", "\"E:max\"", 22, "\"E:max\"", "\"E\" is text, which has no max");
    assert_says(
        "\"A:max\"",
        "\"A:avg\"",
        22,
        "\"A:avg\"",
        "function \"avg\"; did you mean \"mean\"",
    );
    assert_says("\"A:max\"", "\"C:max\"", 22, "\"C:max\"", "there is no field \"C\"");
    assert_says("\"A:max\"", "\"A\"", 22, "\"A\"", "is not an aggregate; write FIELD:FUNCTION");
    let counted = RIGHT.replace("\"A:max\"", "\"count\", \"A:max\"");
    let names = Schema::from_toml(&counted).unwrap().column_names();
    assert_eq!(
        names,
        ["A", "E", "B_mean", "count", "A_max"],
        "the count keeps its listed position"
    );
}

#[test]
fn column_names_are_unique() {
    let clash = RIGHT.replace("\"E\"", "\"B_mean\"");
    assert_says_of(&clash, 22, "\"B:mean\"", "two columns of the result would be named \"B_mean\"");
    // The mean of floats is stored as a mean and a rest.
    let clash = RIGHT.replace("\"E\"", "\"mean_B\"");
    assert_says_of(&clash, 22, "\"B:mean\"", "two columns of partials would be named \"mean_B\"");
    // The sum of a 64-bit integer field has two parts.
    let text = "endian='big'\n[[field]]\nname='X'\ntype='u64'\n[[field]]\nname='low_X'\ntype='u8'\n\
                [result]\nby=['X']\naggregates=['X:sum','low_X:sum']\n";
    let said = "two columns of partials would be named \"sum_low_X\"";
    assert_says_of(text, 10, "'low_X:sum'", said);
}

fn kinds() -> impl Strategy<Value = Kind> {
    let width = prop_oneof![8 => 1..300_usize, 1 => Just(4095_usize)];
    (0..words::TYPES.len(), width, any::<bool>(), any::<bool>()).prop_map(
        |(index, bytes, nul, space)| {
            words::kind(words::TYPES[index], bytes, Padding { nul, space }).unwrap()
        },
    )
}

fn framings() -> impl Strategy<Value = Framing> {
    (0..3_usize, any::<bool>(), 0..2_usize, 0..2_usize).prop_map(
        |(length, includes_itself, endian, end)| Framing {
            length: LENGTHS[length].1,
            includes_itself,
            endian: ENDIANS[endian].1,
            end: ENDS[end].1,
        },
    )
}

/// Any schema: fields of any type, some of them keys, some with aggregates.
fn schemas() -> impl Strategy<Value = Schema> {
    let functions = subsequence(Function::ALL.to_vec(), 0..=8);
    let choice = (any::<bool>(), any::<bool>(), functions);
    let fields = proptest::collection::vec((kinds(), choice), 1..20);
    ("[A-Za-z0-9_-]{1,64}", 0..2_usize, framings(), fields, any::<Index>(), any::<bool>())
        .prop_map(|(name, endian, framing, chosen, place, counted)| {
            let names = |i: usize, kind: &Kind| match kind {
                Kind::Skip { .. } => String::new(),
                _ => format!("{}{i}", ["a", "_B", "Field_of_"][i % 3]),
            };
            let numbered = || chosen.iter().enumerate();
            let fields = numbered().map(|(i, (kind, _))| (names(i, kind), *kind)).collect();
            let can_be_key = |kind: &Kind| !kind.is_float() && !matches!(kind, Kind::Skip { .. });
            let keys = numbered().filter(|(_, (kind, (is_key, ..)))| *is_key && can_be_key(kind));
            let keys = keys.map(|(i, _)| i).take(8).collect();
            let is_number = |kind: &Kind| !kind.is_text() && !matches!(kind, Kind::Skip { .. });
            let of = numbered().filter(|(_, (kind, (_, has, _)))| *has && is_number(kind));
            let of = of.flat_map(|(field, (_, (_, _, functions)))| {
                functions.iter().map(move |&function| Aggregate::Of { field, function })
            });
            let mut aggregates: Vec<Aggregate> = of.take(64).collect();
            if counted && aggregates.len() < 64 {
                aggregates.insert(place.index(aggregates.len() + 1), Aggregate::Count);
            }
            Schema::new(name, ENDIANS[endian].1, framing, fields, keys, aggregates)
        })
        // Some combinations are invalid, such as those without a key.
        .prop_filter_map("a schema", Result::ok)
}

proptest! {
    #[test]
    fn any_schema_round_trips_through_toml(schema in schemas()) {
        let text = schema.to_toml();
        let back = Schema::from_toml(&text);
        let back = back.unwrap_or_else(|error| panic!("{}\n{text}", error.in_file("made.toml")));
        prop_assert_eq!(&back, &schema);
        prop_assert_eq!(back.to_toml(), text);
    }

    /// Whatever the text holds, nothing panics and nothing is shown unescaped.
    #[test]
    fn any_text_is_parsed_or_rejected(
        at in any::<Index>(),
        bytes in 0..30_usize,
        new in "\\PC{0,4}|[\u{0}-\u{1f}]",
    ) {
        let mut text = RIGHT.to_owned();
        let at = at.index(text.len());
        text.replace_range(at..(at + bytes).min(text.len()), &new);
        if let Err(complaint) = Schema::from_toml(&text) {
            let shown = complaint.in_file("x");
            let clean = shown.bytes().all(|b| b == b'\n' || (0x20..0x7f).contains(&b));
            prop_assert!(clean, "{}", shown);
        }
    }
}
