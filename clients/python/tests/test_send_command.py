"""`python3 -m ringest send`: its streams are read by the naive parser and grouped again here."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from naive_records import listener, naive_packets, naive_values, random_schema
from naive_result import assert_groups_match, naive_groups

import ringest
from ringest import Schema
from ringest.send_command import main

HOST = "127.0.0.1"
BYTE_KEY = '[[field]]\nname="a"\ntype="u8"\n[result]\nby=["a"]\n'


# The sources, or the installed package.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ringest.__file__).parents[1])}


def run_send(*options: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ringest", "send", *options],
        capture_output=True,
        check=False,
        env=ENVIRONMENT,
        text=True,
    )


def sent_by(*options: str) -> tuple[bytes, str]:
    """The bytes that the command sends over one connection, and what it prints."""
    with listener() as port:
        done = run_send("--port", str(port.port), "--connections", "1", *options)
        assert done.returncode == 0, done.stderr
        return port.wait(), done.stdout


@pytest.mark.parametrize("seed", range(15))
def test_random_schemas_are_sent_and_expected(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    schema = random_schema(rng)
    path, expected_path = tmp_path / "schema.toml", tmp_path / "expected.json"
    path.write_text(schema.to_toml(), encoding="utf-8")
    count = rng.choice([1, 7, 3000])
    options = ["--schema", str(path), "--records", str(count), "--seed", str(seed)]
    options += ["--padding", rng.choice(["mixed", "nul", "space"])]
    expect = ["--expect", str(expected_path), "--packet-records", str(rng.choice([1, 4, 50]))]
    stream, _ = sent_by(*options, *expect)
    packets, ended = naive_packets(schema, stream)
    assert ended == (schema.packet.end == "zero-record")
    records = [naive_values(schema, record) for packet in packets for record in packet]
    if ended:
        records.pop()
    assert len(records) == count
    expected = json.loads(expected_path.read_text())
    assert expected["seed"] == seed
    (connection,) = expected["connections"]
    assert (connection["connection"], connection["records"]) == (0, count)
    assert (connection["packets"], connection["bytes"]) == (len(packets), len(stream))
    assert_groups_match(naive_groups(schema, records), connection["groups"])
    if seed % 3 == 0:
        # Neither the packet size nor `--expect` changes the records.
        again, _ = naive_packets(schema, sent_by(*options, "--packet-records", "9")[0])
        assert [r for packet in again for r in packet] == [r for packet in packets for r in packet]


def test_groups_and_encodings_are_many(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    schema = Schema.from_struct("<I8s?qx", fields="a,t:text,b,v", by="a,t,b", agg="v:sum,v:first")
    path.write_text(schema.to_toml(), encoding="utf-8")
    options = ["--schema", str(path), "--records", "20000", "--seed", "5", "--padding", "mixed"]
    packets, _ = naive_packets(schema, sent_by(*options)[0])
    records = [record for packet in packets for record in packet][:-1]
    values = [naive_values(schema, record) for record in records]
    groups = {(one["a"], one["t"], one["b"]) for one in values}
    assert len(groups) == 50
    texts = {record[4:12] for record in records}
    assert len(texts) > len({one["t"] for one in values})
    assert {record[12] for record in records} == {0, 1, 2, 0x80, 0xFF}
    # Skipped bytes are noise, so that a reader which does not skip them fails.
    assert len({record[-1] for record in records}) == 256
    sums = [row["v_sum"] for row in naive_groups(schema, values)]
    assert None in sums
    assert sum(one is not None for one in sums) >= 40


def test_the_built_in_record_is_the_default() -> None:
    schema = Schema.default()
    stream, printed = sent_by("--records", "100", "--seed", "3", "--packet-records", "30")
    packets, ended = naive_packets(schema, stream)
    assert ended
    assert [len(packet) for packet in packets] == [30, 30, 30, 10, 1]
    lines = printed.splitlines()
    assert lines[0] == "seed 3 (repeat this run with --seed 3)"
    assert f": 100 records, 5 packets, {len(stream)} bytes" in lines[1]
    assert lines[2].startswith("total of 1 of 1 connections: 100 records in ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"),
        ("a = ", "schema.toml: invalid TOML"),
        ('[[field]]\nname="a"\ntype="u9"\n[result]\nby=["a"]', "line 3: "),
        ('[[field]]\nname="a"\ntype="u8"\n[result]\nby=["b"]', "unknown field 'b'"),
    ],
)
def test_bad_schemas_are_rejected(
    text: str | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schema.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["send", "--schema", str(path)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "argument --schema: " in error
    assert why in error


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "required: COMMAND"),
        (["send", "--port", "65536"], "65536 is not from 1 to 65535"),
        (["send", "--connections", "0"], "0 is not at least 1"),
        (["send", "--records", "many"], "invalid integer value: 'many'"),
        (["send", "--host", "[]"], "the host is empty"),
        (["send", "--connect-timeout", "nan"], "nan is not from 0 to 86400"),
        (["send", "--expect", "/nonexistent/x"], "cannot write /nonexistent/x: No such file"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert why in capsys.readouterr().err


def test_a_stream_without_a_byte_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schema.toml"
    path.write_text('[packet]\nend="close"\n' + BYTE_KEY, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["send", "--schema", str(path), "--records", "0"])
    assert caught.value.code == 2
    assert "at least one record" in capsys.readouterr().err


def test_failed_connections_have_a_reason_and_no_result(tmp_path: Path) -> None:
    expected_path = tmp_path / "expected.json"
    options = ["--host", "host.invalid", "--connections", "3", "--expect", str(expected_path)]
    done = run_send(*options)
    assert done.returncode == 1
    # The first at once, and the others counted.
    first, others = done.stderr.splitlines()
    why = first.split(": ", 1)[1]
    assert first.startswith("connection ")
    assert why.startswith("cannot connect to host.invalid:9000")
    assert others == f"3 connections failed in this way: {why}"
    assert "total of 0 of 3 connections" in done.stdout
    assert json.loads(expected_path.read_text())["connections"] == []


def test_a_full_disk_is_named() -> None:
    with listener() as port:
        options = ["--port", str(port.port), "--connections", "1", "--records", "3"]
        done = run_send(*options, "--expect", "/dev/full")
        port.wait()
    assert done.returncode == 1
    assert done.stderr == "cannot write --expect /dev/full: No space left on device\n"


def test_sigterm_ends_the_command_and_its_processes() -> None:
    """The streams stall because nobody reads them; the signal ends them all the same."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-m", "ringest", "send", "--port", str(port)]
        with subprocess.Popen(
            [*command, "--connections", "2"], env=ENVIRONMENT, stdout=subprocess.DEVNULL
        ) as process:
            accepted = [server.accept()[0] for _ in range(2)]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30.0) == 128 + signal.SIGTERM
            for sock in accepted:
                with sock:
                    sock.settimeout(30.0)
                    # Ends with the process that sent.
                    while sock.recv(1 << 20):
                        pass
