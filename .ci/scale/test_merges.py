"""The merges by DuckDB and by Spark give what the union of all records gives."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import (
    DEFAULT,
    EVERYTHING,
    Layout,
    Stream,
    copy_some,
    counted,
    differences,
    expected,
    expected_latency,
    make_streams,
    write,
)
from engines import DUCKDB, ROOT, TIMEOUT_S, ended, merged_by, run
from hard_numbers import HARD, hard_streams
from histograms import summary_us

SEEDS = range(6)
MERGES = [
    pytest.param("ringest", marks=pytest.mark.engine),
    "duckdb",
    pytest.param("spark", marks=pytest.mark.spark),
]


def check(
    merged: dict[str, Any], layout: Layout, streams: list[Stream], by: tuple[str, ...]
) -> None:
    """Everything that a merge says."""
    assert not differences(expected(layout, streams, by), merged["groups"])
    summary = {name: merged[name] for name in ("nodes", "connections", "batches", "records")}
    assert summary == counted(streams)
    assert merged["latency_us"] == summary_us(expected_latency(streams))


# ---- any data set --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layout", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_duckdb(layout: Layout, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    streams = make_streams(layout, rng, nodes=3, connections=8)
    directories = write(layout, streams, tmp_path)
    copy_some(directories, rng)
    check(merged_by("duckdb", directories), layout, streams, layout.keys)


@pytest.mark.parametrize("by", [("word",), ("signed", "on"), ("raw", "k64", "word")])
def test_duckdb_by_some_of_the_keys(by: tuple[str, ...], tmp_path: Path) -> None:
    streams = make_streams(EVERYTHING, random.Random(5), nodes=2, connections=6)
    directories = write(EVERYTHING, streams, tmp_path)
    check(merged_by("duckdb", directories, "--by", ",".join(by)), EVERYTHING, streams, by)


@pytest.mark.spark
def test_spark(tmp_path: Path) -> None:
    rng = random.Random(11)
    streams = make_streams(EVERYTHING, rng, nodes=3, connections=8)
    directories = write(EVERYTHING, streams, tmp_path)
    copy_some(directories, rng)
    check(merged_by("spark", directories), EVERYTHING, streams, EVERYTHING.keys)


# ---- numbers that binary64 alone loses -----------------------------------------------------------


@pytest.mark.parametrize("engine", MERGES)
def test_no_digit_is_lost_between_batches(engine: str, tmp_path: Path) -> None:
    streams = hard_streams()
    directories = write(HARD, streams, tmp_path)
    groups = merged_by(engine, directories)["groups"]
    assert not differences(expected(HARD, streams, HARD.keys), groups)


# ---- streams that did not end well ---------------------------------------------------------------


def streams_of_all_ends(layout: Layout, seed: int) -> tuple[list[Stream], list[Stream]]:
    """Streams, and those of them that ended complete."""
    streams = make_streams(layout, random.Random(seed), nodes=2, connections=8)
    cut, idle = [stream for stream in streams if len(stream.batches) > 1][:2]
    cut.final = False
    idle.status = "incomplete"
    return streams, [stream for stream in streams if stream not in (cut, idle)]


@pytest.mark.parametrize("engine", MERGES)
def test_complete_only_leaves_the_others_out(engine: str, tmp_path: Path) -> None:
    streams, complete = streams_of_all_ends(DEFAULT, 3)
    directories = write(DEFAULT, streams, tmp_path)
    code, merged, said = ended(engine, directories, "--complete-only")
    assert (code, merged["records"]) == (0, counted(complete)["records"]), said
    assert "2 streams did not end complete and are left out: " in said
    check(merged, DEFAULT, complete, DEFAULT.keys)
    # Streams that ended complete, of which a file is missing: of either kind, and both.
    kept = [stream for stream in complete if len(stream.batches) > 1]
    for kinds in (["groups"], ["stream"], ["groups", "stream"]):
        stream = kept.pop()
        complete.remove(stream)
        number = stream.connection.rpartition("-")[2]
        for kind in kinds:
            (tmp_path / stream.node).joinpath(
                f"20261120T200201.123456Z-{stream.node}-77-{number}-000000.{kind}.parquet"
            ).unlink()
        code, merged, said = ended(engine, directories, "--complete-only")
        missing = f"stream {stream.connection} of {stream.node} ended complete, but not all"
        assert code == 1 and missing in said, said
        check(merged, DEFAULT, complete, DEFAULT.keys)


# ---- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", MERGES)
def test_damaged_files_are_named_and_can_be_left_out(engine: str, tmp_path: Path) -> None:
    streams = make_streams(DEFAULT, random.Random(8), nodes=2, connections=4)
    directories = write(DEFAULT, streams, tmp_path)
    rng = random.Random(1)
    files = [sorted(directory.glob("*.groups.parquet"))[0] for directory in directories]
    for file in files:
        content = bytearray(file.read_bytes())
        content[rng.randrange(4, len(content) - 8)] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    code, merged, said = ended(engine, directories)
    assert (code, merged) == (1, None) and "Traceback" not in said, said
    assert f"{files[0].name} is damaged: its checksum is " in said and "--skip-damaged" in said
    code, merged, said = ended(engine, directories, "--skip-damaged")
    assert code == 1 and all(f"{file.name} is damaged and was left out: " in said for file in files)
    assert said.count("has groups of 0 records, it had ") == 2, said
    lost = [pq.read_table(file.with_suffix("").with_suffix(".stream.parquet")) for file in files]
    records = counted(streams)["records"] - sum(table["records"][0].as_py() for table in lost)
    assert merged["records"] == records
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    code, merged, said = ended(engine, directories, "--skip-damaged")
    assert (code, merged["records"]) == (1, records) and said.count("it is cut off") == 2, said


@pytest.mark.parametrize("kind", ["groups", "stream"])
def test_no_flipped_bit_goes_unnoticed(kind: str, tmp_path: Path) -> None:
    """Every bit of a file: only its key may hide the checksum, and then the content is right."""
    import partials

    streams = make_streams(Layout({"a": "u8"}, ("a",), ()), random.Random(1), 1, 1)
    (directory,) = write(Layout({"a": "u8"}, ("a",), ()), streams, tmp_path)
    file = sorted(directory.glob(f"*.{kind}.parquet"))[0]
    content = bytearray(file.read_bytes())
    assert partials.damage(bytes(content)) is None
    at = content.rindex(b"ringest.crc32")
    entry = range(8 * (at - 2), 8 * (at + len(b"ringest.crc32") + 2))
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        wrong = partials.damage(bytes(content))
        assert wrong is not None and (wrong == partials.NO_CHECKSUM) == (bit in entry), bit
        content[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("engine", MERGES)
def test_files_without_a_checksum_are_merged_and_listed(engine: str, tmp_path: Path) -> None:
    streams = make_streams(DEFAULT, random.Random(6), nodes=1, connections=2)
    directories = write(DEFAULT, streams, tmp_path)
    file = sorted(directories[0].glob("*.groups.parquet"))[0]
    table = pq.read_table(file)
    plan = {key: table.schema.metadata[key] for key in (b"ringest.merge",)}
    pq.write_table(table.replace_schema_metadata(plan), file)
    code, merged, said = ended(engine, directories)
    assert code == 0 and "one file has no checksum" in said and file.name in said, said
    check(merged, DEFAULT, streams, DEFAULT.keys)


# ---- files of results ----------------------------------------------------------------------------

ARROW_OF_RESULT = {
    "k64": pa.uint64(), "on": pa.bool_(), "word": pa.string(), "raw": pa.binary(),
    "signed": pa.int64(), "v_u8_sum": pa.uint64(), "v_i8_sum": pa.int64(),
    "v_u8_mean": pa.float64(),
    "v_u8_min": pa.uint8(), "v_u16_max": pa.uint16(), "v_u32_min": pa.uint32(),
    "v_i8_min": pa.int8(), "v_i16_min": pa.int16(), "v_i32_max": pa.int32(),
    "v_f32_min": pa.float32(), "v_f32_sum": pa.float64(), "v_f64_last": pa.float64(),
    "v_u64_first": pa.uint64(), "v_i64_std": pa.float64(), "flag_max": pa.bool_(),
    "flag_sum": pa.uint64(), "count": pa.uint64(),
}  # fmt: skip


def test_duckdb_writes_the_types_of_the_documents(tmp_path: Path) -> None:
    streams = make_streams(EVERYTHING, random.Random(2), nodes=2, connections=4)
    directories = write(EVERYTHING, streams, tmp_path)
    run("duckdb", directories, "--output", str(tmp_path / "result.parquet"))
    table = pq.read_table(tmp_path / "result.parquet")
    assert {name: table.schema.field(name).type for name in ARROW_OF_RESULT} == ARROW_OF_RESULT
    assert not differences(expected(EVERYTHING, streams, EVERYTHING.keys), table.to_pylist())


def test_the_end_of_the_name_decides_the_format(tmp_path: Path) -> None:
    streams = make_streams(DEFAULT, random.Random(2), nodes=1, connections=2)
    (directory,) = write(DEFAULT, streams, tmp_path / "nodes")
    csv = str(tmp_path / "x.CSV")
    run("duckdb", [directory], "--output", csv)
    assert Path(csv).read_text().startswith("A,E,")
    for output, chosen, said in (
        (csv, ["--output-format", "parquet"], "ends in .csv, but --output-format is parquet"),
        (str(tmp_path / "x"), [], "does not end in .parquet or .csv"),
        (str(tmp_path / "x.arrow"), [], "does not end in .parquet or .csv"),
    ):
        assert said in refusal(str(directory), "--output", output, *chosen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nodes", "x.CSV"]


def test_a_device_is_written_into_and_a_link_stays(tmp_path: Path) -> None:
    """DuckDB would rename a finished file onto it: as root, onto /dev/null."""
    streams = make_streams(DEFAULT, random.Random(2), nodes=1, connections=2)
    (directory,) = write(DEFAULT, streams, tmp_path / "nodes")
    null, link = tmp_path / "null", tmp_path / "link"
    null.symlink_to("/dev/null")
    for device in ("/dev/null", str(null)):
        run("duckdb", [directory], "--output", device, "--output-format", "csv")
    assert Path("/dev/null").is_char_device() and null.is_symlink()
    (tmp_path / "file").write_text("old")
    link.symlink_to("file")
    run("duckdb", [directory], "--output", str(link), "--output-format", "csv")
    assert link.is_symlink() and (tmp_path / "file").read_text().startswith("A,E,")
    assert "is not a file" in refusal(str(directory), "--output", str(tmp_path),
                                      "--output-format", "csv")  # fmt: skip


@pytest.mark.spark
def test_spark_writes_complete_streams_by_some_keys_sorted(tmp_path: Path) -> None:
    """One start of Spark for what its options change. Its names have case: `Word` is no `word`."""
    fields = EVERYTHING.fields | {"Word": "u16"}
    layout = Layout(fields, EVERYTHING.keys, (("Word", "max"), *EVERYTHING.aggregates))
    streams, kept = streams_of_all_ends(layout, 2)
    directories = write(layout, streams, tmp_path / "nodes")
    by, output = ("word", "on"), tmp_path / "result"
    options = ["--by", ",".join(by), "--complete-only", "--output", str(output), "--files", "1"]
    summary = merged_by("spark", directories, *options)
    assert summary == counted(kept) | {"latency_us": summary_us(expected_latency(kept))}
    (file,) = output.glob("*.parquet")
    table = pq.read_table(file)
    assert table.schema.field("v_u32_min").type == pa.int64()
    assert table.schema.field("count").type == pa.decimal128(20, 0)
    assert not differences(expected(layout, kept, by), table.to_pylist())


def test_duckdb_csv_has_bytes_in_hexadecimal(tmp_path: Path) -> None:
    layout = Layout({"raw": "bytes"}, ("raw",), ())
    streams = make_streams(layout, random.Random(2), nodes=1, connections=1)
    directories = write(layout, streams, tmp_path)
    run("duckdb", directories, "--output", str(tmp_path / "result.csv"))
    lines = (tmp_path / "result.csv").read_text().splitlines()
    groups = expected(layout, streams, layout.keys)
    assert lines == ["raw,count", *(f"{group['raw'].hex()},{group['count']}" for group in groups)]


# ---- the template --------------------------------------------------------------------------------


def test_the_template_is_that_of_the_built_in_schema(tmp_path: Path) -> None:
    streams = make_streams(DEFAULT, random.Random(1), nodes=1, connections=1)
    directories = write(DEFAULT, streams, tmp_path)
    written = run("duckdb", directories, "--sql")
    assert (ROOT / "deploy/duckdb/merge.sql").read_text() == written


def test_the_template_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    streams = make_streams(DEFAULT, random.Random(9), nodes=2, connections=4)
    write(DEFAULT, streams, tmp_path)
    sql = (ROOT / "deploy/duckdb/merge.sql").read_text().replace("'partials/", "'*/")
    monkeypatch.chdir(tmp_path)
    result = duckdb.connect().execute(sql)
    columns = [column[0] for column in result.description]
    found = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
    assert not differences(expected(DEFAULT, streams, DEFAULT.keys), found)


def test_the_sql_for_complete_streams_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    streams, complete = streams_of_all_ends(EVERYTHING, 5)
    directories = write(EVERYTHING, streams, tmp_path)
    sql = run("duckdb", directories, "--sql", "--complete-only").replace("'partials/", "'*/")
    monkeypatch.chdir(tmp_path)
    result = duckdb.connect().execute(sql)
    columns = [column[0] for column in result.description]
    found = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
    assert not differences(expected(EVERYTHING, complete, EVERYTHING.keys), found)


def test_packed_partials_are_merged_as_the_files_were(tmp_path: Path) -> None:
    """What docs/operating/partials.md says about many small files."""
    streams = make_streams(DEFAULT, random.Random(4), nodes=2, connections=6)
    directories = write(DEFAULT, streams, tmp_path / "trial")
    for name, directory in zip("ab", directories, strict=True):
        directory.rename(tmp_path / "trial" / name)
    directories = [tmp_path / "trial" / name for name in "ab"]
    page = (ROOT / "docs/operating/partials.md").read_text()
    (recipe,) = re.findall(r"<<'END'\n(import sys\n.*?)\nEND\n", page, re.DOTALL)
    (tmp_path / "trial/packed").mkdir()
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    subprocess.run([sys.executable, "-c", recipe], cwd=tmp_path, check=True, timeout=TIMEOUT_S)
    packed = tmp_path / "trial/packed"
    merge = "ringest" if "RINGEST_BIN" in os.environ else "duckdb"
    for engine in {merge, "duckdb"}:
        code, merged, said = ended(engine, [packed])
        assert (code, said) == (0, ""), said
        check(merged, DEFAULT, streams, DEFAULT.keys)
        # The small files are still there: they count once.
        check(merged_by(engine, [packed, *directories]), DEFAULT, streams, DEFAULT.keys)
    (file,) = packed.glob("*.groups.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert ended("duckdb", [packed])[0] == 1


# ---- refusals ------------------------------------------------------------------------------------


def refusal(*arguments: str, code: int = 2) -> str:
    done = subprocess.run(
        [sys.executable, str(DUCKDB), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done
    return done.stderr


def test_refusals_name_the_cause(tmp_path: Path) -> None:
    assert "name directories that `serve --partials` wrote" in refusal(str(tmp_path))
    (tmp_path / "schema.toml").write_text(DEFAULT.toml())
    streams = make_streams(DEFAULT, random.Random(1), nodes=2, connections=2)
    one, other = map(str, write(DEFAULT, streams, tmp_path / "nodes"))
    assert "--by B: not a key of these partials, which have the keys A, E" in refusal(
        one, "--by", "B"
    )
    assert '"A" is listed twice as a key' in refusal(one, "--by", "A,A")
    streams = make_streams(EVERYTHING, random.Random(1), nodes=1, connections=2)
    (foreign,) = map(str, write(EVERYTHING, streams, tmp_path / "foreign"))
    assert "have partials of different schemas: there `" in refusal(one, foreign)
    for plan, said in (
        (None, "an older ringest wrote it, or it was repacked without its metadata"),
        ("[", "its ringest.merge cannot be read"),
        ('{"version": 2}', "its ringest.merge cannot be read: 'identity'"),
        ('{"version": 1}', "merge operations have version 1, supported is 2"),
    ):
        for file in Path(other).glob("*.groups.parquet"):
            metadata = None if plan is None else {"ringest.merge": plan}
            pq.write_table(pq.read_table(file).replace_schema_metadata(metadata), file)
        assert said in refusal(other, code=2 if plan is None else 1)
    # One file of another directory tells, where this one's do not.
    for file in Path(other).glob("*.groups.parquet"):
        pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    run("duckdb", [Path(one), Path(other)])


# ---- files that are missing ----------------------------------------------------------------------


@pytest.mark.parametrize("engine", MERGES)
def test_all_merges_end_alike_where_files_are_missing(engine: str, tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(DEFAULT.toml())
    code, merged, said = ended(engine, [tmp_path])
    assert (code, merged["groups"]) == (0, []) and "no partials so far" in said

    stream = next(
        one
        for one in make_streams(DEFAULT, random.Random(7), nodes=1, connections=8)
        if len(one.batches) > 2 and all(records for _, records in one.batches)
    )
    (directory,) = write(DEFAULT, [stream], tmp_path / "nodes")
    assert ended(engine, [directory])[0] == 0

    def take(*names: str) -> None:
        for name in names:
            (file,) = directory.glob(name)
            file.rename(file.with_suffix(".gone"))

    def give_back() -> None:
        for file in directory.glob("*.gone"):
            file.rename(file.with_suffix(".parquet"))

    take(f"*-{len(stream.batches) - 1:06}.stream.parquet")
    code, _, said = ended(engine, [directory])
    assert code == 0 and "has groups and no .stream.parquet" in said
    give_back()
    take("*-000000.stream.parquet")
    code, _, said = ended(engine, [directory])
    assert code == 1 and "no .stream.parquet, but a later one has" in said
    take("*-000000.groups.parquet")
    code, _, said = ended(engine, [directory])
    assert code == 1 and f"lacks 1 of {len(stream.batches)} batches" in said
    give_back()
    take("*-000001.groups.parquet")
    code, _, said = ended(engine, [directory])
    assert code == 1 and "has groups of 0 records, it had" in said


@pytest.mark.parametrize("engine", MERGES)
def test_all_merges_end_alike_where_a_file_is_cut_off(engine: str, tmp_path: Path) -> None:
    streams = make_streams(DEFAULT, random.Random(7), nodes=1, connections=1)
    (directory,) = write(DEFAULT, streams, tmp_path)
    file = sorted(directory.glob("*.groups.parquet"))[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, merged, said = ended(engine, [directory])
    assert (code, merged) == (1, None) and file.name in said and "Traceback" not in said, said


def test_names_that_differ_in_case_are_refused_by_duckdb(tmp_path: Path) -> None:
    layout = Layout({"a": "u8", "A": "u8"}, ("a", "A"), ())
    streams = make_streams(layout, random.Random(1), nodes=1, connections=1)
    (directory,) = write(layout, streams, tmp_path)
    assert "differ only in case" in refusal(str(directory), "--sql")
