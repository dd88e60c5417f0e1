"""Where the repository is, for tests of files outside of this package.

An sdist of the package has these tests too, but not the rest of the repository. There, tests that
need it are skipped; in a checkout, a missing file is an error.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

in_repository_only = pytest.mark.skipif(
    not (ROOT / "Cargo.toml").exists(), reason="not in a checkout of the repository"
)
