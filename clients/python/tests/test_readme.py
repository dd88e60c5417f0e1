"""README.md says what the program does: its example runs, and its tables leave nothing out."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import scripted
from naive_records import listener, naive_packets

import ringest
from ringest import BinaryProtocolClient, RecordSender, Result, Schema

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLE = README.split("```python\n")[1].split("```")[0].rstrip("\n")


def test_the_example_runs_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with scripted.scripted(scripted.serve) as port:

            class Elsewhere(BinaryProtocolClient):
                """The client, on the port of the test."""

                def __init__(self, host: str, _port: int) -> None:
                    super().__init__(host, port)

            monkeypatch.setattr(ringest, "BinaryProtocolClient", Elsewhere)
            code, runs = EXAMPLE.split("asyncio.run(main())")
            assert not runs
            names: dict[str, object] = {}
            exec(code, names)  # noqa: S102
            main = names["main"]
            assert inspect.iscoroutinefunction(main)
            await main()

    scripted.run(scenario())
    assert re.fullmatch(r"Latency: \d+\.\d+(e-\d+)?ms\n", capsys.readouterr().out)


def test_every_argument_stands_there_with_its_default() -> None:
    arguments = dict(inspect.signature(BinaryProtocolClient).parameters)
    assert f'| `host`, `port` | `"{arguments.pop("host").default}"`, ' in README
    assert f"`, {arguments.pop('port').default} |" in README
    # Its default is not None to whoever reads: it is the host.
    arguments.pop("server_hostname")
    for name, argument in arguments.items():
        value = "`None`" if argument.default is None else f"{argument.default:g}"
        assert f"| `{name}` | {value} |" in README, name


def test_every_name_stands_there() -> None:
    methods = [name for name in vars(BinaryProtocolClient) if not name.startswith("_")]
    for name in methods:
        assert re.search(rf"^\| `{name}[`(]", README, re.MULTILINE), name
    for name in ringest.__all__:
        # The class of what broadcasts() gives has no use of its own.
        assert name in README or name == "Broadcasts", name


def test_every_argument_and_method_of_the_sender_stands_there() -> None:
    arguments = dict(inspect.signature(RecordSender).parameters)
    arguments.pop("schema")
    assert f'| `host`, `port` | `"{arguments.pop("host").default}"`, ' in README
    assert f"`, {arguments.pop('port').default} |" in README
    arguments.pop("server_hostname")
    for name, argument in arguments.items():
        value = "`None`" if argument.default is None else f"{argument.default:g}"
        assert f"| `{name}` | {value} |" in README, name
    for name in public(RecordSender):
        assert re.search(rf"^\| `{name}[`(]", README, re.MULTILINE), name


def test_every_name_of_schemas_and_results_stands_there() -> None:
    for name in [*public(Schema), *(field.name for field in dataclasses.fields(Result))]:
        assert name.startswith("_") or re.search(rf"[`.]{name}[`(]", README), name
    for name in public(Result):
        assert f"`{name}" in README, name


def public(kind: type) -> list[str]:
    """What a class has that is no internal."""
    return [name for name in vars(kind) if not name.startswith("_")]


def test_the_example_of_a_stream_and_its_result_runs(tmp_path: Path) -> None:
    schema = Schema.from_struct("<Hf", fields="meter,volt", by="meter", agg="volt:mean")
    (tmp_path / "meter.toml").write_text(schema.to_toml())
    stream = README.split("## Record streams")[1].split("```python\n")[1].split("```")[0]
    with listener() as port:
        stream = stream.replace("meter.toml", str(tmp_path / "meter.toml"))
        exec(stream.replace("9000", str(port.port)), {})  # noqa: S102
        packets, ended = naive_packets(schema, port.wait())
    assert ended
    assert [schema.unpack(record)["meter"] for record in packets[0]] == [7, 7, 7, 0]


def test_the_example_of_a_result_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = README.split("## Result files")[1].split("```python\n")[1].split("```")[0]
    name = example.split('read_result("')[1].split('"')[0].removesuffix("parquet")
    path = tmp_path / f"{name}csv"
    path.write_text("meter,volt_mean,count\n7,230.0,3\n")
    exec(example.replace(f"{name}parquet", str(path)), {})  # noqa: S102
    assert capsys.readouterr().out == (
        "complete 1 ['meter', 'volt_mean', 'count']\n7 230.0\n"
    )  # fmt: skip
