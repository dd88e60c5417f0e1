"""A server of the record protocol with numpy and pandas, as a data team would write it first.

A thread for each connection reads into one large buffer until it has as many bytes as the first
argument says. The records of all whole packets in it become a structured array and then a
DataFrame, whose groups are kept as a partial result. At the end the partials are grouped once more,
and one line of JSON is printed, as `ringest serve` does.

Checks no limits and has no timeouts. It is a yardstick for speed, not an example to follow.
"""

import json
import math
import socket
import struct
import sys
import threading

import numpy as np
import pandas as pd

RECORD = np.dtype([("A", ">u4"), ("B", ">u2"), ("C", ">f4"), ("D", "i1"), ("E", "S256")])
HEADER_BYTES = 4
READ_BYTES = 1 << 20
ESCAPED = {byte: f"\\x{byte:02x}" for byte in range(256) if not 0x20 <= byte < 0x7F}
ESCAPED[ord("\\")] = "\\\\"
stdout_lock = threading.Lock()


def partial_of(records):
    """Groups a structured array."""
    frame = pd.DataFrame(
        {
            "A": records["A"].astype("u4"),
            "B": records["B"].astype("u8"),
            "C": records["C"].astype("f8"),
            "D": records["D"],
            "E": records["E"],
        }
    )
    groups = frame.groupby(["A", "E"], sort=False)
    return groups.agg(
        B=("B", "sum"), C=("C", "sum"), D=("D", "min"), count=("B", "size")
    ).reset_index()


def merged(partials):
    """One row for each group, whatever the padding of E was."""
    if not partials:
        return pd.DataFrame({"A": [], "E": [], "B": [], "C": [], "D": [], "count": []})
    frame = pd.concat(partials, ignore_index=True)
    frame["E"] = [text.rstrip(b" \0") for text in frame["E"]]
    groups = frame.groupby(["A", "E"], sort=True)
    return groups.agg(
        B=("B", "sum"), C=("C", "sum"), D=("D", "min"), count=("count", "sum")
    ).reset_index()


def shown(text):
    """E in the escaped form that results have."""
    return text.decode("latin-1").translate(ESCAPED)


def number(value):
    """A number, or a string if JSON cannot represent it."""
    return value if math.isfinite(value) else {"nan": "NaN"}.get(str(value), str(value))


def answer(peer, status, partials):
    rows = merged(partials)
    groups = [
        {
            "A": int(a),
            "E": shown(e),
            "B_mean": number(int(b) / int(count)),
            "C_sum": number(float(c)),
            "D_min": int(d),
            "count": int(count),
        }
        for a, e, b, c, d, count in rows.itertuples(index=False, name=None)
    ]
    line = {
        "peer": f"{peer[0]}:{peer[1]}",
        "status": status,
        "records": int(rows["count"].sum()),
        "groups": groups,
    }
    with stdout_lock:
        print(json.dumps(line), flush=True)


def whole_packets(buffer, filled):
    """The records of the whole packets in the buffer, and the size of those packets in bytes."""
    pieces, at = [], 0
    while at + HEADER_BYTES <= filled:
        (length,) = struct.unpack_from(">I", buffer, at)
        if at + length > filled:
            break
        pieces.append(buffer[at + HEADER_BYTES : at + length])
        at += length
    return np.frombuffer(b"".join(pieces), dtype=RECORD), at


def serve(connection, peer, batch_bytes):
    # Room for the longest packet that `ringest serve` allows by default.
    memory = bytearray(batch_bytes + (16 << 20) + READ_BYTES)
    buffer, filled, partials, status = memoryview(memory), 0, [], "incomplete"
    with connection:
        while status == "incomplete":
            received = connection.recv_into(buffer[filled : filled + READ_BYTES])
            filled += received
            # Larger batches cost pandas less per record.
            if received and filled < batch_bytes and not ends(buffer, filled):
                continue
            records, consumed = whole_packets(buffer, filled)
            if len(records) and not records[-1:].tobytes().strip(b"\0"):
                records, status = records[:-1], "complete"
            if len(records):
                partials.append(partial_of(records))
            buffer[: filled - consumed] = buffer[consumed:filled]
            filled -= consumed
            if not received:
                break
    answer(peer, status, partials)


def ends(buffer, filled):
    """Whether the last bytes may be the end record."""
    size = RECORD.itemsize
    return filled >= size and not buffer[filled - size : filled].tobytes().strip(b"\0")


def main():
    batch_bytes = int(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    host, port = listener.getsockname()
    print(f"ready for records on {host}:{port}", file=sys.stderr, flush=True)
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=serve, args=(connection, peer, batch_bytes), daemon=True).start()


main()
