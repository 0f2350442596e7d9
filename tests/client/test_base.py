import pytest

from penstock_client import AsyncClient, Client, Tls


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
def test_settings_are_checked(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(**{"address": "a:1"} | settings)


def test_the_environment_says_where_the_server_is_and_how_to_encrypt(monkeypatch):
    monkeypatch.setenv("PENSTOCK_SERVER", "models:8001,others:8001")
    monkeypatch.setenv("PENSTOCK_TLS", "true")
    with Client() as client:
        assert client._server == "models:8001, others:8001"
        assert client.tls == Tls()
    with Client("own:1", tls=False) as client:
        assert client._server == "own:1"
        assert client._tls() is None
