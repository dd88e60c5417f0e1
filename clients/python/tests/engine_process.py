"""Runs the real engine for record streams and collects its results."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from naive_records import PATIENCE_S

BINARY = os.environ.get("RINGEST_BIN", "")
READY = re.compile(r"ringest: ready for records on 127\.0\.0\.1:(\d+)\b")


class Engine:
    """A running engine: its port, and its results after it has ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.port = 0
        self.results: list[dict[str, Any]] = []
        self._process = process
        self._log: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self._log.append(line)
            if match := READY.search(line):
                self.port = int(match[1])
                break
        self._readers = [threading.Thread(target=self._read_log)]
        self._readers.append(threading.Thread(target=self._read_results))
        for reader in self._readers:
            reader.start()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        self._log.extend(self._process.stderr)

    def _read_results(self) -> None:
        assert self._process.stdout is not None
        self.results.extend(json.loads(line) for line in self._process.stdout)

    def wait(self) -> list[dict[str, Any]]:
        """Waits until it ends by itself; returns its results in the order of the connections."""
        self._process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        return sorted(self.results, key=lambda one: int(one["connection"]))

    def stop(self) -> None:
        """Stops it if it is still running."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self.wait()
            # pytest shows this if the test failed.
            print("".join(self._log))


@contextmanager
def engine(streams: int, *options: str) -> Iterator[Engine]:
    """An engine that exits after this many streams."""
    command = [BINARY, "serve", "--no-messages", "--host", "127.0.0.1", "--records-port", "0"]
    command += ["--admin-port", "0", "--format", "ndjson", "--exit-after", str(streams), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        running = Engine(process)
        try:
            assert running.port != 0, "the engine did not get ready"
            yield running
        finally:
            running.stop()
