from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.transport.settings import TransportSettings

PEM = Path("/nonexistent.pem")
PORT = "the gRPC port takes max_message_bytes from 1,024 to 2,147,483,647 and keepalive_s from 1 to 86,400"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_message_bytes": 1023}, f"{PORT}, got 1023 and 60.0"),
        ({"max_message_bytes": 2**31}, PORT),
        ({"keepalive_s": 0.9}, PORT),
        ({"keepalive_s": 86_401}, PORT),
        ({"keepalive_s": float("nan")}, PORT),
        ({"connection_age_s": 0.05}, "connection_age_s is 0.05, expected 0.1 to 1,000,000 seconds"),
        ({"connection_age_s": 2e6}, "connection_age_s is 2000000.0"),
        ({"connection_age_s": float("nan")}, "connection_age_s is nan"),
        ({"max_streams": 0}, "max_streams is 0, expected 1 to 2,147,483,647"),
        ({"max_streams": 2**31}, "max_streams is 2147483648"),
        ({"compression": "zstd"}, "grpc.compression is 'zstd', expected 'none' or 'gzip'"),
        ({"tls_certificate": PEM}, "TLS takes a certificate and its key, got only one of them"),
        ({"tls_key": PEM}, "TLS takes a certificate and its key, got only one of them"),
        ({"tls_client_ca": PEM}, "a client CA needs a TLS certificate and key, got none"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        TransportSettings(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_message_bytes": 1024, "keepalive_s": 1, "connection_age_s": 0.1, "max_streams": 1},
        {"max_message_bytes": 2**31 - 1, "keepalive_s": 86_400, "connection_age_s": 1e6, "max_streams": 2**31 - 1},
    ],
)
def test_the_limits_themselves_are_allowed(settings: dict[str, Any]) -> None:
    TransportSettings(**settings)


def test_settings_become_channel_arguments() -> None:
    options = dict(
        TransportSettings(max_message_bytes=2048, keepalive_s=2.5, connection_age_s=1.5, max_streams=7).options()
    )
    assert options["grpc.max_receive_message_length"] == options["grpc.max_send_message_length"] == 2048
    assert options["grpc.keepalive_time_ms"] == 2500
    assert options["grpc.max_connection_age_ms"] == 1500
    assert options["grpc.max_connection_age_grace_ms"] == 30_000
    assert options["grpc.max_concurrent_streams"] == 7


def test_what_is_not_set_is_left_to_grpc() -> None:
    options = dict(TransportSettings().options())
    assert not [key for key in options if "age" in key.split("_") or "streams" in key]


def test_without_a_certificate_the_port_is_plain_text() -> None:
    assert TransportSettings().server_credentials() is None


def test_an_unreadable_file_is_named() -> None:
    settings = TransportSettings(tls_certificate=PEM, tls_key=Path("/nonexistent.key"))
    with pytest.raises(InvalidInputError, match=r"grpc\.tls_key: cannot read the TLS file /nonexistent\.key: No such"):
        settings.server_credentials()


def test_files_that_fit_are_served_with(tls: Path) -> None:
    settings = TransportSettings(tls_certificate=tls / "server.pem", tls_key=tls / "server.key")
    assert settings.tls is not None
    assert settings.server_credentials() is not None
    assert TransportSettings().tls is None
