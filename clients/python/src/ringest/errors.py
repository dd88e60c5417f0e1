"""The package's own errors, and the error codes of the server. Raises none of them itself.

All of them derive from `RingestError`. Each text gives the cause and then the next step. No text
contains a token or a payload, and the server's messages are shown without control characters.

    RingestError
    ├── ServerError              the server sent an ERROR: `code`, `message`
    │   ├── RateLimitExceeded        the message was not processed; the connection stays open
    │   ├── AuthenticationError      credentials were rejected, or are required first
    │   ├── ConnectionLimitExceeded  the server has reached its connection limit
    │   └── ServerTimeout            the server waited too long for this client
    ├── ProtocolError            the server violated the protocol
    ├── AlreadyAuthenticated     the connection is authenticated as another user
    ├── ConnectError             the connection could not be opened
    │   └── ConnectTimeout           ... in time
    ├── NotConnected             there is no connection; the request was not sent
    ├── ConnectionLostError      the connection broke after the request was sent
    ├── RequestTimeout           no answer in time
    ├── SendTimeout              the engine read no records for too long
    ├── SchemaError              a schema breaks a rule
    ├── RecordError              a record does not fit its schema
    └── ResultError              a file is not a result, or not one of the given schema
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# How much of the server's message is shown; `ServerError.message` has all of it.
SHOWN_CHARACTERS_MAX: Final = 200


class ErrorCode(IntEnum):
    """The first byte of an ERROR."""

    UNKNOWN = 0x00
    INVALID_MAGIC = 0x01
    INVALID_VERSION = 0x02
    INVALID_MESSAGE_TYPE = 0x03
    PAYLOAD_TOO_LARGE = 0x04
    CRC_MISMATCH = 0x05
    AUTHENTICATION_FAILED = 0x06
    RATE_LIMIT_EXCEEDED = 0x07
    CONNECTION_LIMIT_EXCEEDED = 0x08
    TIMEOUT = 0x09
    INTERNAL_ERROR = 0xFF


class RingestError(Exception):
    """The base class of this package's errors."""


class ServerError(RingestError):
    """The server sent an ERROR or rejected credentials. `message` is the server's own text."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code: Final = code
        self.message: Final = message

    def __str__(self) -> str:
        return f"{self.code.name}: {show_text(self.message)}; {NEXT_STEPS[self.code]}"


class RateLimitExceeded(ServerError):
    """Too many messages. This one was not processed; the connection stays open."""


class AuthenticationError(ServerError):
    """The server rejected user and token, or requires them before other messages."""


class ConnectionLimitExceeded(ServerError):
    """The server has reached its connection limit: nothing was processed, and it has closed."""


class ServerTimeout(ServerError):
    """The server closed the connection because this client was idle or slow for too long."""


class ProtocolError(RingestError):
    """The server sent bytes that the protocol does not allow; the connection was aborted."""


class AlreadyAuthenticated(RingestError):
    """The connection is authenticated with other credentials; nothing was sent."""


class ConnectError(RingestError, ConnectionError):
    """The connection could not be opened."""


class ConnectTimeout(ConnectError, TimeoutError):
    """The connection could not be opened in time."""


class NotConnected(RingestError, ConnectionError):
    """There is no connection. The request was not sent, so it is safe to repeat it later."""


class ConnectionLostError(RingestError, ConnectionError):
    """The connection broke before the answer. Whether the request was processed is unknown."""


class RequestTimeout(RingestError, TimeoutError):
    """No answer in time. The text says whether the request was sent."""


class SendTimeout(RingestError, TimeoutError):
    """The engine read no records for too long. The stream was aborted and is incomplete."""


class SchemaError(RingestError, ValueError):
    """A schema breaks a rule. The text states the rule and, for a file, the line."""


class RecordError(RingestError, ValueError):
    """A record does not fit its schema. It was not sent; the stream can continue without it."""


class ResultError(RingestError, ValueError):
    """A file is not a result of `ringest serve --output`, or not one of the given schema."""


ERROR_CLASSES: Final[dict[ErrorCode, type[ServerError]]] = {
    ErrorCode.AUTHENTICATION_FAILED: AuthenticationError,
    ErrorCode.RATE_LIMIT_EXCEEDED: RateLimitExceeded,
    ErrorCode.CONNECTION_LIMIT_EXCEEDED: ConnectionLimitExceeded,
    ErrorCode.TIMEOUT: ServerTimeout,
}

_OTHER_VERSION: Final = "use a client and a server of the same release"
NEXT_STEPS: Final[dict[ErrorCode, str]] = {
    ErrorCode.UNKNOWN: "the server logs the reason with `ringest serve --debug`",
    ErrorCode.INVALID_MAGIC: _OTHER_VERSION,
    ErrorCode.INVALID_VERSION: _OTHER_VERSION,
    ErrorCode.INVALID_MESSAGE_TYPE: _OTHER_VERSION,
    ErrorCode.PAYLOAD_TOO_LARGE: "authenticate first or send smaller payloads",
    ErrorCode.CRC_MISMATCH: "bytes were corrupted in transit: check the network, then retry",
    ErrorCode.AUTHENTICATION_FAILED: "call authenticate() with a user and token of this server",
    ErrorCode.RATE_LIMIT_EXCEEDED: "send more slowly, or raise the server's limits",
    ErrorCode.CONNECTION_LIMIT_EXCEEDED: "try again later, or raise the server's --max-connections",
    ErrorCode.TIMEOUT: "connect again, and keep the heartbeat on",
    ErrorCode.INTERNAL_ERROR: "this is a bug in the server: see its log for details",
}
assert NEXT_STEPS.keys() == set(ErrorCode)


def server_error(code: int, message: str) -> ServerError:
    """The error for a code, of the matching class; a code of a later release is UNKNOWN."""
    try:
        known = ErrorCode(code)
    except ValueError:
        return ServerError(ErrorCode.UNKNOWN, f"code 0x{code:02X}, {message}")
    return ERROR_CLASSES.get(known, ServerError)(known, message)


def counted(number: int, noun: str) -> str:
    """The number with its noun: 1 byte, 2 bytes."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def show_text(text: str) -> str:
    """`text` on one line: unprintable characters are escaped, and a long text is cut."""
    shown = text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in shown)
