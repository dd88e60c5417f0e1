"""Opens a connection to one of the servers of a client, which decides when to try."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from ringest.connection import Callbacks, Connection, Limits, log, open_connection, prove
from ringest.errors import (
    AuthenticationError,
    ConnectError,
    ConnectTimeout,
    ProtocolError,
    RingestError,
)
from ringest.protocol import Credentials
from ringest.target import Target


class NotOpened(Exception):
    """No server could be used; has the error of each, in the order in which they were tried."""

    def __init__(self, errors: Sequence[tuple[Target, RingestError]]) -> None:
        super().__init__()
        self._errors: Final = errors

    @property
    def final(self) -> bool:
        """Whether another attempt would fail as well.

        The credentials were refused, or there is a server of another protocol.
        """
        return all(isinstance(one, AuthenticationError | ProtocolError) for _, one in self._errors)

    def reason(self) -> RingestError:
        """The error of the attempt. If all servers have failed for good, it is that of the last."""
        last = self._errors[-1][1]
        return last if len(self._errors) == 1 or self.final else self.connect_error()

    def connect_error(self) -> ConnectError:
        """The reason as the error of a `connect()`."""
        if len(self._errors) == 1 and isinstance(self._errors[0][1], ConnectError):
            return self._errors[0][1]
        texts = (
            str(error) if isinstance(error, ConnectError) else f"{target}: {error}"
            for target, error in self._errors
        )
        in_time = not all(isinstance(error, ConnectTimeout) for _, error in self._errors)
        error = (ConnectError if in_time else ConnectTimeout)("; ".join(texts))
        error.__cause__ = self._errors[-1][1]
        return error


class Opener:
    """Tries the servers of a client in turn; each has `timeout_s` to connect, and to answer."""

    def __init__(
        self,
        servers: Sequence[Target],
        limits: Limits,
        callbacks: Callbacks,
        timeout_s: float | None,
    ) -> None:
        self._servers: Final = servers
        self._limits: Final = limits
        self._callbacks: Final = callbacks
        self._timeout_s: Final = timeout_s
        self._next = 0

    def __str__(self) -> str:
        return ", ".join(map(str, self._servers))

    async def open_first(self) -> Connection:
        """Tries the servers from the first one on; NotOpened if none can be used.

        With one server, a connection need not be accepted yet. With several, the server must have
        answered: one that is full or stuck is passed over.
        """
        self._next = 0
        if len(self._servers) > 1:
            return await self.open_proven(None)
        try:
            return await self._open(self._servers[0])
        except RingestError as error:
            raise NotOpened([(self._servers[0], error)]) from error

    async def open_proven(self, credentials: Credentials | None) -> Connection:
        """Tries the servers from the one after the last on, until one has answered.

        It must have answered an AUTH with these credentials, or a PING if there are none. NotOpened
        if no server has.
        """
        errors: list[tuple[Target, RingestError]] = []
        for _ in self._servers:
            server = self._servers[self._next]
            self._next = (self._next + 1) % len(self._servers)
            try:
                return await self._prove(await self._open(server), credentials)
            except RingestError as error:
                if len(self._servers) > 1:
                    log.info("%s cannot be used: %s", server, error)
                errors.append((server, error))
        raise NotOpened(errors) from errors[-1][1]

    async def _open(self, server: Target) -> Connection:
        return await open_connection(server, self._limits, self._callbacks, self._timeout_s)

    async def _prove(self, connection: Connection, credentials: Credentials | None) -> Connection:
        """The connection, once its server has accepted it; aborts it otherwise."""
        proof = asyncio.ensure_future(prove(connection, credentials))
        try:
            if not await connection.wait_while_alive(proof, self._timeout_s):
                waited = f"did not answer within {self._timeout_s} s"
                raise ConnectTimeout(
                    f"{connection.target} accepted the connection but {waited}: see its log"
                )
            proof.result()
        except BaseException:
            proof.cancel()
            connection.abort()
            raise
        return connection
