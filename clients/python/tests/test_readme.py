"""README.md says what the program does: its example runs, and its tables leave nothing out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import scripted

import ringest
from ringest import BinaryProtocolClient

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
