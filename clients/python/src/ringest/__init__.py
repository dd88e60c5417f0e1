"""Python client of ringest: messages on asyncio, record streams, and result files.

This module exports the whole public interface; all other modules are internal. Only result files in
Parquet and Arrow need more than the standard library. `python3 -m ringest send` sends random
records of a schema.
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
