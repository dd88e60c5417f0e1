"""Client of the ringest message server, on asyncio and the standard library alone.

It exports the client, what the client returns, and its errors; frames and connections are internal.
"""

from ringest.broadcasts import Broadcasts
from ringest.client import BinaryProtocolClient, Pong
from ringest.errors import (
    AlreadyAuthenticated,
    AuthenticationError,
    ConnectError,
    ConnectionLimitExceeded,
    ConnectionLostError,
    ConnectTimeout,
    ErrorCode,
    NotConnected,
    ProtocolError,
    RateLimitExceeded,
    RequestTimeout,
    RingestError,
    ServerError,
    ServerTimeout,
)
from ringest.reconnect import ReconnectPolicy

__all__ = [
    "AlreadyAuthenticated",
    "AuthenticationError",
    "BinaryProtocolClient",
    "Broadcasts",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLimitExceeded",
    "ConnectionLostError",
    "ErrorCode",
    "NotConnected",
    "Pong",
    "ProtocolError",
    "RateLimitExceeded",
    "ReconnectPolicy",
    "RequestTimeout",
    "RingestError",
    "ServerError",
    "ServerTimeout",
]
