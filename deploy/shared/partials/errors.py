"""Errors and exit codes, which are those of `ringest merge`."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


class PartialsError(Exception):
    """Partials that cannot be merged as requested; the text names the cause and the next step."""

    exit_code: int = EXIT_USAGE


class DamagedPartialsError(PartialsError):
    """A file that cannot be read or written, or that does not belong to these partials."""

    exit_code = EXIT_FAILED
