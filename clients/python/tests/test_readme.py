"""README.md: its programs run as they are, and its tables are complete."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import shlex
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine_process import BINARY, engine
from naive_records import listener, naive_packets
from readme import README, all_programs, block, run_program
from scripted import (
    BROADCAST,
    CLOSE,
    Handler,
    Peer,
    answer_to,
    frame,
    scripted,
    serve,
    server_context,
)
from test_send_command import run_send
from test_server import server

import ringest
from ringest import BinaryProtocolClient, RecordSender, Result, RingestError, Schema

RESULT_NAME = "20261120T200201.123456Z-node-1-417-12"


@contextmanager
def message_server(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A scripted server in a thread of its own, because the programs run an event loop each."""
    ports: list[int] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def run_server() -> None:
        async with scripted(handler, tls=tls) as port:
            ports.append(port)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run_server(),))
    thread.start()
    try:
        assert ready.wait(30.0)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


class Relay:
    """A handler that forwards each broadcast to all other connections."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    async def __call__(self, peer: Peer) -> None:
        self._peers.append(peer)
        while (message := await peer.read())[0] != CLOSE:
            await peer.write(answer_to(*message))
            if message[0] == BROADCAST:
                for other in self._peers:
                    if other is not peer:
                        await other.write(frame(*message))


def test_the_message_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with message_server(serve) as port:
        run_program(block("## Messages", "python"), monkeypatch, messages=port)
    assert re.fullmatch(r"Latency: \d+\.\d{3} ms\n", capsys.readouterr().out)


def test_the_broadcast_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with message_server(Relay()) as port:
        run_program(block("### Broadcasts", "python"), monkeypatch, messages=port)
    assert capsys.readouterr().out == "b'Hello, everybody!'\n"


def test_the_tls_program(
    certificate: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "certs").mkdir()
    shutil.copy(certificate[0], tmp_path / "certs/ca.crt")
    monkeypatch.chdir(tmp_path)
    with message_server(serve, tls=server_context(certificate)) as port:
        run_program(block("### TLS", "python"), monkeypatch, messages=port)
    assert capsys.readouterr().out == "b'encrypted'\n"


def test_the_reconnecting_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with message_server(serve) as port:
        run_program(block("### Reconnecting", "python"), monkeypatch, messages=port)
    assert capsys.readouterr().out == "b'still there?'\n"


def test_the_program_with_several_servers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with message_server(serve) as port:
        run_program(block("### Several servers", "python"), monkeypatch, messages=port)
    assert capsys.readouterr().out == "b'hello, everyone'\n"


def test_the_schema_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(block("### Schemas", "python"), monkeypatch)
    assert Schema.from_toml(capsys.readouterr().out).record_bytes == 16


def test_the_record_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("meter.toml").write_text(block("## Record streams", "toml"))
    schema = Schema.from_file("meter.toml")
    with listener() as port:
        run_program(block("## Record streams", "python"), monkeypatch, records=port.port)
        packets, ended = naive_packets(schema, port.wait())
    assert ended
    assert [schema.unpack(record)["meter"] for record in packets[0]] == [7, 7, 7, 0]
    assert re.fullmatch(r"sent 3 records from 127\.0\.0\.1:\d+\n", capsys.readouterr().out)


def test_the_result_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    columns = {"meter": [7], "volt_mean": [230.0], "volt_max": [230.4], "count": [3]}
    parquet.write_table(pyarrow.table(columns), f"results/{RESULT_NAME}.parquet")
    run_program(block("## Result files", "python"), monkeypatch)
    assert capsys.readouterr().out == f"{RESULT_NAME}.parquet complete 1 groups\n7 230.0 3\n"


def test_no_program_is_left_out() -> None:
    sections = [
        "## Messages", "### Broadcasts", "### TLS", "### Reconnecting", "### Several servers",
        "## Record streams", "### Schemas", "## Result files",
    ]  # fmt: skip
    assert all_programs() == [block(section, "python") for section in sections]


needs_binary = pytest.mark.skipif(
    not BINARY, reason="RINGEST_BIN does not name the ringest program"
)


@needs_binary
def test_the_message_programs_with_the_real_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for section in ("## Messages", "### Broadcasts", "### Reconnecting"):
        # A server each: a broadcast may still be on its way when the program has ended.
        with server() as port:
            run_program(block(section, "python"), monkeypatch, messages=port)
    printed = capsys.readouterr().out
    assert re.search(r"^Latency: \d+\.\d{3} ms$", printed, re.MULTILINE)
    assert "b'Hello, everybody!'\n" in printed
    assert "b'still there?'\n" in printed
    subprocess.run([BINARY, "gen-cert", "--dir", "certs"], check=True, capture_output=True)
    with server("--tls", "--cert", "certs/server.crt", "--key", "certs/server.key") as port:
        run_program(block("### TLS", "python"), monkeypatch, messages=port)
    assert "b'encrypted'\n" in capsys.readouterr().out


@needs_binary
def test_the_way_from_a_schema_to_results_with_the_real_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    Path("meter.toml").write_text(block("## Record streams", "toml"))
    make_directory, serve_command = block("## Record streams", "sh").splitlines()
    subprocess.run(shlex.split(make_directory), check=True)
    program, command, *options = shlex.split(serve_command)
    assert (program, command) == ("ringest", "serve")
    with engine(3, *options) as running:
        run_program(block("## Record streams", "python"), monkeypatch, records=running.port)
        send = shlex.split(block("### Random records from the command line", "sh"))
        assert send[:4] == ["python3", "-m", "ringest", "send"]
        done = run_send(*send[4:], "--port", str(running.port))
        assert done.returncode == 0, done.stderr
        results = running.wait()
    assert sorted(one["records"] for one in results) == [3, 1000, 1000]
    assert Path("expected.json").is_file()
    capsys.readouterr()
    run_program(block("## Result files", "python"), monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if " complete " in line]) == 3
    assert "7 230.0 3" in lines


def test_the_options_of_the_send_command_exist() -> None:
    send = shlex.split(block("### Random records from the command line", "sh"))
    assert send[:4] == ["python3", "-m", "ringest", "send"]
    shown = run_send("--help").stdout
    for option in (one for one in send if one.startswith("--")):
        assert f" {option} " in shown, option


def test_errors_are_those_that_it_says(tmp_path: Path) -> None:
    for name in re.findall(r"^[│ ├└─]*(\w+)", block("### Errors", "text"), re.MULTILINE):
        assert issubclass(getattr(ringest, name), RingestError)
    for name, kind in (("ConnectionError", ConnectionError), ("TimeoutError", TimeoutError)):
        for error in re.findall(rf"(\w+) +also a {name}", README):
            assert issubclass(getattr(ringest, error), kind), error
    for error in re.findall(r"(\w+) +also a ValueError", README):
        assert issubclass(getattr(ringest, error), ValueError), error
    missing = tmp_path / "missing.csv"
    with pytest.raises(FileNotFoundError):
        Schema.from_file(missing)
    with pytest.raises(FileNotFoundError):
        ringest.read_result(missing)
    missing.write_text("a\n1\n")
    with pytest.raises(KeyError):
        ringest.read_result(missing)["b"]


def test_every_argument_is_listed_with_its_default() -> None:
    for kind in (BinaryProtocolClient, RecordSender):
        arguments = dict(inspect.signature(kind).parameters)
        arguments.pop("schema", None)
        assert f'| `host`, `port` | `"{arguments.pop("host").default}"`, ' in README
        assert f"`, {arguments.pop('port').default} |" in README
        # Its default is shown as what it stands for.
        arguments.pop("server_hostname")
        for name, argument in arguments.items():
            value = "`None`" if argument.default is None else f"{argument.default:g}"
            assert f"| `{name}` | {value} |" in README, name


def test_every_name_is_listed() -> None:
    for name in [*public(BinaryProtocolClient), *public(RecordSender)]:
        assert re.search(rf"^\| `{name}[`(]", README, re.MULTILINE), name
    for name in [*public(Schema), *(field.name for field in dataclasses.fields(Result))]:
        assert name.startswith("_") or re.search(rf"[`.]{name}[`(]", README), name
    for name in public(Result):
        assert f"`{name}" in README, name
    for name in ringest.__all__:
        # The class of the iterator that broadcasts() returns.
        assert name in README or name == "Broadcasts", name


def public(kind: type) -> list[str]:
    """The public attributes of a class."""
    return [name for name in vars(kind) if not name.startswith("_")]
