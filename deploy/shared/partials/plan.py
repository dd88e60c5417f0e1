"""How partials are merged: what groups files say about each column under `ringest.merge`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from .errors import DamagedPartialsError, PartialsError

# The key in the Parquet metadata of groups files, and the version of its value.
MERGE_KEY: Final = "ringest.merge"
MERGE_VERSION: Final = 2

# The columns that identify the batch of a row, in both kinds of files.
IDENTITY: Final = ("node", "connection", "batch")
ORIGIN_COLUMNS: Final = {"node": "text", "connection": "text", "batch": "u32", "time_us": "i64"}


@dataclass(frozen=True)
class Column:
    """A column's name and type: u8 to u64, i8 to i64, f32, f64, bool, text or bytes."""

    name: str
    type: str

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.type in ("f32", "f64")


@dataclass(frozen=True)
class Part(Column):
    """A column of partials other than a key: the rows of a group merge into one value.

    `merge` is sum, min, max (NaN counts only if there is nothing else, and -0.0 is below 0.0),
    first, last (in time order), mean and rest (of floats: the sum is the count times the mean, plus
    the rest), squares (squared distances from the mean that the columns `around` give, in squares
    of the column `unit` if there is one), or unit.
    """

    merge: str
    around: tuple[str, ...] = ()
    unit: str | None = None


@dataclass(frozen=True)
class Aggregate(Column):
    """A column of the result other than a key, computed from the merged columns `of`.

    `finish` is value (unchanged), sum (null if its type cannot hold it), mean (divided by the
    count), variance or deviation (of a sample; null for a single record). Of integers, two columns
    form one sum: the first times 2**32, plus the second. Of floats, they are a mean and its rest.
    """

    finish: str
    of: tuple[str, ...]


@dataclass(frozen=True)
class MergePlan:
    """How to merge partials."""

    # The columns that identify a row, in addition to its keys.
    identity: tuple[str, ...]
    # The columns that define the time order.
    order: tuple[str, ...]
    keys: tuple[Column, ...]
    columns: tuple[Part, ...]
    result: tuple[Aggregate, ...]

    @classmethod
    def parse(cls, text: str, where: str) -> MergePlan:
        """Reads the merge operations of the file `where`."""
        try:
            document = json.loads(text)
            version = document["version"]
            if version != MERGE_VERSION:
                raise DamagedPartialsError(
                    f"{where}: merge operations have version {version}, supported is "
                    f"{MERGE_VERSION}; use the scripts of the release that wrote the file"
                )
            return cls(
                tuple(document["identity"]),
                tuple(document["order"]),
                tuple(Column(**one) for one in document["keys"]),
                tuple(
                    Part(**one | {"around": tuple(one.get("around", ()))})
                    for one in document["columns"]
                ),
                tuple(Aggregate(**one | {"of": tuple(one["of"])}) for one in document["result"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedPartialsError(
                f"{where}: its {MERGE_KEY} cannot be read: {error}; move the file elsewhere, or "
                "merge with the scripts of the release that wrote it"
            ) from error

    @property
    def column_types(self) -> dict[str, str]:
        """The columns of groups files."""
        return ORIGIN_COLUMNS | {one.name: one.type for one in (*self.keys, *self.columns)}

    @property
    def squares(self) -> list[Part]:
        """The columns of squared distances."""
        return [one for one in self.columns if one.merge == "squares"]

    @property
    def means(self) -> list[tuple[str, str]]:
        """The means of floats of which a sum or a mean is made, each with its rest."""
        uses = [one.of for one in self.result if one.finish in ("sum", "mean")]
        pairs = {(of[0], of[1]) for of in uses if self.column(of[0]).merge == "mean"}
        return sorted(pairs)

    def column(self, name: str) -> Part:
        """The column with this name."""
        return next(one for one in self.columns if one.name == name)

    def keys_by(self, names: str | None) -> tuple[Column, ...]:
        """The keys with these comma-separated names, in this order; all keys for `None`."""
        if names is None:
            return self.keys
        by_name = {key.name: key for key in self.keys}
        wanted = names.split(",")
        for name in wanted:
            if name not in by_name:
                raise PartialsError(
                    f"--by {name}: not a key of these partials, which have the keys "
                    f"{', '.join(by_name)}"
                )
            if wanted.count(name) > 1:
                raise PartialsError(f'--by: "{name}" is listed twice as a key; leave one out')
        return tuple(by_name[name] for name in wanted)
