"""All three merges say the same about what cannot be merged, with the same exit codes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import DEFAULT, EVERYTHING, Layout, Stream, counted, make_streams, write
from engines import ended
from histograms import new_histogram

MERGES = [
    pytest.param("ringest", marks=pytest.mark.engine),
    "duckdb",
    pytest.param("spark", marks=pytest.mark.spark),
]
# Root may read everything, unless it gives that up.
AS_USER = (
    ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Partials of two streams."""
    streams = make_streams(DEFAULT, random.Random(3), nodes=1, connections=2)
    (found,) = write(DEFAULT, streams, tmp_path / "nodes")
    return found


def first(directory: Path, kind: str) -> Path:
    return sorted(directory.glob(f"[!.]*.{kind}.parquet"))[0]


def refused(engine: str, directory: Path, *said: str, code: int = 1, **more: Any) -> str:
    """The merge gives no result, and says why."""
    found = ended(engine, [directory], *more.pop("options", ()), **more)
    assert found[:2] == (code, None), found
    assert all(text in found[2] for text in said), found[2]
    assert "Traceback" not in found[2], found[2]
    return found[2]


# ---- foreign files -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", MERGES)
def test_a_directory_with_the_name_of_a_partial_is_named(engine: str, directory: Path) -> None:
    """Spark writes such directories."""
    (directory / "x.groups.parquet").mkdir()
    shutil.copy(first(directory, "groups"), directory / "x.groups.parquet" / "part-0.parquet")
    refused(
        engine,
        directory,
        "x.groups.parquet does not belong to these partials: it is a directory; move it elsewhere",
    )


@pytest.mark.parametrize("kind", ["groups", "stream"])
@pytest.mark.parametrize("engine", MERGES)
def test_a_file_of_another_schema_is_named(
    engine: str, kind: str, directory: Path, tmp_path: Path
) -> None:
    streams = make_streams(EVERYTHING, random.Random(1), nodes=1, connections=1)
    (other,) = write(EVERYTHING, streams, tmp_path / "other")
    shutil.copy(first(other, kind), directory / f"z.{kind}.parquet")
    refused(
        engine,
        directory,
        f"z.{kind}.parquet does not belong to these partials: it has another schema (there `",
        "; move it elsewhere",
    )


def without(table: pa.Table) -> pa.Table:
    return table.drop_columns([table.column_names[-1]])


def wider(table: pa.Table) -> pa.Table:
    return table.set_column(2, "batch", table["batch"].cast(pa.int64()))


def more(table: pa.Table) -> pa.Table:
    return table.append_column("more", table["batch"])


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("groups", without, "it has no column min_D"),
        ("groups", wider, "its column batch is i64 instead of u32"),
        ("groups", more, "it has an extra column more"),
        ("stream", without, "it has no column latency_v2"),
        ("stream", wider, "its column batch is i64 instead of u32"),
    ],
)
@pytest.mark.parametrize("engine", MERGES[:2])
def test_a_file_with_other_columns_is_named(
    engine: str, kind: str, change: Any, said: str, directory: Path
) -> None:
    """Another program has written it, without metadata."""
    table = pq.read_table(first(directory, kind)).replace_schema_metadata(None)
    pq.write_table(change(table), directory / f"z.{kind}.parquet")
    refused(engine, directory, f"z.{kind}.parquet does not belong to these partials: {said}; move")


@pytest.mark.parametrize("engine", MERGES)
def test_a_name_that_is_not_utf8_is_merged_or_named(engine: str, directory: Path) -> None:
    file = first(directory, "groups")
    odd = os.fsencode(directory) + b"/\xff.groups.parquet"
    os.rename(file, odd)
    if engine == "ringest":
        assert ended(engine, [directory])[0] == 0
        return
    refused(engine, directory, ".groups.parquet does not belong to these partials: its name is not")


@pytest.mark.parametrize("engine", MERGES)
def test_names_are_no_patterns(engine: str, tmp_path: Path) -> None:
    streams = make_streams(DEFAULT, random.Random(3), nodes=1, connections=2)
    (directory,) = write(DEFAULT, streams, tmp_path)
    for kind in ("groups", "stream"):
        first(directory, kind).rename(directory / f"a[1]*.{kind}.parquet")
    code, merged, said = ended(engine, [directory])
    assert (code, merged["records"]) == (0, counted(streams)["records"]), said


# ---- files that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize("engine", MERGES)
def test_damaged_files_are_named_where_nothing_says_their_schema(
    engine: str, directory: Path
) -> None:
    (directory / "schema.toml").unlink()
    files = sorted(directory.glob("[!.]*.parquet"))
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    names = [f"{file.name}: it is cut off or not Parquet" for file in files[:10]]
    for options in ([], ["--skip-damaged"]):
        refused(
            engine,
            directory,
            "schema.toml: ",
            ", and partials there are damaged: ",
            *names,
            "copy schema.toml or one of these files again",
            options=options,
        )
    # One that is intact says enough.
    streams = make_streams(DEFAULT, random.Random(3), nodes=1, connections=2)
    write(DEFAULT, streams, directory.parent)
    (directory / "schema.toml").unlink()
    files[0].write_bytes(files[0].read_bytes()[:100])
    refused(engine, directory, f"{files[0].name} is damaged: it is cut off")


