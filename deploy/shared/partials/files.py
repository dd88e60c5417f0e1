"""Tells partials from damaged and foreign files, as `ringest merge` does. The engine reads them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final, TypeVar

from .errors import DamagedPartialsError, PartialsError
from .parquet import NO_CHECKSUM, Contents, contents, damage
from .plan import MERGE_KEY, ORIGIN_COLUMNS, MergePlan
from .report import say, shortened

GROUPS_ENDING: Final = ".groups.parquet"
STREAM_ENDING: Final = ".stream.parquet"
SCHEMA_FILE: Final = "schema.toml"
# What merges read of files about batches.
STREAM_COLUMNS: Final = ORIGIN_COLUMNS | {
    "final": "bool",
    "status": "text",
    "records": "u64",
    "packets": "u64",
    "bytes": "u64",
    "latency_v2": "bytes",
}


def is_partial(name: str) -> bool:
    """Whether a file has the name of partials. Hidden ones are being written."""
    return name.endswith((GROUPS_ENDING, STREAM_ENDING)) and not name.startswith(".")


def is_utf8(name: str) -> bool:
    """Whether a name is text: if not, Python keeps its bytes in surrogates."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def place_of(path: str) -> tuple[bool, str, str]:
    """The order of files: those about batches first, then by name."""
    return path.endswith(GROUPS_ENDING), path.rpartition("/")[2], path


T = TypeVar("T")


def by_place(named: Iterable[tuple[str, T]]) -> list[tuple[str, T]]:
    """Things by path, in the order of files."""
    return sorted(named, key=lambda one: place_of(one[0]))


