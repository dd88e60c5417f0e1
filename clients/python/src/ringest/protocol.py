"""The bytes of the message protocol: frames and payloads. It does no I/O and knows no connection.

A frame is magic u32, version u8, type u8, payload length u16, the payload, and a CRC-32 over all
before it; integers are big-endian. docs/PROTOCOL.md of the server describes the protocol.
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

# What the length field can say.
PAYLOAD_BYTES_MAX: Final = 0xFFFF
DATA_BYTES_MAX: Final = PAYLOAD_BYTES_MAX - SEQUENCE.size
SEQUENCE_MAX: Final = 0xFFFF_FFFF
USER_BYTES_MAX: Final = 0xFF

# Every frame of this version begins with these bytes.
PREFIX: Final = HEADER.pack(MAGIC, VERSION, 0, 0)[:5]

_ADVICE: Final = "check that host and port are those of a ringest message server"


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
    """A whole frame whose checksum was right. Its payload can be a secret, and is not shown."""

    type: MessageType
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and token; the token is never shown. ValueError if they do not fit into an AUTH."""

    user: str
    token: str = field(repr=False)

    def __post_init__(self) -> None:
        # Encoding errors carry the text that they are about, so none is allowed to happen.
        for name, text in (("user", self.user), ("token", self.token)):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"the {name} holds a lone surrogate: give it as proper Unicode")
        if len(self.user.encode()) > USER_BYTES_MAX:
            raise ValueError(f"the user takes more than {USER_BYTES_MAX} bytes: shorten it")
        if len(self.payload()) > PAYLOAD_BYTES_MAX:
            raise ValueError("user and token do not fit into one message: shorten the token")

    def payload(self) -> bytes:
        """The payload of an AUTH."""
        user = self.user.encode()
        return bytes([len(user)]) + user + self.token.encode()


def encode(kind: MessageType, payload: bytes = b"") -> bytes:
    """The frame of one message. The payload must be no longer than PAYLOAD_BYTES_MAX."""
    header = HEADER.pack(MAGIC, VERSION, kind, len(payload))
    crc = zlib.crc32(payload, zlib.crc32(header))
    return b"".join((header, payload, CRC.pack(crc)))


class FrameParser:
    """Cuts received bytes into frames, wherever the network has cut them.

    It holds less than one frame, and what the last `feed` brought.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Bytes of the buffer that earlier frames have used up.
        self._begin = 0

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return self._begin < len(self._buffer)

    def feed(self, received: bytes) -> None:
        """Takes in bytes; then `next_frame` gives what is whole."""
        del self._buffer[: self._begin]
        self._begin = 0
        self._buffer += received

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None. ProtocolError as soon as the bytes are no frame."""
        begin = self._begin
        prefix = bytes(self._buffer[begin : begin + len(PREFIX)])
        if not PREFIX.startswith(prefix):
            raise ProtocolError(_explain_prefix(prefix))
        if len(self._buffer) - begin < HEADER.size:
            return None
        _magic, _version, kind, payload_bytes = HEADER.unpack_from(self._buffer, begin)
        if kind not in FROM_SERVER:
            raise ProtocolError(f"the server sent type 0x{kind:02X}, no server does: {_ADVICE}")
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
                f" 0x{crc_found:08X}: bytes changed on the way, check the network"
            )
        self._begin = payload_end + CRC.size
        return Frame(MessageType(kind), payload)


def _explain_prefix(prefix: bytes) -> str:
    magic = PREFIX[:4]
    if prefix.startswith(magic):
        return f"the server speaks version {prefix[4]}, not {VERSION}: use the same release of both"
    return f"the server sent {prefix[:4].hex(' ')}, not the magic {magic.hex(' ')}: {_ADVICE}"
