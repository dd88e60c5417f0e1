"""Which answer belongs to which request of one connection. It does no I/O and reads no clock.

The server answers strictly in the order of the requests, so the oldest one waits for the next
answer. A request that nobody waits for any more keeps its place: its answer is taken and dropped.

A BROADCAST has no answer, but it can be refused. For that each request remembers how many
BROADCASTs went out between it and the request before it.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

from ringest.errors import (
    AuthenticationError,
    ConnectionLimitExceeded,
    ConnectionLostError,
    ErrorCode,
    ProtocolError,
    RingestError,
    ServerError,
    server_error,
    show_text,
)
from ringest.protocol import Frame, MessageType

ANSWERS: Final = {
    MessageType.PING: MessageType.PONG,
    MessageType.ECHO: MessageType.ECHO_REPLY,
    MessageType.AUTH: MessageType.AUTH_REPLY,
    MessageType.DATA: MessageType.DATA_ACK,
}

# Every message counts against the limit, so an ERROR for one can come where no answer is due.
RATE_LIMIT_MESSAGE: Final = re.compile(r"rate limit exceeded for (PING|ECHO|BROADCAST|AUTH|DATA)")

NEEDS_AUTHENTICATION: Final = frozenset({MessageType.ECHO, MessageType.DATA})

_ADVICE: Final = "connect again, and use the same release of client and server"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is told: the payload of the answer, and how long it took."""

    payload: bytes
    latency_s: float


@dataclass(frozen=True, slots=True)
class Received:
    """Another client's broadcast."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A BROADCAST of this client was not passed on."""

    error: ServerError


@dataclass(frozen=True, slots=True)
class Ending:
    """The server closes after this. After AUTHENTICATION_FAILED it may also go on."""

    error: ServerError


Event: TypeAlias = Received | Refused | Ending


@dataclass(slots=True, eq=False)
class Request:
    """A request that was sent."""

    type: MessageType
    # What the answer has to repeat.
    repeated: bytes
    sent_s: float
    # The client's own, so that no caller would learn why the connection ended.
    internal: bool
    # Sent since the request before; those known to be refused are taken off.
    broadcasts_before: int
    answer: asyncio.Future[Answer]


