"""Schemas: their rules and forms, and their records against a naive decoder."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from naive_records import naive_values, random_schema, random_value

from ringest import Column, Field, Packet, RecordError, RingestError, Schema, SchemaError

SMALL = 'endian = "big"\n[[field]]\nname = "a"\ntype = "u16"\n[result]\nby = ["a"]\n'


def test_the_built_in_record() -> None:
    schema = Schema.default()
    assert schema.name == "default"
    assert schema.record_bytes == 267
    assert [field.offset for field in schema.fields] == [0, 4, 6, 10, 11]
    assert schema.packet == Packet("u32", True, "big", "zero-record")
    packed = schema.pack({"A": 1, "B": 500, "C": 2.5, "D": -3, "E": "pump"})
    assert packed == struct.pack(">IHfb256s", 1, 500, 2.5, -3, b"pump")
    assert schema.result_columns == (
        Column("A", "u32"),
        Column("E", "text"),
        Column("B_mean", "f64"),
        Column("C_sum", "f64"),
        Column("D_min", "i8"),
        Column("count", "u64"),
    )


@pytest.mark.parametrize("seed", range(100))
def test_random_schemas_pack_as_struct_and_read_back(seed: int) -> None:
    rng = random.Random(seed)
    schema = random_schema(rng)
    fields = [field for field in schema.fields if field.type != "skip"]
    assert schema.names == tuple(field.name for field in fields)
    assert schema.record_bytes == sum(field.bytes for field in schema.fields)
    for _ in range(20):
        values = {field.name: random_value(rng, field) for field in fields}
        record = schema.pack(values)
        assert len(record) == schema.record_bytes
        assert naive_values(schema, record) == values
        assert schema.unpack(record) == values
        assert schema.pack(list(values.values())) == record
        assert schema.pack(tuple(values.values())) == record
        # Any bytes: packing what was read gives the same values again.
        noise = rng.randbytes(schema.record_bytes)
        read = schema.unpack(noise)
        assert repr(read) == repr(naive_values(schema, noise))
        assert repr(schema.unpack(schema.pack(read))) == repr(read)


@pytest.mark.parametrize("seed", range(100))
def test_the_toml_form_of_random_schemas_reads_back(seed: int, tmp_path: Path) -> None:
    schema = random_schema(random.Random(seed))
    again = Schema.from_toml(schema.to_toml())
    assert again == schema
    assert hash(again) == hash(schema)
    path = tmp_path / "schema.toml"
    path.write_text(schema.to_toml(), encoding="utf-8")
    assert Schema.from_file(path) == schema


def test_defaults_of_the_toml_form() -> None:
    schema = Schema.from_toml(SMALL.replace("big", "little"))
    assert schema.name == "record"
    assert schema.packet == Packet("u32", True, "little", "zero-record")
    assert [str(one) for one in schema.aggregates] == ["count"]
    text = '[[field]]\nname = "t"\ntype = "text"\nbytes = 3\n[result]\nby = ["t"]\n'
    schema = Schema.from_toml(text)
    assert set(schema.fields[0].padding) == {"nul", "space"}
    bare = Schema.from_toml(SMALL + '[packet]\nlength = "none"\nend = "close"\n')
    assert (bare.packet.length, bare.packet.end, bare.packet_records_max) == ("none", "close", 1)


def test_the_struct_notation() -> None:
    schema = Schema.from_struct(
        "<2x 3sB2HcIq?d", fields="t,b,h1,h2,c,i,q,o,d", by="b,c", agg=["d:var", "o:sum"]
    )
    assert [(one.name, one.type, one.bytes, one.offset) for one in schema.fields] == [
        ("", "skip", 2, 0),
        ("t", "text", 3, 2),
        ("b", "u8", 1, 5),
        ("h1", "u16", 2, 6),
        ("h2", "u16", 2, 8),
        ("c", "bytes", 1, 10),
        ("i", "u32", 4, 11),
        ("q", "i64", 8, 15),
        ("o", "bool", 1, 23),
        ("d", "f64", 8, 24),
    ]
    assert schema.endian == schema.packet.length_endian == "little"
    values = ("ab", 1, 2, 3, b"c", 4, -5, True, 6.5)
    assert schema.pack(values) == struct.pack(
        "<2x3sB2HcIq?d", b"ab", 1, 2, 3, b"c", 4, -5, True, 6.5
    )
    assert [one.type for one in schema.result_columns] == ["u8", "bytes", "f64", "u64", "u64"]
    assert Schema.from_struct("!H", fields=["a"], by=["a"]).endian == "big"


@pytest.mark.parametrize(
    ("notation", "fields", "rule"),
    [
        ("IH", "a,b", "native sizes differ"),
        ("@IH", "a,b", "native sizes differ"),
        ("", "", "native sizes differ"),
        (">e", "a", "binary16"),
        (">N", "a", "native size"),
        (">k", "a", "unknown code 'k'"),
        (">I", "a,b", "1 item besides x, but `fields` has 2 names"),
        (">3I", "a,b", "3 items besides x, but `fields` has 2 names"),
        (">I3", "a", "a count that has no code"),
        (">0s", "a", "the count 0 is not from 1 to 65535"),
        (">99999999x", "", "is not from 1 to 65535"),
        (">I", "count", "reserved for a column"),
        (">f", "a", "differ in their last bits"),
    ],
)
def test_errors_of_the_notation_state_the_rule(notation: str, fields: str, rule: str) -> None:
    with pytest.raises(SchemaError, match=rule):
        Schema.from_struct(notation, fields=fields, by=fields.split(",")[0])


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("a = ]", 1, "invalid TOML"),
        ("x = 1\n" + SMALL, 1, "unknown key 'x'"),
        (SMALL + "[other]\n", 7, "unknown key 'other'"),
        ("\nname = 3\n" + SMALL, 2, "`name` in the schema must be a string"),
        (SMALL.replace("u16", "uint16_t"), 4, "unknown type 'uint16_t'; expected one of u8"),
        (SMALL.replace('type = "u16"', ""), 2, "`type` is missing"),
        (SMALL.replace('name = "a"', ""), 2, "`name` is missing"),
        (SMALL.replace('"u16"', '"u16"\nbytes = 2'), 5, "u16 has a fixed width; remove `bytes`"),
        (SMALL.replace('"u16"', '"text"'), 2, "`bytes` is missing"),
        (SMALL.replace('"u16"', '"text"\nbytes = 0'), 5, "0 bytes; a field has 1 to 65535"),
        (SMALL.replace('"u16"', '"text"\nbytes = true'), 5, "`bytes` in .* must be an integer"),
        (SMALL.replace('"u16"', '"u16"\npadding = []'), 5, "`padding` applies only to text"),
        (SMALL.replace('"u16"', '"text"\nbytes=1\npadding=["x"]'), 6, "unknown padding 'x'"),
        (SMALL.replace('"u16"', '"text"\nbytes=1\npadding=["nul", "nul"]'), 6, "duplicate pad"),
        (SMALL.replace('"u16"', '"skip"\nbytes = 3'), 3, "skipped bytes have no name"),
        (SMALL.replace('"a"', '"node"'), 3, "reserved for a column"),
        (SMALL.replace('"a"', '"1a"'), 3, "a letter or `_`"),
        (SMALL.replace("[result]", '[[field]]\nname = "a"\ntype = "u8"\n[result]'), 6, "two fie"),
        (SMALL.replace('["a"]', '["b"]'), 6, "unknown field 'b'; the fields are a"),
        (SMALL.replace('["a"]', '["a", "a"]'), 6, '"a" is listed twice'),
        (SMALL.replace('["a"]', "[]"), 6, "0 keys; records are grouped by 1 to 8"),
        (SMALL.replace('["a"]', "[1]"), 6, "array of strings"),
        (SMALL.replace('["a"]', '"a"'), 6, "must be an array"),
        (SMALL.replace('by = ["a"]', ""), 5, "`by` is missing"),
        (SMALL + 'aggregates = ["a:avg"]', 7, "unknown function 'avg'; expected one of sum"),
        (SMALL + 'aggregates = ["a"]', 7, "FIELD:FUNCTION"),
        (SMALL + 'aggregates = ["b:sum"]', 7, "unknown field 'b'"),
        (SMALL + 'aggregates = ["a:sum", "a:sum"]', 7, '"a:sum" is listed twice'),
        (SMALL + '[packet]\nlength = "u64"', 8, "unknown length 'u64'"),
        (SMALL + '[packet]\nend = "eof"', 8, "unknown end"),
        (SMALL + '[packet]\nlength_endian = "x"', 8, "unknown length_endian"),
        (SMALL + '[packet]\nlength="none"\nlength_endian = "big"', 9, "has no effect"),
        (SMALL + "[packet]\nlength_includes_itself = 1", 8, "must be true or false"),
        (SMALL.replace("big", "middle"), 1, "unknown byte order"),
    ],
)
def test_errors_of_the_toml_form_name_line_and_rule(text: str, line: int, rule: str) -> None:
    with pytest.raises(SchemaError, match=rule) as caught:
        Schema.from_toml(text)
    assert f"line {line}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "[[field]] is missing"),
        ("field = []\n[result]\nby = []", "0 fields; a record has 1 to 256"),
        ('[[field]]\nname="a"\ntype="u8"', "[result] is missing"),
        (SMALL.replace('endian = "big"\n', ""), 'write endian = "big" or "little"'),
        ("name = 'a b'\n" + SMALL, "a name consists of 1 to 64 letters"),
    ],
)
def test_errors_without_a_line_name_the_rule(text: str, rule: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.from_toml(text)
    assert rule in str(caught.value)


def test_errors_of_files_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "meter.toml"
    for data in (b"x = 1", b"\xff", b"#" * (1 << 20) + b"\n"):
        path.write_bytes(data)
        with pytest.raises(SchemaError, match=r"meter\.toml: "):
            Schema.from_file(path)
    with pytest.raises(FileNotFoundError):
        Schema.from_file(tmp_path / "none.toml")
    assert issubclass(SchemaError, RingestError)


def wide(**changes: Any) -> Schema:
    """A small schema with some arguments changed."""
    arguments: dict[str, Any] = {"fields": [Field("a", "u8")], "by": ["a"], **changes}
    return Schema(**arguments)


def test_limits_at_their_edges() -> None:
    many = [Field(f"f{i}", "u8") for i in range(257)]
    assert len(wide(fields=many[:256], by=["f0"]).fields) == 256
    with pytest.raises(SchemaError, match="257 fields"):
        wide(fields=many, by=["f0"])
    names = [field.name for field in many]
    assert len(wide(fields=many[:9], by=names[:8]).by) == 8
    with pytest.raises(SchemaError, match="9 keys"):
        wide(fields=many[:9], by=names[:9])
    sums = [f"{name}:sum" for name in names]
    assert len(wide(fields=many[:66], by=["f65"], aggregates=sums[:64]).aggregates) == 65
    with pytest.raises(SchemaError, match="65 aggregates"):
        wide(fields=many[:66], by=["f65"], aggregates=sums[:65])
    skip = [Field("a", "u8"), Field("", "skip", 65_534)]
    assert wide(fields=skip).record_bytes == 65_535
    with pytest.raises(SchemaError, match="65536 bytes; the maximum is 65535"):
        wide(fields=[*skip, Field("b", "u8")])
    assert wide(fields=[Field.text("a", 4095)]).record_bytes == 4095
    with pytest.raises(SchemaError, match="a key has at most 4095"):
        wide(fields=[Field.text("a", 4096)])
    long = "a" * 64
    assert wide(fields=[Field(long, "u8")], by=[long], name=long).by == (long,)
    with pytest.raises(SchemaError, match="64 at most"):
        wide(fields=[Field(long + "a", "u8")], by=[long + "a"])
    with pytest.raises(SchemaError, match="a name consists of 1 to 64"):
        wide(name=long + "a")


@pytest.mark.parametrize("includes", [True, False])
def test_a_record_has_to_fit_into_a_u16_packet(includes: bool) -> None:
    packet = Packet("u16", includes)
    fields = [Field("a", "u8"), Field("", "skip", 65_532)]
    assert wide(fields=fields, packet=packet).packet_records_max == 1
    with pytest.raises(SchemaError, match="allows 65535 at most"):
        wide(fields=[*fields, Field("b", "u8")], packet=packet)


def test_columns_have_names_of_their_own() -> None:
    fields = [Field("a_sum", "u8"), Field("a", "u8")]
    with pytest.raises(SchemaError, match=r'of the result would be named "a_sum"'):
        wide(fields=fields, by=["a_sum"], aggregates=["a:sum"])
    fields = [Field("sum_a", "u8"), Field("a", "u8")]
    with pytest.raises(SchemaError, match=r'of the partials would be named "sum_a"'):
        wide(fields=fields, by=["sum_a"], aggregates=["a:mean"])
    # The lower half of the 64-bit sum of `x`, and the sum of `low_x`.
    fields = [Field("x", "u64"), Field("low_x", "u8")]
    with pytest.raises(SchemaError, match=r'would be named "sum_low_x"'):
        wide(fields=fields, by=["x"], aggregates=["x:sum", "low_x:mean"])


def test_functions_are_of_numbers() -> None:
    for field in (Field.text("t", 3), Field("t", "bytes", 3)):
        with pytest.raises(SchemaError, match="functions apply to numbers and bool"):
            wide(fields=[field], by=["t"], aggregates=["t:min"])


ALL = Schema.from_struct(
    ">BhQf?3s2xc", fields="u,i,q,f,o,t,c", by="u", agg="q:sum,i:sum,f:sum,o:sum,i:min"
)
GOOD: dict[str, Any] = {"u": 1, "i": -2, "q": 3, "f": 4.0, "o": True, "t": "abc", "c": b"z"}


def test_types_of_columns() -> None:
    types = [(one.name, one.type) for one in ALL.result_columns]
    assert types == [
        ("u", "u8"), ("q_sum", "u64"), ("i_sum", "i64"), ("f_sum", "f64"), ("o_sum", "u64"),
        ("i_min", "i16"), ("count", "u64"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("u", 256, "u: 256 does not fit; u8 holds integers from 0 to 255"),
        ("u", -1, "u8 holds integers from 0 to 255"),
        ("u", 1.5, "u8 holds integers"),
        ("i", 32_768, "i16 holds integers from -32768 to 32767"),
        ("q", 1 << 64, "u64 holds integers from 0 to 18446744073709551615"),
        ("f", 1e39, "f: 1e.39 does not fit; f32 holds an IEEE 754 binary32 number"),
        ("f", "x" * 200, "f32 holds an IEEE"),
        ("o", "true", "neither True nor False"),
        ("o", 2, "neither True nor False"),
        ("t", "äb", None),
        ("t", "äbc", "the text has 4 bytes in UTF-8, the field at most 3"),
        ("t", "\ud800", "pass bytes instead"),
        ("t", 3, "neither str nor bytes"),
        ("c", b"", "0 bytes; the field holds exactly 1"),
        ("c", b"ab", "2 bytes; the field holds exactly 1"),
        ("c", "a", "is not bytes"),
    ],
)
def test_values_that_do_not_fit_are_named(name: str, value: Any, rule: str | None) -> None:
    record = {**GOOD, name: value}
    if rule is None:
        assert ALL.unpack(ALL.pack(record)) == record
        return
    for form in (record, list(record.values())):
        with pytest.raises(RecordError, match=rule) as caught:
            ALL.pack(form)
        assert str(caught.value).startswith(f"{name}: ")
        assert len(str(caught.value)) < 200


def test_a_text_without_padding_fills_its_field() -> None:
    schema = Schema([Field("t", "text", 3)], by=["t"])
    assert schema.pack(["a  "]) == b"a  "
    assert schema.unpack(b"a \x00") == {"t": "a \x00"}
    with pytest.raises(RecordError, match="the field exactly 3"):
        schema.pack(["ab"])
    spaced = Schema([Field("t", "text", 3, ("space",))], by=["t"])
    assert spaced.pack(["a"]) == b"a  "
    assert spaced.unpack(b"\x00\x00 ") == {"t": "\x00\x00"}


def test_errors_say_why_a_value_is_not_a_record() -> None:
    cases: list[tuple[Any, str]] = [
        ({"u": 1}, "no value for i, q, f, o, t, c"),
        ({**GOOD, "more": 1}, "unknown field more; the fields are u, i"),
        ([1, 2], "a record has 7 values .*, not 2"),
        (b"1234567", "with send_array"),
        ("1234567", "not str"),
    ]
    for record, rule in cases:
        with pytest.raises(RecordError, match=rule):
            ALL.pack(record)
    with pytest.raises(RecordError, match="a record has 22 bytes, not 3"):
        ALL.unpack(b"abc")


def test_an_array_of_numpy_has_the_same_bytes() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(2, ALL.numpy_dtype())
    assert array.dtype.itemsize == ALL.record_bytes
    for name, value in GOOD.items():
        array[name][1] = value
    assert array.tobytes() == bytes(ALL.record_bytes) + ALL.pack(GOOD)


def test_an_s_may_be_bytes_or_latin_1() -> None:
    fields = "ip:bytes,unit:text,city:latin1"
    schema = Schema.from_struct("<4s4s16s", fields=fields, by="ip,unit")
    assert [(one.type, one.encoding) for one in schema.fields] == [
        ("bytes", "utf-8"), ("text", "utf-8"), ("text", "latin1"),
    ]  # fmt: skip
    assert Schema.from_toml(schema.to_toml()) == schema
    record = schema.pack([b"\x0a\x00\x00\x20", "°C", "Zürich"])
    assert record == b"\x0a\x00\x00\x20" + "°C".encode() + b"\x00" + b"Z\xfcrich".ljust(16, b"\x00")
    assert schema.unpack(record)["city"] == "Zürich"
    with pytest.warns(UserWarning, match="the key ip is 4s, .* write ip:bytes"):
        Schema.from_struct("<4sI", fields="ip,n", by="ip")
    with pytest.raises(SchemaError, match="an s is text, latin1 or bytes, not 'hex'"):
        Schema.from_struct("<4s", fields="ip:hex", by="ip")
    with pytest.raises(SchemaError, match="only an s can be text or bytes"):
        Schema.from_struct("<I", fields="n:bytes", by="n")
    with pytest.raises(RecordError, match="cannot be encoded as Latin-1"):
        schema.pack([b"\x00" * 4, "", "東京"])
    with pytest.raises(SchemaError, match="`encoding` applies only to text"):
        Schema([Field("n", "u8", encoding="latin1")], by=["n"])
