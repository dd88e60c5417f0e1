"""Frames: golden bytes, every way to split them, and bytes that are not frames."""

from __future__ import annotations

import random
import zlib

import pytest

from ringest.errors import ErrorCode, ProtocolError, ServerError, server_error
from ringest.protocol import Credentials, Frame, FrameParser, MessageType, encode

FROM_CLIENT = {
    "PING": (
        MessageType.PING,
        (1_700_000_000_000).to_bytes(8, "big"),
        "deadbeef010100080000018bcfe56800c8bc9ec8",
    ),
    "ECHO": (
        MessageType.ECHO,
        b"Hello, Server!",
        "deadbeef0103000e48656c6c6f2c20536572766572211a24c8fb",
    ),
    "ECHO, empty": (MessageType.ECHO, b"", "deadbeef010300006077f2de"),
    "BROADCAST": (MessageType.BROADCAST, b"hi", "deadbeef010500026869185f10b4"),
    "AUTH": (
        MessageType.AUTH,
        Credentials("alice", "s3cret").payload(),
        "deadbeef0106000c05616c6963657333637265741107bcdb",
    ),
    "DATA": (
        MessageType.DATA,
        b"\x00\x00\x00\x07payload",
        "deadbeef0108000b000000077061796c6f61648d1103c3",
    ),
    "CLOSE": (MessageType.CLOSE, b"", "deadbeef010a00006fa6c951"),
}

FROM_SERVER = {
    "PONG": (
        MessageType.PONG,
        (1_700_000_000_000).to_bytes(8, "big"),
        "deadbeef010200080000018bcfe56800515ef8c9",
    ),
    "ECHO_REPLY": (
        MessageType.ECHO_REPLY,
        b"Hello, Server!",
        "deadbeef0104000e48656c6c6f2c20536572766572213ab6b4b0",
    ),
    "BROADCAST": (MessageType.BROADCAST, b"hi", "deadbeef010500026869185f10b4"),
    "AUTH_REPLY": (MessageType.AUTH_REPLY, b"\x00", "deadbeef01070001002570c1ba"),
    "DATA_ACK": (MessageType.DATA_ACK, b"\x00\x00\x00\x07", "deadbeef0109000400000007b3d7544c"),
    "ERROR": (
        MessageType.ERROR,
        b"\x05CRC checksum mismatch",
        "deadbeef01ff00160543524320636865636b73756d206d69736d6174636845856623",
    ),
}

STREAM = b"".join(bytes.fromhex(text) for _kind, _payload, text in FROM_SERVER.values())
FRAMES = [Frame(kind, payload) for kind, payload, _text in FROM_SERVER.values()]


def frames_of(*pieces: bytes) -> list[Frame]:
    """The frames that a parser finds in the pieces."""
    parser = FrameParser()
    frames = []
    for piece in pieces:
        parser.feed(piece)
        while (frame := parser.next_frame()) is not None:
            frames.append(frame)
    return frames


def test_the_checksum_is_the_one_of_the_protocol() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926


@pytest.mark.parametrize("name", FROM_CLIENT)
def test_frames_of_the_client_are_golden(name: str) -> None:
    kind, payload, text = FROM_CLIENT[name]
    assert encode(kind, payload).hex() == text


@pytest.mark.parametrize("name", FROM_SERVER)
def test_frames_of_the_server_are_understood(name: str) -> None:
    kind, payload, text = FROM_SERVER[name]
    assert frames_of(bytes.fromhex(text)) == [Frame(kind, payload)]
    assert encode(kind, payload).hex() == text


def test_all_frames_in_one_piece() -> None:
    assert frames_of(STREAM) == FRAMES


def test_byte_by_byte() -> None:
    assert frames_of(*(bytes([byte]) for byte in STREAM)) == FRAMES


def test_every_cut_and_every_pair_of_cuts() -> None:
    for first in range(len(STREAM) + 1):
        for second in range(first, len(STREAM) + 1):
            pieces = STREAM[:first], STREAM[first:second], STREAM[second:]
            assert frames_of(*pieces) == FRAMES, (first, second)


def test_random_frames_in_random_pieces() -> None:
    rng = random.Random(20_240_229)
    for _ in range(50):
        frames = [
            Frame(MessageType.ECHO_REPLY, rng.randbytes(rng.choice((0, 1, 100, 65_535))))
            for _ in range(rng.randrange(1, 6))
        ]
        stream = b"".join(encode(frame.type, frame.payload) for frame in frames)
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(20)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert frames_of(*pieces) == frames


