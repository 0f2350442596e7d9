"""What TLS does beside what every transport does (`test_transports`): certificates that are renewed, callers that are known."""

import shutil
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from penstock_server.transport.settings import TransportSettings
from tests.server.transport.test_transports import TIMEOUT_S, Service, running, unary


@pytest.fixture
def files(tls: Path, tmp_path: Path) -> Path:
    """A certificate and its key that a test may replace."""
    for name in ("server.pem", "server.key"):
        shutil.copy(tls / name, tmp_path / name)
    return tmp_path


def settings(files: Path, client_ca: Path | None = None) -> TransportSettings:
    return TransportSettings(
        tls_certificate=files / "server.pem", tls_key=files / "server.key", tls_client_ca=client_ca
    )


def shown(address: str) -> str:
    """The certificate that the server shows."""
    host, port = address.split(":")
    return ssl.get_server_certificate((host, int(port)))


def pem(path: Path) -> str:
    return path.read_text()


def test_a_renewed_certificate_is_shown_to_new_connections(files: Path, tls: Path) -> None:
    service = Service()
    with running("native", service, settings(files)) as (_, address):
        credentials = grpc.ssl_channel_credentials((tls / "server.pem").read_bytes())
        with grpc.secure_channel(address, credentials) as opened:
            assert unary(opened, "Echo")(b"a", timeout=TIMEOUT_S) == b"a"
            for name in ("pem", "key"):
                shutil.copy(tls / f"other.{name}", files / f"server.{name}")
            assert ssl.PEM_cert_to_DER_cert(shown(address)) == ssl.PEM_cert_to_DER_cert(pem(tls / "other.pem"))
            assert unary(opened, "Echo")(b"b", timeout=TIMEOUT_S) == b"b"  # the former connection goes on


def test_a_renewal_that_is_broken_leaves_the_former_certificate(files: Path, tls: Path) -> None:
    with running("native", Service(), settings(files)) as (_, address):
        before = shown(address)
        (files / "server.pem").write_text("half a file")
        assert shown(address) == before
        shutil.copy(tls / "other.pem", files / "server.pem")  # of another key
        assert shown(address) == before


def test_a_caller_without_a_certificate_is_refused_where_one_is_asked_for(files: Path, tls: Path) -> None:
    root, key = (tls / "server.pem").read_bytes(), (tls / "server.key").read_bytes()
    with running("native", Service(), settings(files, tls / "server.pem")) as (_, address):
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(root)) as unknown:
            with pytest.raises(grpc.RpcError) as caught:
                unary(unknown, "Echo")(b"a", timeout=TIMEOUT_S)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, root)) as known:
            assert unary(known, "Echo")(bytes(3_000_000), timeout=TIMEOUT_S) == bytes(3_000_000)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_a_connection_that_does_not_choose_http2_is_closed(files: Path, tls: Path, protocols: list[str]) -> None:
    with running("native", Service(), settings(files)) as (_, address):
        host, port = address.split(":")
        context = ssl.create_default_context(cafile=str(tls / "server.pem"))
        if protocols:
            context.set_alpn_protocols(protocols)
        with (
            socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as opened,
            suppress(ConnectionError),
        ):
            assert opened.recv(1) == b""
