"""The blocks of README.md, and a way to run its programs against other ports than they name."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(section: str, language: str) -> str:
    """The first block of a language in a section, which ends with the next heading."""
    _, found, text = README.partition(f"\n{section}\n")
    assert found, section
    body = re.split(r"^#{2,} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    match = re.search(rf"^```{language}\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
    assert match, (section, language)
    return match[1]


def all_programs() -> list[str]:
    """All Python blocks."""
    return re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run_program(
    code: str, monkeypatch: pytest.MonkeyPatch, *, messages: int = 0, records: int = 0
) -> None:
    """Runs a program unchanged; its connections to ports 5000 and 9000 go to these ports."""
    # Nobody listens on the port of a second server.
    ports = {5000: messages, 5001: 1, 9000: records}
    resolve = socket.getaddrinfo

    def redirected(host: str, port: int, *arguments: Any, **options: Any) -> Any:
        return resolve(host, ports[port], *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", redirected)
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102
