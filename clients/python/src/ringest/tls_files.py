"""Makes the TLS settings of a client from PEM files. It opens no connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


class TlsFilesError(Exception):
    """A file cannot be used. The text names it, and says what to do."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files; `ca` is None for the authorities that this machine trusts."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    # The name that the engine's certificate must have; None for the host.
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """The settings; TlsFilesError if a file cannot be used."""
        for path in filter(None, (self.ca, self.cert, self.key)):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise TlsFilesError(f"cannot read {path}: {error.strerror}") from error
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            text = f"{self.ca} has no certificate in PEM form: give that of the engine's authority"
            raise TlsFilesError(text) from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, _no_password)
            except ssl.SSLError as error:
                raise TlsFilesError(self._explain_chain(error)) from error
        return context

    def _explain_chain(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{self.key} is not the key of the certificate in {self.cert}: give its own key"
        if "KEY_TOO_SMALL" in (error.reason or ""):
            advice = "make one with RSA of 2048 bits or more, or with ECDSA"
            return f"the key of the certificate in {self.cert} is too small for TLS: {advice}"
        why = f" ({error.reason})" if error.reason else ""
        return f"{self.cert} and {self.key} are not a certificate and its key in PEM form{why}"


def _no_password() -> NoReturn:
    # By default, OpenSSL asks on the terminal.
    raise TlsFilesError("the key is encrypted: decrypt it first, with `openssl pkey -in … -out …`")
