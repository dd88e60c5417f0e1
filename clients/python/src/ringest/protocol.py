"""Encodes and decodes the frames of the message protocol. No I/O.

A frame is magic u32, version u8, type u8, payload length u16, the payload, and a CRC-32 of
everything before it; integers are big-endian. docs/reference/protocol.md of the repository
describes the protocol.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ringest.errors import ProtocolError

MAGIC: Final = 0xDEADBEEF
VERSION: Final = 1
HEADER: Final = struct.Struct(">IBBH")
CRC: Final = struct.Struct(">I")
TIMESTAMP: Final = struct.Struct(">Q")
SEQUENCE: Final = struct.Struct(">I")
assert HEADER.size == 8
assert CRC.size == SEQUENCE.size == 4

# The maximum of the length field.
PAYLOAD_BYTES_MAX: Final = 0xFFFF
DATA_BYTES_MAX: Final = PAYLOAD_BYTES_MAX - SEQUENCE.size
SEQUENCE_MAX: Final = 0xFFFF_FFFF
USER_BYTES_MAX: Final = 0xFF

# Every frame of this version begins with these bytes.
PREFIX: Final = HEADER.pack(MAGIC, VERSION, 0, 0)[:5]

_CHECK_ADDRESS: Final = "check that host and port are those of a ringest message server"


class MessageType(IntEnum):
    """The type byte of a frame."""

    PING = 0x01
    PONG = 0x02
    ECHO = 0x03
    ECHO_REPLY = 0x04
    BROADCAST = 0x05
    AUTH = 0x06
    AUTH_REPLY = 0x07
    DATA = 0x08
    DATA_ACK = 0x09
    CLOSE = 0x0A
    ERROR = 0xFF


FROM_SERVER: Final = frozenset(
    {
        MessageType.PONG,
        MessageType.ECHO_REPLY,
        MessageType.BROADCAST,
        MessageType.AUTH_REPLY,
        MessageType.DATA_ACK,
        MessageType.ERROR,
    }
)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame with a valid checksum. `repr` omits the payload, which may be a secret."""

    type: MessageType
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and token; `repr` omits the token. ValueError if they do not fit into an AUTH."""

    user: str
    token: str = field(repr=False)

    def __post_init__(self) -> None:
        # An encoding error would contain the text, so it must not occur.
        for name, text in (("user", self.user), ("token", self.token)):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"the {name} contains a lone surrogate: use valid Unicode")
        if len(self.user.encode()) > USER_BYTES_MAX:
            raise ValueError(f"the user is longer than {USER_BYTES_MAX} bytes: shorten it")
        if len(self.payload()) > PAYLOAD_BYTES_MAX:
            raise ValueError("user and token do not fit into one message: shorten the token")

    def payload(self) -> bytes:
        """The payload of an AUTH."""
        user = self.user.encode()
        return bytes([len(user)]) + user + self.token.encode()


def encode(kind: MessageType, payload: bytes = b"") -> bytes:
    """The frame of a message. The payload must not be longer than PAYLOAD_BYTES_MAX."""
    header = HEADER.pack(MAGIC, VERSION, kind, len(payload))
    crc = zlib.crc32(payload, zlib.crc32(header))
    return b"".join((header, payload, CRC.pack(crc)))


class FrameParser:
    """Splits received bytes into frames; they may arrive in pieces of any size.

    It buffers less than one frame, plus the bytes of the last `feed`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Bytes at the start of the buffer that belong to earlier frames.
        self._begin = 0

    @property
    def in_frame(self) -> bool:
        """Whether part of a frame is buffered."""
        return self._begin < len(self._buffer)

    def feed(self, received: bytes) -> None:
        """Adds received bytes; call `next_frame` afterwards."""
        del self._buffer[: self._begin]
        self._begin = 0
        self._buffer += received

    def next_frame(self) -> Frame | None:
        """The next complete frame, or None. ProtocolError at the first invalid byte."""
        begin = self._begin
        prefix = bytes(self._buffer[begin : begin + len(PREFIX)])
        if not PREFIX.startswith(prefix):
            raise ProtocolError(_explain_prefix(prefix))
        if len(self._buffer) - begin < HEADER.size:
            return None
        _magic, _version, kind, payload_bytes = HEADER.unpack_from(self._buffer, begin)
        if kind not in FROM_SERVER:
            raise ProtocolError(
                f"the server sent type 0x{kind:02X}, which no server sends: {_CHECK_ADDRESS}"
            )
        payload_end = begin + HEADER.size + payload_bytes
        if len(self._buffer) < payload_end + CRC.size:
            return None
        with memoryview(self._buffer) as view:
            crc_found = zlib.crc32(view[begin:payload_end])
            payload = bytes(view[begin + HEADER.size : payload_end])
        (crc_sent,) = CRC.unpack_from(self._buffer, payload_end)
        if crc_found != crc_sent:
            raise ProtocolError(
                f"CRC 0x{crc_sent:08X} of a {MessageType(kind).name} from the server should be"
                f" 0x{crc_found:08X}: bytes were corrupted in transit, check the network"
            )
        self._begin = payload_end + CRC.size
        return Frame(MessageType(kind), payload)


def _explain_prefix(prefix: bytes) -> str:
    magic = PREFIX[:4]
    if prefix.startswith(magic):
        return f"the server uses version {prefix[4]}, not {VERSION}: use the same release of both"
    # The first bytes of a TLS alert. The parser stops at the first wrong byte that has arrived.
    if prefix[:2] == b"\x15\x03":
        return "the server uses TLS: pass ssl="
    found = prefix[:4].hex(" ")
    return f"the server sent {found}, not the magic {magic.hex(' ')}: {_CHECK_ADDRESS}"
