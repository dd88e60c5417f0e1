"""Runs the merges as a user does, as processes; judges nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
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


def run(engine: str, directories: Sequence[Path], *options: str) -> str:
    """What the merge prints on stdout; its stderr is shown where it fails."""
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
    """The program, which is Python's for all but ringest itself."""
    if engine == "ringest":
        return [os.environ["RINGEST_BIN"], "merge"]
    script = DUCKDB if engine == "duckdb" else SPARK
    master = ["--master", LOCAL_CLUSTER if engine == "spark-cluster" else "local[2]"]
    return [sys.executable, str(script), *(master if engine.startswith("spark") else [])]


def environment() -> dict[str, str]:
    """What Spark needs to run its executors on this machine."""
    import importlib.util

    spark = importlib.util.find_spec("pyspark")
    assert spark is not None and spark.origin is not None
    return os.environ | {
        # local-cluster starts executors with SPARK_HOME/bin/spark-class and SPARK_HOME/jars.
        "SPARK_HOME": str(Path(spark.origin).parent),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        # A machine's name may have no address.
        "SPARK_LOCAL_IP": "127.0.0.1",
        # Small data: 200 tasks a shuffle would be all that takes time.
        "SPARK_CONF_DIR": str(Path(__file__).resolve().parent / "spark-conf"),
    }
