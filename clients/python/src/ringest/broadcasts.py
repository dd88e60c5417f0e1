"""Received broadcasts on their way to whoever reads them. It knows neither frames nor connections.

The buffer is bounded. When it is full, the oldest payload is dropped and counted: a reader that
was late goes on with the newest, and the connection never waits for it.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque

from ringest.errors import RingestError


class BroadcastBuffer:
    """Keeps up to `payloads_max` payloads; several readers share them, each gets its own."""

    def __init__(self, payloads_max: int, never_begun: RingestError) -> None:
        self._payloads: deque[bytes] = deque()
        self._payloads_max = payloads_max
        self._dropped = 0
        self._ended = True
        self._reason: RingestError | None = never_begun
        # Set while there is something to take or nothing to wait for.
        self._readable = asyncio.Event()
        self._readable.set()

    @property
    def dropped(self) -> int:
        """Payloads that were dropped because nobody read them in time, ever."""
        return self._dropped

    def begin(self) -> None:
        """There is a connection: readers wait for what comes."""
        self._ended, self._reason = False, None
        self._update()

    def end(self, reason: RingestError | None) -> None:
        """No more will come. Readers get the rest, and then the reason; with None they just end."""
        self._ended, self._reason = True, reason
        self._update()

    def put(self, payload: bytes) -> None:
        """Takes in a payload; the oldest one has to go if there is no room."""
        if len(self._payloads) >= self._payloads_max:
            self._payloads.popleft()
            self._dropped += 1
        self._payloads.append(payload)
        self._update()

    async def take(self) -> bytes:
        """The oldest payload; waits for one. StopAsyncIteration or the reason after the end."""
        while not self._payloads:
            if self._reason is not None:
                raise copy.copy(self._reason) from self._reason.__cause__
            if self._ended:
                raise StopAsyncIteration
            await self._readable.wait()
        payload = self._payloads.popleft()
        self._update()
        return payload

    def _update(self) -> None:
        if self._payloads or self._ended:
            self._readable.set()
        else:
            self._readable.clear()


class Broadcasts:
    """The iterator over a buffer. It outlives a cancelled wait, so that `wait_for` can be used."""

    def __init__(self, buffer: BroadcastBuffer) -> None:
        self._buffer = buffer

    def __aiter__(self) -> Broadcasts:
        return self

    async def __anext__(self) -> bytes:
        return await self._buffer.take()