class InFlight:
    """The requests of one connection that have no answer yet, oldest first."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self._broadcasts_last = 0
        self._answered = 0

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def answered(self) -> int:
        """Requests that got their answer or their refusal, ever."""
        return self._answered

    def push(
        self, kind: MessageType, repeated: bytes, now_s: float, *, internal: bool = False
    ) -> asyncio.Future[Answer]:
        """Notes a request that was just sent; the future gets its answer or an error."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        before, self._broadcasts_last = self._broadcasts_last, 0
        self._requests.append(Request(kind, repeated, now_s, internal, before, answer))
        return answer

    def push_broadcast(self) -> None:
        """Notes a BROADCAST that was just sent."""
        self._broadcasts_last += 1

    def handle(self, frame: Frame, now_s: float) -> Event | None:
        """Gives a frame of the server to the request it answers, or says what else it means.

        ProtocolError if it fits no request; then nothing that follows can be matched either.
        """
        if frame.type is MessageType.BROADCAST:
            return Received(frame.payload)
        if frame.type is MessageType.ERROR:
            return self._handle_error(frame.payload)
        request = self._requests[0] if self._requests else None
        if request is None or ANSWERS[request.type] is not frame.type:
            raise ProtocolError(f"{frame.type.name} came {_due(request)}: {_ADVICE}")
        if request.type is MessageType.AUTH:
            self._settle(_judge_auth(frame.payload, now_s - request.sent_s))
            return None
        if frame.payload != request.repeated:
            raise ProtocolError(
                f"{frame.type.name} does not repeat its {request.type.name}: the answers are in"
                f" another order than the requests; {_ADVICE}"
            )
        self._settle(Answer(frame.payload, now_s - request.sent_s))
        return None

    def fail(self, reason: RingestError) -> None:
        """The connection is over: every request gets an error, and none keeps its place.

        The oldest one is told the reason itself, if the server gave one or broke the protocol. The
        others are told that the connection was lost. Where the server had no free place, all are
        told that.
        """
        told = isinstance(reason, ServerError | ProtocolError)
        while self._requests:
            request = self._requests[0]
            waited_for = not request.internal and not request.answer.done()
            if isinstance(reason, ConnectionLimitExceeded):
                self._settle(copy.copy(reason))
            elif told and waited_for:
                self._settle(copy.copy(reason))
                told = False
            else:
                self._settle(_lost(request, reason))

    def _handle_error(self, payload: bytes) -> Event | None:
        if not payload:
            raise ProtocolError(f"the server sent an ERROR without a code: {_ADVICE}")
        error = server_error(payload[0], payload[1:].decode("utf-8", "replace"))
        if error.code is ErrorCode.RATE_LIMIT_EXCEEDED:
            return self._handle_rate_limit(error)
        if error.code is ErrorCode.AUTHENTICATION_FAILED:
            return self._handle_unauthenticated(error)
        return Ending(error)

    def _handle_rate_limit(self, error: ServerError) -> Event | None:
        match = RATE_LIMIT_MESSAGE.fullmatch(error.message)
        if match is None:
            what = show_text(error.message)
            raise ProtocolError(f"a rate limit refused an unknown message ({what}): {_ADVICE}")
        kind = MessageType[match[1]]
        if kind is MessageType.BROADCAST:
            self._take_broadcast()
            return Refused(error)
        request = self._requests[0] if self._requests else None
        if request is None or request.type is not kind:
            raise ProtocolError(f"a refused {kind.name} came {_due(request)}: {_ADVICE}")
        self._settle(error)
        return None

    def _handle_unauthenticated(self, error: ServerError) -> Event | None:
        """Finds out what was refused: the oldest message that needs authentication.

        A server that refuses one refuses all, so a BROADCAST sent before the oldest request was
        refused before it. If nothing is left that could be meant, too many attempts failed.
        """
        request = self._requests[0] if self._requests else None
        before = request.broadcasts_before if request is not None else self._broadcasts_last
        if before > 0:
            self._take_broadcast()
            return Refused(error)
        if request is not None and request.type in NEEDS_AUTHENTICATION:
            self._settle(error)
        return Ending(error)

    def _take_broadcast(self) -> None:
        """Takes off the oldest BROADCAST; those that went through before it need no place."""
        for request in self._requests:
            if request.broadcasts_before > 0:
                request.broadcasts_before -= 1
                return
        self._broadcasts_last = max(self._broadcasts_last - 1, 0)

    def _settle(self, outcome: Answer | RingestError) -> None:
        request = self._requests.popleft()
        self._answered += 1
        if request.answer.done():
            return
        if isinstance(outcome, Answer):
            request.answer.set_result(outcome)
        else:
            request.answer.set_exception(outcome)
            # Counts as seen: whoever waited may have been cancelled at this very moment.
            request.answer.exception()


def _judge_auth(payload: bytes, latency_s: float) -> Answer | AuthenticationError:
    """The answer with the session id alone, or the refusal."""
    if payload == b"\x00":
        return AuthenticationError(ErrorCode.AUTHENTICATION_FAILED, "user or token refused")
    if len(payload) < 2 or payload[0] != 1 or not payload.isascii():
        raise ProtocolError(f"the server sent an AUTH_REPLY that is none: {_ADVICE}")
    return Answer(payload[1:], latency_s)


def _due(request: Request | None) -> str:
    return "unasked" if request is None else f"where {ANSWERS[request.type].name} was due"


def _lost(request: Request, reason: RingestError) -> ConnectionLostError:
    error = ConnectionLostError(
        f"{reason}; the {request.type.name} had been sent and may have been processed: repeat it"
        " only if that does no harm"
    )
    error.__cause__ = reason
    return error
