"""Makes the files that readers are tried on: results, partials and a merged result, small and of
several row groups, with NaN, infinities, nulls, negative zeros and numbers above i64's maximum.

    python3 make.py PROGRAM DIRECTORY

Writes them below DIRECTORY with `manifest.json`, which lists each file and what a part of its
columns must hold. Needs nothing but Python.
"""

import json
import math
import socket
import struct
import subprocess
import sys
from pathlib import Path

RECORD = struct.Struct("<Q8s2s?fdQIqb")
SCHEMA = Path(__file__).with_name("edges.toml")

NAN, INF = math.nan, math.inf
FLOATS = [7.0, NAN, INF, -INF, -0.0, 0.0, -2.5, 3.0e38]
# Most row groups hold 131,072 rows; this makes two, and pages that differ in the sign of an i64.
MANY = 150_000


def small() -> list[tuple]:
    """One group for each float; groups of two with a NaN; sums that do not fit."""
    records = []
    texts = [b"", b"pump", "Zürich".encode(), b"a\\b", b"\xff\xfe", b"\x1b[31m", b"'quo\"te", b"z" * 8]
    for number, value in enumerate(FLOATS):
        records.append((2**64 - 1 - number, texts[number], bytes([number, 255]), number % 2 == 0, value,
                        value, 2**63 + number, 2**31 + number, -(2**63) + number, -128 + number))
    for other in (1.0, -INF):
        records += [(1, b"both", b"\x00\x00", True, value, value, 5, 6, -7, 8) for value in (other, NAN)]
    # The sum is more than 64 bits hold, so it is null; the variance of one record is null as well.
    records += [(2, b"sum", b"\x01\x01", False, 0.5, 0.5, 2**64 - 1, 2**32 - 1, 2**63 - 1, 127)] * 2
    return records


def many() -> list[tuple]:
    """Keys all over the range of u64, the large ones first; one NaN in each row group."""
    records = []
    for number in range(MANY):
        key = (number * 0x9E3779B97F4A7C15) % 2**64
        value = NAN if number % 70_000 == 9 else float(number)
        records.append((key, b"%d" % (number % 7), b"\x00\x01", False, value, value, 2**64 - 1 - key,
                        2**32 - 1 - number, number - 75_000, number % 100))
    return records


def groups(records: list[tuple]) -> list[dict]:
    """What does not depend on how sums are rounded: keys, first, last, count, sums of integers."""
    of_key: dict[tuple, list[tuple]] = {}
    for record in records:
        of_key.setdefault((record[0], record[1].rstrip(b"\0 "), record[2], record[3]), []).append(record)

    def fits(total: int, least: int, most: int) -> int | None:
        return total if least <= total <= most else None

    return [
        {
            "id": key[0], "raw": key[2].hex(), "flag": key[3],
            "f_first": struct.unpack("f", struct.pack("f", group[0][4]))[0], "d_last": group[-1][5],
            "u_min": min(record[6] for record in group),
            "u_max": max(record[6] for record in group),
            "u_sum": fits(sum(record[6] for record in group), 0, 2**64 - 1),
            "w_max": max(record[7] for record in group),
            "i_sum": fits(sum(record[8] for record in group), -(2**63), 2**63 - 1),
            "b_min": min(record[9] for record in group), "count": len(group),
        }
        for key, group in sorted(of_key.items())
    ]


def receive(program: str, directory: Path, form: str, streams: list[list[tuple]]) -> list[Path]:
    """Has an engine receive the streams one after another; returns their result files."""
    partials = ["--partials", str(directory / "partials")] if form == "parquet" else []
    for name in ("results", "partials"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    serve = [program, "serve", "--host", "127.0.0.1", "--records-port", "0", "--no-messages",
             "--admin-port", "0", "--format", "ndjson", "--exit-after", str(len(streams)),
             "--schema", str(SCHEMA), "--output", str(directory / "results"), "--output-format", form,
             *partials]
    engine = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = next(line for line in engine.stderr if "ready for records" in line)
    port = int(line.split(" on ")[1].split(" ")[0].rsplit(":", 1)[1])
    files = []
    for records in streams:
        with socket.create_connection(("127.0.0.1", port)) as sender:
            sender.sendall(b"".join(RECORD.pack(*record) for record in records))
        result = json.loads(engine.stdout.readline())
        assert result["status"] == "complete", (result["status"], result["reason"])
        files.append(Path(result["file"]))
    engine.communicate(timeout=120)
    return files


def main() -> None:
    program, directory = sys.argv[1], Path(sys.argv[2])
    manifest = []
    for form in ("parquet", "arrow"):
        streams = {"small": small(), "many": many()}
        files = receive(program, directory / form, form, list(streams.values()))
        for file, (name, records) in zip(files, streams.items()):
            manifest.append({"file": str(file), "name": f"{form} of {name}", "expected": groups(records)})
    partials = directory / "parquet" / "partials"
    for file in sorted(partials.glob("*.parquet")):
        manifest.append({"file": str(file), "name": f"partials {file.name.split('-', 3)[-1]}"})
    merged = directory / "merged.parquet"
    subprocess.run([program, "merge", str(partials), "--output", str(merged), "--format", "ndjson"],
                   check=True, stdout=subprocess.DEVNULL)
    manifest.append({"file": str(merged), "name": "merged", "expected": groups(small() + many())})
    (directory / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()
