"""MLflow's webhooks: registered by `penstock webhook`, sent by MLflow, and woken by them a server that hardly polls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bench.servers.mlflow_server import WEBHOOKS, mlflow_server
from tests.integration.test_registry import answering

SECRET = "a secret of the tests"
SETTINGS = 'poll_interval_s = 1000\n[webhook]\nsecret_file = "{file}"\n'

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    return file


def drill(
    start: Any, published: Any, uri: str, penstock: Command, secret_file: Path, flags: tuple[bytes, bytes], until: Any
) -> None:
    """Adds a webhook, tries it, promotes by it, and removes it."""
    first = published.publish("woken", flags[0], alias="champion")
    second = published.publish("woken", flags[1])
    config = secret_file.with_name("penstock.toml")
    config.write_text(SETTINGS.format(file=secret_file))
    server = start("--registry", uri, "--config", str(config)).wait_ready()
    assert answering(server.grpc, "woken") == first
    place = f"http://{server.http}"
    code, out, err = penstock("webhook", "add", place, "--secret-file", secret_file, "--registry", uri)
    assert code == 0, err
    assert all(f"{name}={value}" in out for name, value in WEBHOOKS.items())
    code, out, _ = penstock("webhook", "list", "--registry", uri)
    assert (code, f"{place}/v1/webhook" in out, out.count("\n")) == (0, True, 1)
    # An example names a model that is not there: it is taken, and changes nothing.
    code, out, _ = penstock("webhook", "test", place, "--registry", uri)
    assert (code, "answered 200" in out) == (0, True)
    assert server.total("penstock_webhooks_total", result="accepted") == 1
    # Through MLflow: of what is written to its database it tells nothing.
    MlflowClient(uri, uri).set_registered_model_alias("woken", "champion", second)
    until(lambda: answering(server.grpc, "woken") == second, "the webhook wakes the poll")
    refused = secret_file.with_name("other")
    refused.write_text(f"{SECRET}, but another")
    assert penstock("webhook", "add", place, "--secret-file", refused, "--registry", uri)[0] == 0
    code, _, err = penstock("webhook", "test", place, "--registry", uri)
    assert (code, "the signature is not that of this secret" in err) == (1, True)
    assert server.total("penstock_webhooks_total", result="refused") == 1
    assert penstock("webhook", "remove", place, "--registry", uri)[0] == 0
    assert penstock("webhook", "list", "--registry", uri)[1] == "the registry has no webhooks\n"
    code, _, err = penstock("webhook", "remove", place, "--registry", uri)
    assert (code, "the registry has no webhook" in err) == (1, True)


@pytest.mark.slow
def test_a_webhook_of_mlflow_wakes_a_server(
    start: Any,
    registry: Any,
    registry_server: Any,
    penstock: Command,
    secret_file: Path,
    flag_model: bytes,
    opposite_model: bytes,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow.webhooks import delivery

    for name, value in {**WEBHOOKS, "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "0" * 43 + "="}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(delivery, "_webhook_cache", None)  # of a registry before
    drill(start, registry, registry_server.uri, penstock, secret_file, (flag_model, opposite_model), until)


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[str]:
    with mlflow_server(tmp_path) as uri:
        yield uri


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_webhook_of_a_real_mlflow_server(
    start: Any,
    registry: Any,
    real_server: str,
    penstock: Command,
    secret_file: Path,
    flag_model: bytes,
    opposite_model: bytes,
    until: Any,
    tmp_path: Path,
) -> None:
    there = type(registry)(real_server, tmp_path)
    drill(start, there, real_server, penstock, secret_file, (flag_model, opposite_model), until)


def test_a_registry_in_a_file_sends_none(registry: Any, penstock: Command) -> None:
    code, _, err = penstock("webhook", "list", "--registry", registry.uri)
    assert (code, "is no MLflow server, and only those send webhooks" in err) == (1, True)
