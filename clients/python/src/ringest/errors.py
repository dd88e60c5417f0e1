"""Every error that the package raises, and the codes that a server gives; it raises none of them.

All are a `RingestError`. Each text names the cause and, after it, the next step. No text contains
a token or a payload, and what a server wrote is shown without control characters.

    RingestError
    ├── ServerError              the server said ERROR: `code`, `message`
    │   ├── RateLimitExceeded        the message was not processed, the connection stays
    │   ├── AuthenticationError      user and token were refused, or are needed first
    │   ├── ConnectionLimitExceeded  the server has no free place
    │   └── ServerTimeout            the server waited too long for this client
    ├── ProtocolError            the server sent what the protocol does not allow
    ├── AlreadyAuthenticated     this connection belongs to another user
    ├── ConnectError             the connection could not be opened
    │   └── ConnectTimeout           not in time
    ├── NotConnected             there is no connection; the request was not sent
    ├── ConnectionLostError      the connection broke after the request was sent
    ├── RequestTimeout           no answer in time
    ├── SendTimeout              the engine took no records for too long
    ├── SchemaError              a schema breaks a rule
    ├── RecordError              a record does not fit its schema
    └── ResultError              a file is no result, or not one of this schema
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# How much of a server's own words is shown; `ServerError.message` has them whole.
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
    """The base of all errors of this package."""


class ServerError(RingestError):
    """The server said ERROR, or refused credentials. `message` is in the server's own words."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code: Final = code
        self.message: Final = message

    def __str__(self) -> str:
        return f"{self.code.name}: {show_text(self.message)}; {NEXT_STEPS[self.code]}"


class RateLimitExceeded(ServerError):
    """Too many messages: this one was not processed, the connection stays open."""


class AuthenticationError(ServerError):
    """User and token were refused, or the server wants them before anything else."""


class ConnectionLimitExceeded(ServerError):
    """The server has no free place: nothing was processed, the connection is closed."""


class ServerTimeout(ServerError):
    """The server closed because this client was silent, or too slow, for too long."""


class ProtocolError(RingestError):
    """The server sent bytes that the protocol does not allow; the connection is given up."""


class AlreadyAuthenticated(RingestError):
    """This connection was authenticated with other credentials; nothing was sent."""


class ConnectError(RingestError, ConnectionError):
    """The connection could not be opened."""


class ConnectTimeout(ConnectError, TimeoutError):
    """The connection could not be opened in time."""


class NotConnected(RingestError, ConnectionError):
    """There is no connection. The request was not sent, so repeating it later does no harm."""


class ConnectionLostError(RingestError, ConnectionError):
    """The connection broke while the request was under way. Whether it was processed is unknown."""


class RequestTimeout(RingestError, TimeoutError):
    """No answer in time. The text says whether the request was sent."""


class SendTimeout(RingestError, TimeoutError):
    """The engine took no records for too long. The stream is given up, and is incomplete."""


class SchemaError(RingestError, ValueError):
    """A schema breaks a rule, which the text names; of a file, the line as well."""


class RecordError(RingestError, ValueError):
    """A record does not fit its schema. Nothing of it was sent; the stream goes on without it."""


class ResultError(RingestError, ValueError):
    """A file is no result of `ringest serve --output`, or not one of the schema given."""


ERROR_CLASSES: Final[dict[ErrorCode, type[ServerError]]] = {
    ErrorCode.AUTHENTICATION_FAILED: AuthenticationError,
    ErrorCode.RATE_LIMIT_EXCEEDED: RateLimitExceeded,
    ErrorCode.CONNECTION_LIMIT_EXCEEDED: ConnectionLimitExceeded,
    ErrorCode.TIMEOUT: ServerTimeout,
}

_OTHER_VERSION: Final = "use a client and a server of the same release"
NEXT_STEPS: Final[dict[ErrorCode, str]] = {
    ErrorCode.UNKNOWN: "the server's log has the reason",
    ErrorCode.INVALID_MAGIC: _OTHER_VERSION,
    ErrorCode.INVALID_VERSION: _OTHER_VERSION,
    ErrorCode.INVALID_MESSAGE_TYPE: _OTHER_VERSION,
    ErrorCode.PAYLOAD_TOO_LARGE: "authenticate first or send smaller payloads",
    ErrorCode.CRC_MISMATCH: "bytes changed on the way: check the network, then repeat",
    ErrorCode.AUTHENTICATION_FAILED: "call authenticate() with a user and token of this server",
    ErrorCode.RATE_LIMIT_EXCEEDED: "send more slowly, or raise the server's limits",
    ErrorCode.CONNECTION_LIMIT_EXCEEDED: "try again later, or raise the server's --max-connections",
    ErrorCode.TIMEOUT: "connect again, and leave the heartbeat on",
    ErrorCode.INTERNAL_ERROR: "a defect of the server: its log has the details",
}
assert NEXT_STEPS.keys() == set(ErrorCode)


def server_error(code: int, message: str) -> ServerError:
    """The error of the class that belongs to `code`; a code of a later release is UNKNOWN."""
    try:
        known = ErrorCode(code)
    except ValueError:
        return ServerError(ErrorCode.UNKNOWN, f"code 0x{code:02X}, {message}")
    return ERROR_CLASSES.get(known, ServerError)(known, message)


def show_text(text: str) -> str:
    """`text` on one line, fit for a terminal: what cannot be printed is escaped, a long end cut."""
    shown = text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in shown)
