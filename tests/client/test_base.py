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
