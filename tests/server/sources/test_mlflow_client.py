import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.sources.mlflow_client import RegistryClient


class Answering(HTTPServer):
    """An HTTP server that gives every request the same answer."""

    status = 200
    body = b"{}"

    @property
    def uri(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def refusal(code: str) -> bytes:
    return json.dumps({"error_code": code, "message": "the registry's words"}).encode()


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (404, refusal("RESOURCE_DOES_NOT_EXIST"), NotFoundError, "model 'm' is not in the registry http://127.0.0.1"),
        (403, refusal("PERMISSION_DENIED"), InvalidInputError, "refuses model 'm': PERMISSION_DENIED: the registry's"),
        (400, refusal("INVALID_PARAMETER_VALUE"), InvalidInputError, "refuses model 'm'"),
        (404, b"<html>maintenance</html>", UnavailableError, "does not give model 'm'"),
        (403, b"<html>proxy</html>", UnavailableError, "does not give model 'm'"),
        (404, refusal("ENDPOINT_NOT_FOUND"), UnavailableError, "does not give model 'm'"),
        (500, refusal("INTERNAL_ERROR"), UnavailableError, "does not give model 'm'"),
        (503, b"busy", UnavailableError, "does not give model 'm'"),
        (200, b"not json", UnavailableError, "does not give model 'm'"),
    ],
)
def test_only_the_registrys_own_words_are_about_the_model(
    status: int, body: bytes, kind: type[PenstockError], said: str, server: Answering
) -> None:
    server.status, server.body = status, body
    with pytest.raises(PenstockError, match=said) as caught:
        RegistryClient(server.uri).model("m")
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_come_over_http(server: Answering) -> None:
    models = [{"name": "m", "aliases": [{"alias": "champion", "version": "3"}]}, {"name": "n"}]
    server.body = json.dumps({"registered_models": models}).encode()
    found = RegistryClient(server.uri).models()
    assert {model.name: model.aliases for model in found} == {"m": {"champion": "3"}, "n": {}}


def test_a_list_without_an_end_is_given_up(server: Answering) -> None:
    server.body = json.dumps({"registered_models": [], "next_page_token": "again"}).encode()
    with pytest.raises(UnavailableError, match="the list has no end"):
        RegistryClient(server.uri).models()


@pytest.mark.long
def test_what_is_registered_is_read(publisher: Any) -> None:
    publisher.publish("a", "champion")
    publisher.publish("a")
    client = RegistryClient(publisher.uri)
    (model,) = client.models()
    assert (model.name, model.aliases, model.newest) == ("a", {"champion": "1"}, "2")
    assert model.versions["2"] == client.version("a", "2")
    assert client.model("a") == model
    assert client.artifact_uri("a", "1").startswith("file:")
    uri = client.artifact_uri("a", "1")
    assert client.underlying_uri(uri) == uri


@pytest.mark.long
@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://user:secret@127.0.0.1:9", "Connection refused"),
        ("nonsense://user:secret@x", "unsupported URI"),
        ("sqlite:////proc/nowhere/registry.db", "registry sqlite:////proc/nowhere/registry.db does not"),
    ],
)
def test_a_registry_that_is_away_is_told_in_one_sentence(uri: str, said: str) -> None:
    with pytest.raises(PenstockError, match=said) as caught:
        RegistryClient(uri).models()
    assert "secret" not in str(caught.value)


def test_mlflow_is_imported_only_when_a_registry_is_asked() -> None:
    code = "import sys, penstock_server.sources.mlflow_source; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_users_own_limits_are_kept_and_chatter_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    with pytest.raises(UnavailableError):
        RegistryClient("http://127.0.0.1:9").models()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert not logging.getLogger("alembic.runtime.migration").isEnabledFor(logging.INFO)