def test_a_parser_knows_whether_it_is_within_a_frame() -> None:
    parser = FrameParser()
    assert not parser.in_frame
    parser.feed(STREAM[:21])
    assert parser.next_frame() is not None
    assert parser.in_frame
    parser.feed(STREAM[21:46])
    assert parser.next_frame() is not None
    assert not parser.in_frame


@pytest.mark.parametrize("bit", range(8 * 20))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    damaged = bytearray.fromhex(FROM_SERVER["PONG"][2])
    damaged[bit // 8] ^= 1 << bit % 8
    # Followed by zeros, in case the flipped bit makes the length larger.
    with pytest.raises(ProtocolError):
        frames_of(bytes(damaged) + bytes(65_536))


def test_a_wrong_magic_is_judged_from_its_first_byte() -> None:
    with pytest.raises(ProtocolError, match="not the magic de ad be ef"):
        frames_of(b"H")
    with pytest.raises(ProtocolError, match="sent 48 54 54 50"):
        frames_of(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_wrong_version_is_judged_from_its_byte() -> None:
    with pytest.raises(ProtocolError, match="version 2, not 1"):
        frames_of(bytes.fromhex("deadbeef02"))


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x03, 0x06, 0x08, 0x0A, 0x0B, 0xFE])
def test_a_type_that_no_server_sends_is_judged_from_the_header(kind: int) -> None:
    with pytest.raises(ProtocolError, match=f"type 0x{kind:02X}"):
        frames_of(bytes.fromhex(f"deadbeef01{kind:02x}ffff"))


def test_a_wrong_checksum_names_both() -> None:
    with pytest.raises(ProtocolError, match="CRC 0xB3D7544D of a DATA_ACK from the server should"):
        frames_of(bytes.fromhex("deadbeef0109000400000007b3d7544d"))


def test_frames_before_a_bad_one_are_given_first() -> None:
    parser = FrameParser()
    parser.feed(STREAM[:20] + b"nonsense")
    assert parser.next_frame() == FRAMES[0]
    with pytest.raises(ProtocolError):
        parser.next_frame()


def test_error_codes_are_those_of_the_protocol() -> None:
    assert {code.name: int(code) for code in ErrorCode} == {
        "UNKNOWN": 0x00,
        "INVALID_MAGIC": 0x01,
        "INVALID_VERSION": 0x02,
        "INVALID_MESSAGE_TYPE": 0x03,
        "PAYLOAD_TOO_LARGE": 0x04,
        "CRC_MISMATCH": 0x05,
        "AUTHENTICATION_FAILED": 0x06,
        "RATE_LIMIT_EXCEEDED": 0x07,
        "CONNECTION_LIMIT_EXCEEDED": 0x08,
        "TIMEOUT": 0x09,
        "INTERNAL_ERROR": 0xFF,
    }


def test_a_code_of_a_later_release_keeps_its_number_in_the_text() -> None:
    error = server_error(0x2A, "too blue")
    assert type(error) is ServerError
    assert (error.code, error.message) == (ErrorCode.UNKNOWN, "code 0x2A, too blue")


def test_what_a_server_wrote_is_shown_without_control_characters() -> None:
    error = server_error(0x00, "a\x1b[31mb\nc" + "x" * 1000)
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert r"a\x1b[31mb\nc" in str(error)
    assert len(str(error)) < 400
    assert len(error.message) == 1009


def test_credentials_count_bytes_and_not_characters() -> None:
    assert Credentials("ü" * 127, "").payload()[:3] == b"\xfe\xc3\xbc"
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        Credentials("ü" * 128, "")
    Credentials("", "x" * 65_534)
    with pytest.raises(ValueError, match="do not fit into one message"):
        Credentials("", "x" * 65_535)


def test_secrets_are_not_shown() -> None:
    credentials = Credentials("alice", "s3cret")
    assert "s3cret" not in repr(credentials)
    assert "s3cret" not in repr(Frame(MessageType.AUTH, credentials.payload()))
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        Credentials("alice", "s3cret\ud800")
    assert "s3cret" not in repr(caught.value)
    # An encoding error would contain the whole text.
    assert caught.value.__context__ is None
