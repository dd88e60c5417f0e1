"""Matches answers to the requests of one connection. No I/O; the caller supplies the time.

The server answers in the order of the requests, so the next answer belongs to the oldest request.
A request whose caller was cancelled stays in the queue: its answer is taken and discarded.

A BROADCAST has no answer, but the server may refuse it. To match such a refusal, each request
remembers how many BROADCASTs were sent between it and the request before it.
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

# Messages without an answer are rate limited too, so such an ERROR need not answer a request.
RATE_LIMIT_MESSAGE: Final = re.compile(r"rate limit exceeded for (PING|ECHO|BROADCAST|AUTH|DATA)")

NEEDS_AUTHENTICATION: Final = frozenset({MessageType.ECHO, MessageType.DATA})

_SAME_RELEASE: Final = "connect again, and use the same release of client and server"


@dataclass(frozen=True, slots=True)
class Answer:
    """The payload of an answer, and the time from request to answer."""

    payload: bytes
    latency_s: float


@dataclass(frozen=True, slots=True)
class Received:
    """Another client's broadcast arrived."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The server refused to forward a BROADCAST of this client."""

    error: ServerError


@dataclass(frozen=True, slots=True)
class Ending:
    """An error after which the server closes; after AUTHENTICATION_FAILED it may stay open."""

    error: ServerError


Event: TypeAlias = Received | Refused | Ending


@dataclass(slots=True, eq=False)
class Request:
    """A request that was sent."""

    type: MessageType
    # The bytes that the answer has to repeat.
    repeated: bytes
    sent_s: float
    # A heartbeat: no caller waits for it, so none would learn why the connection ended.
    internal: bool
    # BROADCASTs sent since the previous request, without those known to be refused.
    broadcasts_before: int
    answer: asyncio.Future[Answer]


class InFlight:
    """The unanswered requests of one connection, oldest first."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self._broadcasts_last = 0

    def __len__(self) -> int:
        return len(self._requests)

    def push(
        self, kind: MessageType, repeated: bytes, now_s: float, *, internal: bool = False
    ) -> asyncio.Future[Answer]:
        """Records a request that was just sent; the future gets its answer or an error."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        before, self._broadcasts_last = self._broadcasts_last, 0
        self._requests.append(Request(kind, repeated, now_s, internal, before, answer))
        return answer

    def push_broadcast(self) -> None:
        """Records a BROADCAST that was just sent."""
        self._broadcasts_last += 1

    def handle(self, frame: Frame, now_s: float) -> Event | None:
        """Gives a frame to the request that it answers, or returns the event that it stands for.

        ProtocolError if it answers no request; then later frames cannot be matched either.
        """
        if frame.type is MessageType.BROADCAST:
            return Received(frame.payload)
        if frame.type is MessageType.ERROR:
            return self._handle_error(frame.payload)
        request = self._requests[0] if self._requests else None
        if request is None or ANSWERS[request.type] is not frame.type:
            raise ProtocolError(f"got {frame.type.name}, {_expected(request)}: {_SAME_RELEASE}")
        if request.type is MessageType.AUTH:
            self._settle(_judge_auth(frame.payload, now_s - request.sent_s))
            return None
        if frame.payload != request.repeated:
            raise ProtocolError(
                f"{frame.type.name} does not match its {request.type.name}: the answers are out of"
                f" order; {_SAME_RELEASE}"
            )
        self._settle(Answer(frame.payload, now_s - request.sent_s))
        return None

    def fail(self, reason: RingestError) -> None:
        """Ends all requests with an error, because the connection has ended.

        If the server gave a reason or violated the protocol, that error goes to the oldest request
        whose caller is still waiting; the others get a ConnectionLostError. If the server had
        reached its connection limit, all of them get that error.
        """
        reason_pending = isinstance(reason, ServerError | ProtocolError)
        while self._requests:
            request = self._requests[0]
            waited_for = not request.internal and not request.answer.done()
            if isinstance(reason, ConnectionLimitExceeded):
                self._settle(copy.copy(reason))
            elif reason_pending and waited_for:
                self._settle(copy.copy(reason))
                reason_pending = False
            else:
                self._settle(_request_lost(request, reason))

    def _handle_error(self, payload: bytes) -> Event | None:
        if not payload:
            raise ProtocolError(f"the server sent an ERROR without a code: {_SAME_RELEASE}")
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
            raise ProtocolError(f"unknown message refused by rate limit ({what}): {_SAME_RELEASE}")
        kind = MessageType[match[1]]
        if kind is MessageType.BROADCAST:
            self._take_broadcast()
            return Refused(error)
        request = self._requests[0] if self._requests else None
        if request is None or request.type is not kind:
            refusal = f"got the refusal of a {kind.name}, {_expected(request)}"
            raise ProtocolError(f"{refusal}: {_SAME_RELEASE}")
        self._settle(error)
        return None

    def _handle_unauthenticated(self, error: ServerError) -> Event | None:
        """Finds the refused message: the oldest one that needs authentication.

        A server that refuses one refuses all, so a BROADCAST sent before the oldest request was
        refused before it. If no message is left, the error is about too many failed attempts.
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
        """Removes the oldest BROADCAST from the counts; those forwarded before it do not matter."""
        for request in self._requests:
            if request.broadcasts_before > 0:
                request.broadcasts_before -= 1
                return
        self._broadcasts_last = max(self._broadcasts_last - 1, 0)

    def _settle(self, outcome: Answer | RingestError) -> None:
        request = self._requests.popleft()
        if request.answer.done():
            return
        if isinstance(outcome, Answer):
            request.answer.set_result(outcome)
        else:
            request.answer.set_exception(outcome)
            # Marks it as retrieved: the caller may have been cancelled at this very moment.
            request.answer.exception()


def _judge_auth(payload: bytes, latency_s: float) -> Answer | AuthenticationError:
    """The session id as the answer, or the rejection as an error."""
    if payload == b"\x00":
        return AuthenticationError(ErrorCode.AUTHENTICATION_FAILED, "user or token rejected")
    if len(payload) < 2 or payload[0] != 1 or not payload.isascii():
        raise ProtocolError(f"the server sent a malformed AUTH_REPLY: {_SAME_RELEASE}")
    return Answer(payload[1:], latency_s)


def _expected(request: Request | None) -> str:
    return f"expected {'no answer' if request is None else ANSWERS[request.type].name}"


def _request_lost(request: Request, reason: RingestError) -> ConnectionLostError:
    error = ConnectionLostError(
        f"{reason}; the {request.type.name} was sent and may have been processed: repeat it only"
        " if that is safe"
    )
    error.__cause__ = reason
    return error
