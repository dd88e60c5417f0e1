"""Record streams over TLS: the class, the command, and what they say if TLS fails."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine_process import BINARY, engine
from naive_records import PATIENCE_S, listener
from scripted import Peer, run, scripted, server_context
from test_send_command import run_send

from ringest import (
    BinaryProtocolClient,
    ConnectionLostError,
    Field,
    NotConnected,
    Packet,
    ProtocolError,
    RecordSender,
    Schema,
)
from ringest.send_command import main

HOST = "127.0.0.1"
SCHEMA = Schema([Field("a", "u8")], by=["a"])
REFUSED = "ended TLS with TLSV13_ALERT_CERTIFICATE_REQUIRED: give it a client certificate"


class TlsListener:
    """Receives one stream over TLS: its bytes, and the client's certificate."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.port: int = sock.getsockname()[1]
        self.received = b""
        self.client_certificate: bytes | None = None
        self.closed_properly = False
        self._socket = sock
        self._context = context
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        plain, _ = self._socket.accept()
        plain.settimeout(PATIENCE_S)
        with plain.dup() as rest:
            try:
                with self._context.wrap_socket(plain, server_side=True) as own:
                    self.client_certificate = own.getpeercert(binary_form=True)
                    while data := own.recv(1 << 16):
                        self.received += data
                    own.unwrap()
                    self.closed_properly = True
            except OSError:
                # Closing with unread bytes would reset the connection, and the alert with it.
                with contextlib.suppress(OSError):
                    rest.shutdown(socket.SHUT_WR)
                    while rest.recv(1 << 16):
                        pass

    def wait(self) -> bytes:
        """Waits until the stream ends; returns its bytes."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.received


@contextmanager
def tls_listener(certificate: tuple[Path, Path], *, asks: bool = False) -> Iterator[TlsListener]:
    """A local port that receives one stream over TLS, and may ask for a client certificate."""
    context = server_context(certificate)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate[0])
    with socket.create_server((HOST, 0)) as sock:
        sock.settimeout(PATIENCE_S)
        taken = TlsListener(sock, context)
        yield taken
        taken.wait()


def options_for(port: int, *options: str) -> list[str]:
    """A short stream with a fixed seed."""
    fixed = ["--host", "localhost", "--connections", "1", "--records", "300", "--seed", "7"]
    return [*fixed, "--port", str(port), *options]


def test_the_command_sends_over_tls_what_it_sends_without(certificate: tuple[Path, Path]) -> None:
    with listener() as plain:
        assert run_send(*options_for(plain.port)).returncode == 0
        stream = plain.wait()
    with tls_listener(certificate) as port:
        done = run_send(*options_for(port.port, "--tls", "--ca", str(certificate[0])))
        assert (done.returncode, done.stderr) == (0, "")
        assert port.wait() == stream
        assert f"{len(stream)} bytes" in done.stdout
        assert port.closed_properly


def test_the_command_presents_a_client_certificate(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    with tls_listener(certificate, asks=True) as port:
        done = run_send(
            *options_for(port.port, "--tls", "--ca", cert, "--cert", cert, "--key", key)
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert port.wait() != b""
        assert port.client_certificate is not None


def test_the_command_checks_the_name(certificate: tuple[Path, Path]) -> None:
    tls = ["--tls", "--ca", str(certificate[0]), "--host", HOST]
    with tls_listener(certificate) as port:
        done = run_send(*options_for(port.port, *tls, "--server-name", "localhost"))
        assert (done.returncode, done.stderr) == (0, "")
    with tls_listener(certificate) as port:
        done = run_send(*options_for(port.port, *tls))
        assert done.returncode == 1
        assert f"certificate of {HOST}:{port.port} rejected" in done.stderr
        assert "check the CA file and the expected name" in done.stderr


def test_a_missing_client_certificate_is_named(certificate: tuple[Path, Path]) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])
    for records in (1, 300_000):
        with tls_listener(certificate, asks=True) as port:
            sender = RecordSender(SCHEMA, "localhost", port.port, tls=trusting)
            with pytest.raises(ConnectionLostError, match=REFUSED), sender:
                sender.send_many([1] for _ in range(records))


def test_a_client_without_its_certificate_is_told(certificate: tuple[Path, Path]) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])

    async def scenario(port: int) -> None:
        client = BinaryProtocolClient("localhost", port, ssl=trusting)
        await client.connect()
        with pytest.raises(NotConnected, match=REFUSED):
            await anext(client.broadcasts())
        await client.close()

    with tls_listener(certificate, asks=True) as port:
        run(scenario(port.port))


def test_a_server_with_tls_is_recognized(certificate: tuple[Path, Path]) -> None:
    async def alert(peer: Peer) -> None:
        await peer.read()
        await peer.write(bytes.fromhex("15 03 03 00 02 02 0a"))
        await peer.until_gone()

    async def scenario() -> None:
        async with scripted(alert) as port, BinaryProtocolClient(HOST, port) as client:
            with pytest.raises(ProtocolError, match="the server uses TLS: pass ssl="):
                await client.ping()

    run(scenario())


def encrypted_key(key: Path, folder: Path) -> str:
    path = folder / "encrypted.pem"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:x"]
    subprocess.run([*command, "-out", str(path)], check=True, capture_output=True)
    return str(path)


def other_key(_key: Path, folder: Path) -> str:
    path = folder / "other.pem"
    command = ["openssl", "genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run([*command, "-out", str(path)], check=True, capture_output=True)
    return str(path)


def test_a_key_that_is_too_small_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = str(tmp_path / "small.crt"), str(tmp_path / "small.key")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-out", cert, "-keyout", key], check=True, capture_output=True)
    with pytest.raises(SystemExit) as caught:
        main(["send", "--tls", "--cert", cert, "--key", key])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"{cert} is too small for TLS: make one with RSA of 2048 bits or more" in said


def test_files_that_cannot_be_used_are_named(
    certificate: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = map(str, certificate)
    other, encrypted = (make(certificate[1], tmp_path) for make in (other_key, encrypted_key))
    for options, why in (
        (["--ca", cert], "--ca only applies to TLS: add --tls"),
        (["--server-name", "x"], "--server-name only applies to TLS: add --tls"),
        (["--tls", "--cert", cert], "--cert and --key go together"),
        (["--tls", "--key", key], "--cert and --key go together"),
        (["--tls", "--ca", "/nonexistent/ca"], "cannot read /nonexistent/ca: No such file"),
        (["--tls", "--ca", key], f"{key} has no certificate in PEM form"),
        (["--tls", "--cert", cert, "--key", other], f"{other} is not the key of the certificate"),
        (["--tls", "--cert", cert, "--key", encrypted], "the key is encrypted: decrypt it first"),
        (["--tls", "--cert", key, "--key", key], "are not a certificate and its key"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["send", *options])
        assert caught.value.code == 2
        assert why in capsys.readouterr().err


@pytest.mark.skipif(not BINARY, reason="RINGEST_BIN does not name the ringest program")
def test_the_real_engine_receives_streams_over_tls(tmp_path: Path) -> None:
    make = [BINARY, "gen-cert", "--dir", str(tmp_path), "--client", "sensor"]
    subprocess.run(make, check=True, capture_output=True)
    ca, cert, key, client_cert, client_key = (
        str(tmp_path / name)
        for name in ("ca.crt", "server.crt", "server.key", "sensor.crt", "sensor.key")
    )
    serve = ["--records-tls", "--cert", cert, "--key", key, "--client-ca", ca]
    with engine(3, *serve) as running:
        tls = options_for(running.port, "--tls", "--ca", ca)
        done = run_send(*tls, "--cert", client_cert, "--key", client_key)
        assert (done.returncode, done.stderr) == (0, "")
        assert REFUSED in run_send(*tls).stderr
        # Without TLS.
        assert "it uses TLS: pass tls= (or --tls)" in run_send(*tls[:-3]).stderr
        results = running.wait()
    assert [one["reason"] for one in results] == [None, "tls_failed", "tls_failed"]
    assert results[0]["records"] == 300


@pytest.mark.skipif(not BINARY, reason="RINGEST_BIN does not name the ringest program")
def test_the_end_of_a_tls_stream_is_its_own(tmp_path: Path) -> None:
    """With end = "close", a stream ends with its connection; an aborted one is not complete."""
    make = [BINARY, "gen-cert", "--dir", str(tmp_path)]
    subprocess.run(make, check=True, capture_output=True)
    schema = Schema([Field("a", "u8")], by=["a"], packet=Packet(end="close"))
    (tmp_path / "schema.toml").write_text(schema.to_toml())
    options = ["--records-tls", "--cert", str(tmp_path / "server.crt")]
    options += ["--key", str(tmp_path / "server.key"), "--schema", str(tmp_path / "schema.toml")]
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    with engine(2, *options) as running:
        with RecordSender(schema, "localhost", running.port, tls=trusting) as sender:
            sender.send_many([i % 3] for i in range(100_000))
        aborted = RecordSender(schema, "localhost", running.port, tls=trusting)
        with pytest.raises(ZeroDivisionError), aborted:
            aborted.send_many([i % 3] for i in range(1000))
            # Without a byte it would be counted as empty, and not reported.
            aborted.flush()
            aborted.send_many([1 // (999 - i)] for i in range(1000))
        results = running.wait()
    assert [one["status"] == "complete" for one in results] == [True, False]
    assert (results[0]["records"], len(results[0]["groups"])) == (100_000, 3)
