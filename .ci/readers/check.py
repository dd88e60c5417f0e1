"""Reads the files that make.py made with every reader that this Python has: pyarrow, pandas,
Polars, DuckDB, Spark.

    python check.py DIRECTORY [pyarrow] [pandas] [polars] [duckdb] [spark]

Each column is filtered by each of some values in it, by NaN, infinities, null and zeros, once by
the reader of the file, which may skip what statistics exclude, and once in memory, where there are
none. Both must find the same rows. What a reader takes NaN for is its own affair.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Values of each column that are tried, beside the special ones of its type; fewer in large files and
# by Spark, which takes long.
VALUES_TRIED = 6
VALUES_OF_MANY = 2
MANY_ROWS = 1000
FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 7.0, -1.5e38)
INTEGERS = (0, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -1)
OPERATORS = ("=", "<", "<=", ">", ">=")
OPERATORS_OF_MANY = ("=", "<", ">=")
OPERATORS_OF_SPARK = ("=",)
# Queries that Spark runs as one.
SPARK_QUERIES = 40


@dataclass(frozen=True)
class Condition:
    """A column compared with a value; `is null`, `is not null` have none."""

    column: str
    operator: str
    value: Any = None


@dataclass(frozen=True)
class Reader:
    """A reader of one version. `filtered` gives the numbers of rows by file and in memory."""

    name: str
    suffixes: tuple[str, ...]
    rows: Callable[[str], list[dict]]
    filtered: Callable[[str, list[Condition]], Iterator[tuple[int, int]]]


def conditions(rows: list[dict], reader: str) -> Iterator[Condition]:
    few = len(rows) > MANY_ROWS or reader.startswith("Spark")
    operators = OPERATORS_OF_MANY if few else OPERATORS
    if reader.startswith("Spark"):
        operators = OPERATORS_OF_SPARK
    for column in rows[0] if rows else ():
        values = [row[column] for row in rows]
        present = [value for value in values if value is not None]
        if not present or isinstance(present[0], list):
            continue
        yield Condition(column, "is null")
        yield Condition(column, "is not null")
        step = max(len(present) // (VALUES_OF_MANY if few else VALUES_TRIED), 1)
        tried = {repr(value): value for value in present[::step]}
        if isinstance(present[0], float):
            tried |= {repr(value): value for value in FLOATS}
        elif isinstance(present[0], int) and not isinstance(present[0], bool):
            least, most = min(present), max(present)
            tried |= {repr(value): value for value in (*INTEGERS, least, most) if least <= value <= most}
        for value in tried.values():
            for operator in operators:
                # pyarrow's filters on statistics treat every number as less than NaN, even in files
                # that it wrote itself; its filters in memory treat none so.
                if reader.startswith("pyarrow") and value != value and operator != "=":
                    continue
                yield Condition(column, operator, value)


# ---- pyarrow, pandas -----------------------------------------------------------------------------


def pyarrow_reader() -> Reader:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset

    def table(file: str) -> pa.Table:
        if file.endswith(".arrow"):
            return pa.ipc.open_file(file).read_all()
        return pa.parquet.read_table(file)

    def expression(condition: Condition, of: pa.DataType) -> pc.Expression:
        field = pc.field(condition.column)
        match condition.operator:
            case "is null":
                return field.is_null()
            case "is not null":
                return field.is_valid()
        scalar = pa.scalar(condition.value, of)
        compare = {"=": pc.equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater,
                   ">=": pc.greater_equal}[condition.operator]
        return compare(field, scalar)

    def filtered(file: str, all_of: list[Condition]) -> Iterator[tuple[int, int]]:
        whole = table(file)
        form = "ipc" if file.endswith(".arrow") else "parquet"
        dataset = pyarrow.dataset.dataset(file, format=form)
        memory = pyarrow.dataset.dataset(whole)
        for condition in all_of:
            one = expression(condition, whole.schema.field(condition.column).type)
            yield dataset.count_rows(filter=one), memory.count_rows(filter=one)

    import pyarrow.ipc
    import pyarrow.parquet

    return Reader(f"pyarrow {pa.__version__}", (".parquet", ".arrow"),
                  lambda file: table(file).to_pylist(), filtered)


def pandas_reader() -> Reader:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet

    def filtered(file: str, all_of: list[Condition]) -> Iterator[tuple[int, int]]:
        whole = pyarrow.parquet.read_table(file)
        # What string views lack.
        for name in whole.column_names:
            whole.take(pa.array([0, whole.num_rows - 1]))
            whole.sort_by(name)
            whole.filter(pa.compute.is_valid(whole[name]))
        if "text" in whole.column_names:
            few = whole.slice(0, 10).select(["id", "text"])
            assert few.join(few, keys=["id", "text"]).num_rows >= few.num_rows
        # Without a file.
        whole.to_pandas(types_mapper=pd.ArrowDtype)
        for condition in all_of:
            name, of = condition.column, whole.schema.field(condition.column).type
            # Of any file, pyarrow refuses a number for a u64 column with values above i64's maximum if
            # it comes as a tuple: it takes the number for an i64 (ArrowInvalid in 14, 17 and 26), or
            # cannot convert it (OverflowError). An expression says what it is.
            filters = [(name, "==", condition.value)]
            if of == pa.uint64():
                filters = pa.compute.field(name) == pa.scalar(condition.value, of)
            found = pd.read_parquet(file, filters=filters)
            same_in_memory = pa.compute.equal(whole[name], pa.scalar(condition.value, of))
            yield len(found), pa.compute.sum(same_in_memory).as_py() or 0

    return Reader(f"pandas {pd.__version__} with pyarrow {pa.__version__}", (".parquet",),
                  lambda file: pd.read_parquet(file).to_dict("records"), filtered)


# ---- Polars --------------------------------------------------------------------------------------


def polars_reader() -> Reader:
    import polars as pl

    def scan(file: str) -> pl.LazyFrame:
        return pl.scan_ipc(file) if file.endswith(".arrow") else pl.scan_parquet(file)

    def expression(condition: Condition, of: pl.DataType) -> pl.Expr:
        column, value = pl.col(condition.column), pl.lit(condition.value, dtype=of)
        match condition.operator:
            case "is null":
                return column.is_null()
            case "is not null":
                return column.is_not_null()
            case "=":
                return column == value
            case "<":
                return column < value
            case "<=":
                return column <= value
            case ">":
                return column > value
            case _:
                return column >= value

    def filtered(file: str, all_of: list[Condition]) -> Iterator[tuple[int, int]]:
        # Through pyarrow-free memory: a frame made of its columns knows no file.
        memory = pl.DataFrame(scan(file).collect().get_columns())
        for condition in all_of:
            one = expression(condition, memory.schema[condition.column])
            count = scan(file).filter(one).select(pl.len()).collect().item()
            yield count, memory.filter(one).height

    return Reader(f"Polars {pl.__version__}", (".parquet", ".arrow"),
                  lambda file: scan(file).collect().to_dicts(), filtered)


# ---- DuckDB --------------------------------------------------------------------------------------


def duckdb_reader() -> Reader:
    import duckdb

    database = duckdb.connect()

    def sql(condition: Condition) -> str:
        column = f'"{condition.column}"'
        match condition.value:
            case None:
                return f"{column} {condition.operator}"
            case float(value):
                literal = f"'{value!r}'::DOUBLE"
            case bytes(value):
                literal = "'" + "".join(f"\\x{byte:02X}" for byte in value) + "'::BLOB"
            case str(value):
                literal = "'" + value.replace("'", "''") + "'"
            case value:
                literal = str(value)
        return f"{column} {condition.operator} {literal}"

    def rows(file: str) -> list[dict]:
        found = database.execute("FROM read_parquet(?)", [file])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row)) for row in found.fetchall()]

    def filtered(file: str, all_of: list[Condition]) -> Iterator[tuple[int, int]]:
        database.execute("CREATE OR REPLACE TABLE memory AS FROM read_parquet(?)", [file])
        for condition in all_of:
            yield tuple(
                database.execute(f"SELECT count(*) FROM {source} WHERE {sql(condition)}").fetchone()[0]
                for source in (f"read_parquet('{file}')", "memory")
            )

    return Reader(f"DuckDB {duckdb.__version__}", (".parquet",), rows, filtered)


# ---- Spark ---------------------------------------------------------------------------------------


def spark_reader() -> Reader:
    import pyspark
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[2]").appName("readers")
    spark = spark.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
    spark = spark.config("spark.sql.shuffle.partitions", "2")
    # Case folding is off, so that a name means one column.
    spark = spark.config("spark.sql.caseSensitive", "true").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")

    def sql(condition: Condition) -> str:
        column = f"`{condition.column}`"
        match condition.value:
            case None:
                return f"{column} {condition.operator}"
            case float(value):
                literal = f"double('{value!r}')" if math.isfinite(value) else f"double('{value}')"
            case bytes(value) | bytearray(value):
                literal = f"X'{bytes(value).hex()}'"
            case str(value):
                literal = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
            case value:
                literal = str(value)
        return f"{column} {condition.operator} {literal}"

    def filtered(file: str, all_of: list[Condition]) -> Iterator[tuple[int, int]]:
        # Not cached: Spark would take the cache for the file, whose own statistics lack NaN.
        frame = spark.read.parquet(file)
        frame.createOrReplaceTempView("file")
        for start in range(0, len(all_of), SPARK_QUERIES):
            some = [f"({sql(condition)})" for condition in all_of[start:start + SPARK_QUERIES]]
            # Of all rows, so that no filter reaches the file.
            in_memory = frame.selectExpr(*(f"count_if{one}" for one in some)).first()
            queries = (f"SELECT {i} AS i, count(*) AS n FROM file WHERE {one}"
                       for i, one in enumerate(some))
            found = {row.i: row.n for row in spark.sql(" UNION ALL ".join(queries)).collect()}
            for i, right in enumerate(in_memory):
                yield found[i], right

    return Reader(f"Spark {pyspark.__version__}", (".parquet",),
                  lambda file: [row.asDict() for row in spark.read.parquet(file).collect()], filtered)


# ---- what is compared ----------------------------------------------------------------------------


def same(left: Any, right: Any) -> bool:
    """Equal, where NaN equals NaN and zeros differ by their sign."""
    if isinstance(left, (bytes, bytearray)):
        return bytes(left).hex() == right
    if right is None:
        # pandas has no other null for floats and integers.
        return left is None or left != left
    if isinstance(right, float):
        if left is None:
            return False
        both_nan = left != left and right != right
        return both_nan or left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


def check(reader: Reader, entry: dict) -> list[str]:
    """What is wrong with a file according to this reader."""
    faults = []
    rows = reader.rows(entry["file"])
    exact = not reader.name.startswith("pandas")
    for row, expected in zip(rows, entry.get("expected", [])):
        # pandas turns integers with a null into floats.
        wrong = {key: (row[key], value) for key, value in expected.items()
                 if not same(row[key], value) and (exact or value is None or key != "u_sum" and key != "i_sum")}
        if wrong:
            faults.append(f"reads {wrong} in the row {expected['id']}")
    if "expected" in entry and len(rows) != len(entry["expected"]):
        faults.append(f"reads {len(rows)} rows of {len(entry['expected'])}")
    if reader.name.startswith("pandas"):
        # Its own rows have NaN for nulls, and floats for integers beside them.
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(entry["file"]).to_pylist()
    all_of = list(conditions(rows, reader.name))
    if reader.name.startswith("pandas"):
        all_of = [one for one in all_of if one.operator == "=" and one.value == one.value]
    for condition, (found, right) in zip(all_of, reader.filtered(entry["file"], all_of), strict=True):
        if found != right:
            faults.append(f"finds {found} rows of {right} where {condition}")
    return faults


def main() -> None:
    manifest = json.loads((Path(sys.argv[1]) / "manifest.json").read_text())
    failed = tried = 0
    makers = {"pyarrow": pyarrow_reader, "pandas": pandas_reader, "polars": polars_reader,
              "duckdb": duckdb_reader, "spark": spark_reader}
    for name in sys.argv[2:] or makers:
        make = makers[name]
        try:
            reader = make()
        except ImportError:
            continue
        tried += 1
        own = [entry for entry in manifest if entry["file"].endswith(reader.suffixes)]
        for entry in own:
            try:
                faults = check(reader, entry)
            except Exception as error:
                faults = [f"cannot read it: {type(error).__name__}: {error}"]
            failed += len(faults)
            for fault in faults[:5]:
                print(f"{reader.name}, {entry['name']}: {fault}")
            if len(faults) > 5:
                print(f"{reader.name}, {entry['name']}: and {len(faults) - 5} more")
        print(f"{reader.name}: {len(own)} files tried", flush=True)
    assert tried, "this Python has none of the readers"
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
