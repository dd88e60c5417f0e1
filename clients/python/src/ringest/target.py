"""Where to connect to, and why connecting failed, in words. Opens no connection."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PORT_MAX: Final = 65_535

# A name or an IPv4 address, or an IPv6 address in brackets, each with or without a port; or an IPv6
# address without brackets, which has no port.
_ADDRESS: Final = re.compile(
    r"(?:([^:\[\]]+)|\[([^\[\]]+)\])(?::([0-9]{1,5}))?|([^:\[\]]*:[^\[\]]*:[^\[\]]*)"
)


@dataclass(frozen=True, slots=True)
class Target:
    """The server's address; `str` gives host and port. ValueError if they make no sense."""

    host: str
    port: int
    ssl: ssl.SSLContext | bool | None
    server_hostname: str | None

    def __post_init__(self) -> None:
        if not self.host or not 1 <= self.port <= PORT_MAX:
            given = f"host {self.host!r}, port {self.port}"
            raise ValueError(f"{given}: give a host and a port from 1 to {PORT_MAX}")
        if self.server_hostname is not None and not self.ssl:
            raise ValueError("server_hostname only applies to TLS: also enable TLS")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def certificate_name(self) -> str | None:
        """The name that the server's certificate must have; None without TLS."""
        if not self.ssl:
            return None
        return self.host if self.server_hostname is None else self.server_hostname


def targets(
    servers: str | Sequence[str],
    port: int,
    tls: ssl.SSLContext | bool | None,
    server_hostname: str | None,
) -> tuple[Target, ...]:
    """The targets of one or several servers; `port` is that of those without their own."""
    names = [servers] if isinstance(servers, str) else list(servers)
    if not names:
        raise ValueError("no server given: give at least one, such as ['localhost:5000']")
    places = [split_address(name, port) for name in names]
    return tuple(Target(*place, tls or None, server_hostname) for place in places)


def split_address(address: str, port: int) -> tuple[str, int]:
    """Host and port of an address; `port` if it has none of its own."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        forms = "'host', 'host:port' or '[IPv6 address]:port'"
        raise ValueError(f"{address!r} is not the address of a server: give {forms}")
    name, bracketed, digits, bare = match.groups()
    return name or bracketed or bare, int(digits) if digits else port


def explain_connect(error: OSError | UnicodeError, target: Target) -> str:
    """Cause and next step for a connection that could not be opened."""
    if isinstance(error, ConnectionRefusedError):
        return explain_refused(target)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return f"certificate of {target} rejected ({why}): check the CA file and the expected name"
    if isinstance(error, ssl.SSLError):
        why = error.reason or str(error)
        return f"TLS with {target} failed ({why}): check that both server and client use TLS"
    # What asyncio raises where the connection ends within the handshake has no text.
    if target.ssl and isinstance(error, ConnectionError):
        return (
            f"TLS with {target} failed (the server closed the connection during the handshake):"
            " check that it uses TLS and has a free connection (serve --max-connections)"
        )
    why = str(error) or type(error).__name__
    return f"cannot connect to {target} ({why}): check host and port, and that the server runs"


def explain_alert(error: BaseException | None) -> str | None:
    """Cause and next step if the server ended TLS with an alert; None if it did not.

    With TLS 1.3, this is how a client learns after connecting that its certificate was refused.
    """
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if "ALERT" not in reason:
        return None
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        advice = "give it a client certificate that it trusts, with --cert or an SSLContext"
    else:
        advice = "see its log for the reason"
    return f"the server ended TLS with {reason}: {advice}"


def explain_refused(target: Target) -> str:
    """Cause and next step when nobody listens on the port."""
    return f"connection refused: is the server running on {target}?"
