"""Import paths of the modules under test, and skipping of tests that this machine cannot run."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy/shared"))

MARKERS = {
    "spark": "starts Spark, which takes ten seconds each time",
    "engine": "needs the program, which RINGEST_BIN names",
}


def pytest_configure(config: pytest.Config) -> None:
    """`-m "not spark"` leaves out the slow tests."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spark needs Java; .ci/scale.sh says so if there is none."""
    if shutil.which("java") and find_spec("pyspark"):
        return
    for item in items:
        if item.get_closest_marker("spark"):
            item.add_marker(pytest.mark.skip(reason="no Java or no pyspark"))
