"""Client of ringest: messages on asyncio, record streams, and result files.

It exports the clients, what they return, and their errors; frames and connections are internal.
It needs the standard library alone, but for result files in Parquet and Arrow.
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
    RecordError,
    RequestTimeout,
    ResultError,
    RingestError,
    SchemaError,
    SendTimeout,
    ServerError,
    ServerTimeout,
)
from ringest.reconnect import ReconnectPolicy
from ringest.record_sender import RecordSender
from ringest.results import Result, read_result, shown_text, text_bytes
from ringest.schema import Column, Schema
from ringest.schema_types import Aggregate, Field, Packet

__all__ = [
    "Aggregate",
    "AlreadyAuthenticated",
    "AuthenticationError",
    "BinaryProtocolClient",
    "Broadcasts",
    "Column",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLimitExceeded",
    "ConnectionLostError",
    "ErrorCode",
    "Field",
    "NotConnected",
    "Packet",
    "Pong",
    "ProtocolError",
    "RateLimitExceeded",
    "ReconnectPolicy",
    "RecordError",
    "RecordSender",
    "RequestTimeout",
    "Result",
    "ResultError",
    "RingestError",
    "Schema",
    "SchemaError",
    "SendTimeout",
    "ServerError",
    "ServerTimeout",
    "read_result",
    "shown_text",
    "text_bytes",
]
