"""Runs the merges: as processes, as a user does, but for Spark where only its end matters."""

from __future__ import annotations

import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DUCKDB = ROOT / "deploy/duckdb/merge.py"
SPARK = ROOT / "deploy/spark/merge.py"

# Starting Spark takes ten seconds on two cores; a cluster of two executors twice that.
TIMEOUT_S = 300
LOCAL_CLUSTER = "local-cluster[2,1,1024]"


def merged_by(engine: str, directories: Sequence[Path], *options: str) -> dict[str, Any]:
    """The merge's ndjson line."""
    return json.loads(run(engine, directories, "--format", "ndjson", *options))


def ended(
    engine: str, directories: Sequence[Path], *options: str, before: Sequence[str] = ()
) -> tuple[int, Any, str]:
    """Exit code, the line, `None` without one, and stderr of a merge; `before` is a command that
    runs it."""
    arguments = [*command(engine), *map(os.fsdecode, directories), "--format", "ndjson", *options]
    if engine == "spark" and not before:
        return spark_ended(arguments[1:])
    done = subprocess.run(
        [*before, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(),
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def spark_ended(arguments: list[str]) -> tuple[int, Any, str]:
    """The same of Spark's merge, in this process, where Java starts only once."""
    os.environ.update(environment())
    main = runpy.run_path(arguments[0], run_name="spark_merge")["main"]
    out, errors, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = arguments
    try:
        with redirect_stdout(out), redirect_stderr(errors):
            code = main()
    finally:
        sys.argv = before
    return code, json.loads(out.getvalue()) if out.getvalue() else None, errors.getvalue()


def run(engine: str, directories: Sequence[Path], *options: str) -> str:
    """The merge's stdout; its stderr is shown if it fails."""
    arguments = [*command(engine), *map(str, directories), *options]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment(), check=False
    )
    if done.returncode != 0:
        raise AssertionError(
            f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr[-4000:]}"
        )
    return done.stdout


def command(engine: str) -> list[str]:
    """The program to run: Python for all merges except ringest's own."""
    if engine == "ringest":
        return [os.environ["RINGEST_BIN"], "merge"]
    script = DUCKDB if engine == "duckdb" else SPARK
    master = ["--master", LOCAL_CLUSTER if engine == "spark-cluster" else "local[2]"]
    return [sys.executable, str(script), *(master if engine.startswith("spark") else [])]


def environment() -> dict[str, str]:
    """The environment that Spark needs to run executors on this machine."""
    import importlib.util

    spark = importlib.util.find_spec("pyspark")
    assert spark is not None and spark.origin is not None
    return os.environ | {
        # local-cluster starts executors with SPARK_HOME/bin/spark-class and SPARK_HOME/jars.
        "SPARK_HOME": str(Path(spark.origin).parent),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        # The machine's name may not resolve.
        "SPARK_LOCAL_IP": "127.0.0.1",
        # With little data, 200 tasks per shuffle would take most of the time.
        "SPARK_CONF_DIR": str(Path(__file__).resolve().parent / "spark-conf"),
    }
