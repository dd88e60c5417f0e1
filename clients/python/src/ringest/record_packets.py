"""Collects packed records into packets with the framing of a schema. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ringest.errors import RecordError, counted
from ringest.schema import Schema

# The default size of a packet, including its length: writes of this size are the fastest, as
# docs/reference/protocol.md explains. A longer record still gets a packet.
PACKET_BYTES: Final = 60 << 10


def packet_records_limit(schema: Schema) -> int:
    """The most records that a packet may have; without a length, that are returned at once."""
    return PACKET_BYTES if schema.packet.length == "none" else schema.packet_records_max


class RecordPackets:
    """Builds packets of up to `packet_records` records, and returns each when it is full."""

    __slots__ = ("_end_record", "_header", "_limit", "_pending", "packets", "records", "schema")

    def __init__(self, schema: Schema, packet_records: int | None) -> None:
        fit = (PACKET_BYTES - schema.packet.length_bytes) // schema.record_bytes
        limit = packet_records_limit(schema)
        if packet_records is None:
            packet_records = max(1, min(fit, limit))
        if not 1 <= packet_records <= limit:
            raise ValueError(f"packet_records {packet_records} is not from 1 to {limit}")
        self.schema: Final = schema
        self._limit: Final = packet_records
        self._header: Final = self._length(packet_records)
        ends = schema.packet.end == "zero-record"
        self._end_record: Final = bytes(schema.record_bytes) if ends else None
        self._pending: Final[list[bytes]] = []
        # All records added so far, without the end record, and all packets returned so far.
        self.records = 0
        self.packets = 0

    def add(self, record: bytes) -> bytes | None:
        """Adds a packed record; returns the packet if that filled it."""
        if record == self._end_record:
            raise RecordError(_ALL_ZERO)
        self._pending.append(record)
        self.records += 1
        return self.flush() if len(self._pending) == self._limit else None

    def flush(self) -> bytes:
        """The packet of the pending records; empty if there are none."""
        count = len(self._pending)
        if count == 0:
            return b""
        header = self._header if count == self._limit else self._length(count)
        packet = header + b"".join(self._pending)
        self._pending.clear()
        self._count(count)
        return packet

    def end(self) -> bytes:
        """The last bytes of the stream: the pending records, and the end record if there is one."""
        if self._end_record is not None:
            self._pending.append(self._end_record)
        return self.flush()

    def whole(self, data: Any) -> Iterator[bytes]:
        """The packet of the pending records, then the packets of a buffer of whole records.

        RecordError before the first packet if any of the records cannot be sent.
        """
        view, records = self._whole_records(memoryview(data))
        items = len(view) // records if records > 0 else 0
        self._refuse_end(view, records, items)
        if self._pending and records > 0:
            yield self.flush()
        for begin in range(0, records, self._limit):
            count = min(self._limit, records - begin)
            packed = view[begin * items : (begin + count) * items].tobytes()
            self.records += count
            self._count(count)
            yield (self._header if count == self._limit else self._length(count)) + packed

    def _whole_records(self, view: memoryview) -> tuple[memoryview, int]:
        """The buffer in one dimension, and the number of records in it."""
        size = self.schema.record_bytes
        # Each item of a structured numpy array is a record: of this schema, or of another.
        structured = view.format.startswith("T{") and view.itemsize != size
        if structured or view.nbytes % size != 0:
            rule = f"the buffer ({view.nbytes} bytes, items of {view.itemsize}) does not consist of"
            records = f"records of {counted(size, 'byte')}"
            raise RecordError(f"{rule} {records}; use an array of numpy_dtype()")
        if view.ndim != 1 or view.itemsize not in (1, size):
            view = memoryview(view.tobytes())
        return view, view.nbytes // size

    def _refuse_end(self, view: memoryview, records: int, items: int) -> None:
        """Rejects records of which one would end the stream."""
        if self._end_record is None:
            return
        size = len(self._end_record)
        step = max(1, _SEARCHED_BYTES // size)
        for first in range(0, records, step):
            packed, place = view[first * items : (first + step) * items].tobytes(), 0
            while (place := packed.find(self._end_record, place)) >= 0:
                if place % size == 0:
                    raise RecordError(f"record {first + place // size} of the array: {_ALL_ZERO}")
                # Zeros that straddle two records: continue at the start of the second one.
                place += size - place % size

    def _length(self, records: int) -> bytes:
        packet = self.schema.packet
        own = packet.length_bytes if packet.length_includes_itself else 0
        size = own + records * self.schema.record_bytes
        if packet.length == "none":
            return b""
        return size.to_bytes(packet.length_bytes, packet.length_endian)

    def _count(self, records: int) -> None:
        self.packets += records if self.schema.packet.length == "none" else 1


_ALL_ZERO: Final = (
    "an all-zero record would end the stream; pad a text with a space, or use "
    'end = "close" in the schema'
)

# How much of a buffer is searched at once.
_SEARCHED_BYTES: Final = 65_536