@pytest.mark.parametrize("engine", MERGES)
def test_damage_to_a_file_without_a_checksum_is_named(engine: str, directory: Path) -> None:
    file = first(directory, "groups")
    table = pq.read_table(file)
    plan = {"ringest.merge": table.schema.metadata[b"ringest.merge"]}
    pq.write_table(table.replace_schema_metadata(plan), file)
    content = bytearray(file.read_bytes())
    content[40:140] = b"\xff" * 100
    file.write_bytes(content)
    refused(engine, directory, f"{file.name} is damaged: ", "--skip-damaged")
    code, merged, said = ended(engine, [directory], "--skip-damaged")
    assert code == 1 and merged and f"{file.name} is damaged and was left out" in said, said


@pytest.mark.parametrize("engine", MERGES)
def test_an_empty_file_is_named(engine: str, directory: Path) -> None:
    """Spark passes over them."""
    file = first(directory, "groups")
    file.write_bytes(b"")
    refused(engine, directory, f"{file.name} is damaged: it is cut off or not Parquet; copy it")


@pytest.mark.parametrize("engine", MERGES)
def test_a_file_without_permission_is_named(engine: str, directory: Path) -> None:
    file = first(directory, "groups")
    file.chmod(0)
    refused(
        engine,
        directory,
        f"{file.name} is damaged: reading it: ",
        "ermission denied",
        before=AS_USER,
    )
    code, merged, said = ended(engine, [directory], "--skip-damaged", before=AS_USER)
    assert code == 1 and merged and f"{file.name} is damaged and was left out" in said, said


@pytest.mark.parametrize("engine", MERGES)
def test_a_directory_that_is_none_is_a_wrong_use(engine: str, directory: Path) -> None:
    gone, empty = directory / "gone", directory / "empty"
    empty.mkdir()
    next_step = "name directories that `serve --partials` wrote"
    refused(engine, gone, "gone/schema.toml: ", next_step, code=2)
    refused(engine, empty, "empty/schema.toml: ", next_step, code=2)
    directory.chmod(0)
    try:
        refused(engine, directory, "cannot ", code=2, before=AS_USER)
    finally:
        directory.chmod(0o755)


@pytest.mark.parametrize("engine", MERGES)
def test_files_that_are_no_partials_are_counted(engine: str, directory: Path) -> None:
    (directory / "notes.txt").write_text("")
    (directory / "schema.toml").write_text("garbage")
    code, merged, said = ended(engine, [directory])
    assert code == 0 and merged, said
    assert "1 files in " in said and "are not partials, such as notes.txt" in said
    assert "; the schema in the partials is used instead" in said


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", MERGES)
def test_sums_that_do_not_fit_and_unfinished_streams_are_listed(
    engine: str, tmp_path: Path
) -> None:
    fields = {"k": "u8", "u": "u64", "i": "i64", "s": "u16"}
    sums = tuple((name, "sum") for name in "uis")
    layout = Layout(fields, ("k",), (*sums, ("u", "mean")))
    records = [[{"k": 1, "u": 2**64 - 1, "i": -(2**63), "s": 3}] for _ in range(2)]
    stream = Stream("a", "20261120T200201.123456Z-77-0", [(one, records[one]) for one in range(2)])
    stream.latencies += [new_histogram(), new_histogram()]
    stream.final = False
    (directory,) = write(layout, [stream], tmp_path)
    code, merged, said = ended(engine, [directory])
    group = {"k": 1, "u_sum": None, "i_sum": None, "s_sum": 6, "u_mean": 2.0**64, "count": 2}
    assert (code, merged["groups"]) == (0, [group]), said
    assert "some sums of u_sum, i_sum do not fit into 64 bits; they are null" in said
    assert f"one stream is unfinished: {stream.connection} of a" in said


@pytest.mark.parametrize("engine", MERGES)
def test_an_output_that_cannot_be_written_is_refused_before_the_merge(
    engine: str, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").mkdir()
    output = ["--output", str(tmp_path / "there.csv")]
    refused(engine, directory, "--output ", "there.csv ", "; name a ", code=2, options=output)
    if engine != "spark":
        # Spark makes directories.
        output = ["--output", str(tmp_path / "gone" / "x.csv")]
        refused(engine, directory, "cannot write to --output ", "gone", code=2, options=output)


@pytest.mark.parametrize("engine", MERGES)
def test_a_full_disk_is_said(engine: str, tmp_path: Path) -> None:
    streams = make_streams(DEFAULT, random.Random(3), nodes=1, connections=2)
    (directory,) = write(DEFAULT, streams, tmp_path / "nodes")
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=8k,nr_inodes=100 none {small} && "
    mount += f'dd if=/dev/zero of={small}/rest bs=1k 2>/dev/null; "$@"; code=$?; '
    mount += f"ls -A {small} >&2; exit $code"
    before = ["unshare", "--mount", "bash", "-c", mount, "bash"]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace for this user")
    options = ["--output", str(small / "x.csv")]
    said = refused(
        engine, directory, "cannot write --output ", "x.csv: ", before=before, options=options
    )
    assert said.lower().count("no space left") + said.count("disk is full"), said
    if engine != "spark":
        assert said.splitlines()[-1] == "rest", said