@dataclass
class Survey:
    """What files say of themselves, in little space: a million alike are one entry."""

    # Of files with the same contents in a directory, the first: its directory and path.
    first: dict[tuple[str, bool, Contents], str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    # Why a file is not one of them, and what to do unless it is to move it elsewhere.
    foreign: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unsealed: list[str] = field(default_factory=list)
    files: int = 0

    def add_file(self, path: str, content: bytes) -> None:
        """Adds what a file says of itself."""
        self.files += 1
        wrong = damage(content)
        try:
            if wrong is None or wrong == NO_CHECKSUM:
                key = path.rpartition("/")[0], path.endswith(GROUPS_ENDING), contents(content)
                self.first[key] = min(self.first.get(key, path), path, key=place_of)
                self.unsealed += [path] if wrong else []
                return
        except ValueError as error:
            wrong = str(error)
        self.damaged[path] = wrong

    def add(self, other: Survey) -> Survey:
        """Adds another survey."""
        for key, path in other.first.items():
            self.first[key] = min(self.first.get(key, path), path, key=place_of)
        self.damaged |= other.damaged
        self.foreign |= other.foreign
        self.unsealed += other.unsealed
        self.files += other.files
        return self


@dataclass
class Directory:
    """A directory of partials, as it was found."""

    path: str
    # The text of its schema.toml, or why it cannot be read; that it is not there is usual.
    schema: str | None = None
    schema_error: str = ""
    # Other files, and the first of them.
    others: int = 0
    other: str = ""

    def known_schema(self, survey: Survey) -> str | None:
        """The schema of its partials; raises an error if neither they nor a file tell."""
        own = [(path, key[2].schema) for key, path in survey.first.items() if key[0] == self.path]
        found = [schema for _, schema in by_place(own) if schema is not None]
        wrong = self.schema_error
        if self.schema is not None:
            try:
                tomllib.loads(self.schema)
                # A schema can be written in several ways: only the files' own is sure.
                same = (one for one in found if not difference(one, self.schema or ""))
                return next(same, found[0] if found else self.schema)
            except ValueError as error:
                wrong = f"{self.path}/{SCHEMA_FILE}: {error}"
                if found:
                    say(f"{wrong}; the schema in the partials is used instead")
        if found or own:
            return found[0] if found else None
        prefix = f"{self.path}/"
        damaged = [
            f"{path.removeprefix(prefix)}: {cause}"
            for path, cause in sorted(survey.damaged.items())
            if path.startswith(prefix)
        ]
        if damaged:
            raise DamagedPartialsError(
                f"{wrong}, and partials there are damaged: {shortened(damaged, '; ')}; copy "
                f"{SCHEMA_FILE} or one of these files again"
            )
        raise PartialsError(f"{wrong}; name directories that `serve --partials` wrote")


def find_plan(directories: list[Directory], survey: Survey, skip_damaged: bool) -> MergePlan | None:
    """How the partials are merged; `None` if there are no groups.

    Raises an error about files that cannot be merged.
    """
    schemas = {one.path: one.known_schema(survey) for one in directories}
    warn_of(directories, survey)
    known = [(path, schema) for path, schema in schemas.items() if schema is not None]
    for path, schema in known[1:]:
        if differs := difference(schema, known[0][1]):
            raise PartialsError(
                f"{path} and {known[0][0]} have partials of different schemas: {differs}; merge "
                "each schema separately"
            )
    for path, cause in [] if skip_damaged else by_place(survey.damaged.items()):
        raise DamagedPartialsError(
            f"{path} is damaged: {cause}; copy it again, seal it again if another program has "
            "rewritten it, or merge without it (--skip-damaged)"
        )
    for path, why in by_place(survey.foreign.items()):
        raise foreign(path, *why)
    alike = by_place((path, key) for key, path in survey.first.items())
    for path, (directory, _, one) in alike:
        here = schemas.get(directory)
        if one.schema and here and (differs := difference(one.schema, here)):
            raise foreign(path, f"it has another schema ({differs})")
    return check_columns([(path, is_groups, one) for path, (_, is_groups, one) in alike])


def check_columns(files: list[tuple[str, bool, Contents]]) -> MergePlan | None:
    """The plan of these files, which must have its columns."""
    plan, where = None, None
    for path, _, one in files:
        if one.plan is not None:
            other = MergePlan.parse(one.plan, path)
            if plan is not None and other != plan:
                raise foreign(path, f"it is merged otherwise than {where}")
            plan, where = plan or other, where or path
    if plan is None and (groups := [path for path, is_groups, _ in files if is_groups]):
        raise PartialsError(
            f"{groups[0]} has no {MERGE_KEY}: an older ringest wrote it, or it was repacked "
            "without its metadata; `ringest merge` reads it"
        )
    for path, is_groups, one in files:
        expected = plan.column_types if plan and is_groups else STREAM_COLUMNS
        found = dict(one.columns)
        for name, kind in expected.items():
            if name not in found:
                raise foreign(path, f"it has no column {name}")
            if found[name] != kind:
                raise foreign(path, f"its column {name} is {found[name]} instead of {kind}")
        if extra := [name for name in found if is_groups and name not in expected]:
            raise foreign(path, f"it has an extra column {extra[0]}")
    return plan


def foreign(path: str, cause: str, step: str = "move it elsewhere") -> PartialsError:
    """The error about a file that is not one of these partials."""
    return DamagedPartialsError(f"{path} does not belong to these partials: {cause}; {step}")


def warn_of(directories: list[Directory], survey: Survey) -> None:
    """Warns of directories without partials, and of files that are none."""
    everything = [*survey.first.values(), *survey.damaged, *survey.foreign]
    in_use = {path.rpartition("/")[0] for path in everything}
    for one in directories:
        if one.path not in in_use:
            say(f"{one.path} has no partials so far")
        if one.others:
            say(f"{one.others} files in {one.path} are not partials, such as {one.other}")


def difference(there: str, here: str) -> str | None:
    """The first line in which two schemas differ; `None` if they mean the same."""
    if there == here or tomllib.loads(there) == tomllib.loads(here):
        return None
    for lines in zip_longest(there.splitlines(), here.splitlines(), fillvalue="the end"):
        if lines[0] != lines[1]:
            return "there `{}`, here `{}`".format(*(line.strip() for line in lines))
    return None
