"""Collects records into packets, as a schema frames them. It packs no value and sends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ringest.errors import RecordError
from ringest.schema import Schema

# What a packet has by default, its length included, where records are not longer: the kernel takes
# such writes best, as docs/PROTOCOL.md says to senders.
PACKET_BYTES: Final = 60 << 10


class RecordPackets:
    """Whole packets of records; ready bytes are handed out as soon as a packet is full."""

    __slots__ = ("_end_record", "_header", "_limit", "_pending", "packets", "records", "schema")

    def __init__(self, schema: Schema, packet_records: int | None) -> None:
        bare = schema.packet.length == "none"
        fit = (PACKET_BYTES - schema.packet.length_bytes) // schema.record_bytes
        # Bare records are packets of their own, and merely written so many at a time.
        most = PACKET_BYTES if bare else schema.packet_records_max
        if packet_records is None:
            packet_records = max(1, min(fit, most))
        if not 1 <= packet_records <= most:
            raise ValueError(f"packet_records {packet_records} is not from 1 to {most}")
        self.schema: Final = schema
        self._limit: Final = packet_records
        self._header: Final = self._length(packet_records)
        ends = schema.packet.end == "zero-record"
        self._end_record: Final = bytes(schema.record_bytes) if ends else None
        self._pending: Final[list[bytes]] = []
        # Of all bytes that were handed out, and of those still pending: records without the end.
        self.records = 0
        self.packets = 0

    def add(self, record: bytes) -> bytes | None:
        """Takes one packed record; gives the packet that it filled."""
        if record == self._end_record:
            raise RecordError(_ALL_ZERO)
        self._pending.append(record)
        self.records += 1
        return self.flush() if len(self._pending) == self._limit else None

    def flush(self) -> bytes:
        """The packet of what is pending; nothing where nothing is."""
        count = len(self._pending)
        if count == 0:
            return b""
        header = self._header if count == self._limit else self._length(count)
        packet = header + b"".join(self._pending)
        self._pending.clear()
        self._count(count)
        return packet

    def end(self) -> bytes:
        """The last bytes of the stream: what is pending, and the end record if there is one."""
        if self._end_record is not None:
            self._pending.append(self._end_record)
        return self.flush()

    def whole(self, data: Any) -> Iterator[bytes]:
        """The packets of a buffer of whole records, after what is pending."""
        view, records = self._whole_records(memoryview(data))
        if self._pending and records > 0:
            yield self.flush()
        items = len(view) // records if records > 0 else 0
        for begin in range(0, records, self._limit):
            count = min(self._limit, records - begin)
            packed = view[begin * items : (begin + count) * items].tobytes()
            self._refuse_end(packed, begin)
            self.records += count
            self._count(count)
            yield (self._header if count == self._limit else self._length(count)) + packed

    def _whole_records(self, view: memoryview) -> tuple[memoryview, int]:
        """The buffer in one dimension, and how many records are in it."""
        size = self.schema.record_bytes
        # Those of numpy that have fields are one record an item, or of another schema.
        structured = view.format.startswith("T{") and view.itemsize != size
        if structured or view.nbytes % size != 0:
            rule = f"{view.nbytes} bytes in items of {view.itemsize} are no records of {size} bytes"
            raise RecordError(f"{rule}; Schema.numpy_dtype() gives the type of an array")
        if view.ndim != 1 or view.itemsize not in (1, size):
            view = memoryview(view.tobytes())
        return view, view.nbytes // size

    def _refuse_end(self, packed: bytes, first: int) -> None:
        """Refuses records that would end the stream; `first` is the index of the first of these."""
        if self._end_record is None:
            return
        size, place = len(self._end_record), 0
        while (place := packed.find(self._end_record, place)) >= 0:
            if place % size == 0:
                raise RecordError(f"record {first + place // size} of the array: {_ALL_ZERO}")
            # Zeros over the border of two records: the next one may begin there.
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
    "a record of nothing but zero bytes would end the stream; pad a text with a space, or choose "
    'end = "close" in the schema'
)
