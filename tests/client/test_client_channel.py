import pytest

from penstock_client import AsyncClient, Client, Tls
from penstock_client.channel import call_metadata, channel_options, checked_address


@pytest.mark.parametrize("address", ["", "models", "dns:models"])
def test_an_address_has_a_port(address):
    with pytest.raises(ValueError, match="expected as host:port"):
        checked_address(address)


@pytest.mark.parametrize("address", ["models:8001", "[::1]:8001", "dns:///models:8001", "unix:/run/x.sock"])
def test_addresses_that_grpc_takes_are_left_alone(address):
    assert checked_address(address) == address


def test_limits_and_retries_are_ours_unless_options_say_otherwise():
    options = dict(channel_options(None, 7, [("grpc.keepalive_time_ms", 5)]))
    assert options["grpc.max_send_message_length"] == options["grpc.max_receive_message_length"] == 7
    assert options["grpc.enable_retries"] == 0
    assert options["grpc.keepalive_time_ms"] == 5
    assert "grpc.ssl_target_name_override" not in options


def test_a_server_name_overrides_the_targets():
    assert dict(channel_options(Tls(server_name="m"), 7, ()))["grpc.ssl_target_name_override"] == "m"


def test_header_names_are_lower_case():
    assert call_metadata({"Authorization": "Bearer x"}) == (("authorization", "Bearer x"),)
    assert call_metadata({}) is None


def test_secrets_are_not_shown():
    client = Client("a:1", tls=Tls(certificate_chain=b"chain", private_key=b"secret"), headers={"k": "secret"})
    assert "secret" not in repr(client)
    assert "secret" not in repr(client.tls)
    client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"address": "models"}, "host:port"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"retries": -1}, "retries"),
        ({"max_message_bytes": 0}, "max_message_bytes is expected above 0"),
    ],
)
def test_settings_are_checked_at_birth_of_a_client(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(**{"address": "a:1"} | settings)


def test_tls_reads_files(tmp_path):
    names = ("root_certificates", "certificate_chain", "private_key")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    tls = Tls.from_files(**{name: tmp_path / name for name in names}, server_name="m")
    assert tls == Tls(**{name: name.encode() for name in names}, server_name="m")
    with pytest.raises(FileNotFoundError):
        Tls.from_files(root_certificates=tmp_path / "none")
