"""Buffers received broadcasts for their readers. It does not handle frames or connections.

The buffer is bounded. When it is full, the oldest payload is dropped and counted, so a slow reader
misses payloads but never holds up the connection.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable

from ringest.errors import RingestError


class BroadcastBuffer:
    """Holds up to `payloads_max` payloads; each goes to one of the readers.

    Until `begin` is called, readers get `not_begun` raised.
    """

    def __init__(self, payloads_max: int, not_begun: RingestError) -> None:
        self._payloads: deque[bytes] = deque()
        self._payloads_max = payloads_max
        self._dropped = 0
        self._ended = True
        self._reason: RingestError | None = not_begun
        # Set while there is a payload to take, and after the end.
        self._readable = asyncio.Event()
        self._readable.set()

    @property
    def dropped(self) -> int:
        """All payloads dropped so far because they were not read in time."""
        return self._dropped

    def enter_loop(self) -> None:
        """Makes the buffer usable on another event loop; the previous one must have no readers."""
        self._readable = asyncio.Event()
        self._update()

    def begin(self) -> None:
        """Marks the start of a connection: from now on, readers wait for payloads."""
        self._ended, self._reason = False, None
        self._update()

    def end(self, reason: RingestError | None) -> None:
        """Marks the end: readers get the remaining payloads and then `reason`, if any."""
        self._ended, self._reason = True, reason
        self._update()

    def put(self, payload: bytes) -> None:
        """Adds a payload; drops the oldest one if the buffer is full."""
        if len(self._payloads) >= self._payloads_max:
            self._payloads.popleft()
            self._dropped += 1
        self._payloads.append(payload)
        self._update()

    async def take(self) -> bytes:
        """Waits for a payload and takes it; after the end, StopAsyncIteration or the reason."""
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
    """An async iterator over a buffer. A wait may be cancelled, e.g. by `asyncio.wait_for`."""

    def __init__(self, buffer: BroadcastBuffer, enter_loop: Callable[[], None]) -> None:
        self._buffer = buffer
        self._enter_loop = enter_loop

    def __aiter__(self) -> Broadcasts:
        return self

    async def __anext__(self) -> bytes:
        self._enter_loop()
        return await self._buffer.take()
