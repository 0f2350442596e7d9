"""A server that follows a real MLflow registry: promotions, canaries, shadows, damage, and a registry that is away."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock_client import Client, PenstockClientError

Server = Any  # the process that conftest starts
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)


class Traffic:
    """Callers that never stop until told; every failure is kept."""

    def __init__(self, address: str, model: str, threads: int = 4) -> None:
        self.versions: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._address = address
        self._model = model
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def _call(self) -> None:
        with Client(self._address, retries=0) as client:
            while not self._is_over.is_set():
                try:
                    self.versions[client.predict(self._model, ROWS).version or ""] += 1
                except PenstockClientError as error:
                    self.failures.append(error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def watching(address: str) -> Iterator[list[int]]:
    """What a load balancer that watches the server's health is told meanwhile."""
    statuses: list[int] = []
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        statuses.append(next(watch).status)

        def listen() -> None:
            with suppress(grpc.RpcError):
                statuses.extend(reply.status for reply in watch)

        thread = threading.Thread(target=listen)
        thread.start()
        yield statuses
        watch.cancel()
        thread.join()


def roles(server: Server, model: str) -> dict[str, str]:
    return {row["role"]: row["version"] for row in server.models() if row["name"] == model and row["role"]}


def answering(address: str, model: str) -> str | None:
    with Client(address) as client:
        return client.predict(model, ROWS).version


def test_promotions_under_load_lose_no_request(
    start: Any, registry: Any, flag_model: bytes, opposite_model: bytes, until: Any
) -> None:
    first = registry.publish("flag", flag_model, alias="champion")
    second = registry.publish("flag", opposite_model)
    server = start("--registry", registry.uri, "--config", str(_quick_polls(registry))).wait_ready()
    with Traffic(server.grpc, "flag") as traffic, watching(server.grpc) as statuses:
        for version in (second, first, second):
            registry.promote("flag", version)
            until(lambda version=version: answering(server.grpc, "flag") == version, f"version {version} answers")
    assert traffic.failures == []
    assert set(traffic.versions) == {first, second}
    assert statuses == [health_pb2.HealthCheckResponse.SERVING]  # a load balancer never heard anything else
    # What nobody needs is unloaded, and its series are gone with it.
    until(lambda: [row["version"] for row in server.models()] == [second], "the old version is unloaded")
    versions = {dict(labels)["model_version"] for labels in server.samples("model_predictions_total")}
    assert versions == {second}


def test_canary_and_shadow_play_their_parts(
    start: Any, registry: Any, flag_model: bytes, opposite_model: bytes, until: Any
) -> None:
    champion = registry.publish("flag", flag_model, alias="champion")
    other = registry.publish("flag", opposite_model, alias="canary", weight=30)
    registry.promote("flag", other, alias="shadow")
    server = start("--registry", registry.uri, "--config", str(_quick_polls(registry))).wait_ready()
    assert roles(server, "flag") == {"champion": champion, "canary": other, "shadow": other}
    with Client(server.grpc) as client:
        by_key = {f"key-{n}": client.predict("flag", ROWS, routing_key=f"key-{n}") for n in range(400)}
        canaries = {key for key, answer in by_key.items() if answer.role == "canary"}
        assert 80 < len(canaries) < 160  # 30 % of 400, five standard deviations
        assert all(
            answer["label"].tolist() == ([0, 1, 0] if key in canaries else [1, 0, 1]) for key, answer in by_key.items()
        )
        assert client.predict("flag", ROWS, version="@shadow").version == other
        registry.promote("flag", other, alias="canary", weight=60)
        until(lambda: any(row["weight"] == 60 for row in server.models()), "the weight changes")
        for key in canaries:
            assert client.predict("flag", ROWS, routing_key=key).role == "canary"
    compared = 3 * (400 - len(canaries))
    until(
        lambda: server.total("penstock_shadow_comparisons_total", model_version=other) >= compared,
        "every row is compared",
    )
    assert server.total("penstock_shadow_comparisons_total", result="disagree") == compared
    assert server.total("penstock_shadow_agreement_ratio") == 0
    assert server.total("penstock_shadow_dropped_total") == 0
    registry.forget("flag", "canary")
    registry.forget("flag", "shadow")
    until(lambda: roles(server, "flag") == {"champion": champion}, "canary and shadow go")


def test_one_model_that_cannot_be_loaded_leaves_the_server_ready(
    start: Any, registry: Any, flag_model: bytes, until: Any
) -> None:
    registry.publish("flag", flag_model, alias="champion")
    broken = registry.publish("broken", flag_model, alias="champion")
    artifact = _stored_model(registry, "broken", broken)
    artifact.write_bytes(b"this is no ONNX")
    server = start("--registry", registry.uri, "--config", str(_quick_polls(registry))).wait_ready()
    with Client(server.grpc) as client:
        assert client.is_ready()
        assert client.is_ready("flag")
        assert not client.is_ready("broken")
        with pytest.raises(PenstockClientError, match=r"model 'broken' has no version ready \(version 1: "):
            client.predict("broken", ROWS)
    assert "ready" in server.get("/readyz")


def test_a_damaged_version_leaves_the_old_one_serving(
    start: Any, registry: Any, flag_model: bytes, opposite_model: bytes, until: Any
) -> None:
    first = registry.publish("flag", flag_model, alias="champion")
    server = start("--registry", registry.uri, "--config", str(_quick_polls(registry))).wait_ready()
    second = registry.publish("flag", opposite_model)
    artifact = _stored_model(registry, "flag", second)
    artifact.write_bytes(artifact.read_bytes()[:-20])
    registry.promote("flag", second)
    failed = until(
        lambda: [row for row in server.models() if row["version"] == second and row["state"] == "UNAVAILABLE"],
        "the damaged version is refused",
    )
    assert "model.onnx" in failed[0]["reason"]
    assert answering(server.grpc, "flag") == first
    third = registry.publish("flag", opposite_model, alias="champion")
    until(lambda: answering(server.grpc, "flag") == third, "a sound version takes over")


@pytest.mark.slow
@pytest.mark.timeout(300)  # MLflow's server alone takes half a minute to start on a busy machine
def test_a_registry_that_goes_away_and_comes_back(
    start: Any, registry: Any, serve_registry: Any, flag_model: bytes, opposite_model: bytes, until: Any
) -> None:
    first = registry.publish("flag", flag_model, alias="champion")
    second = registry.publish("flag", opposite_model)
    tracking = serve_registry()
    arguments = ("--registry", tracking.uri, "--config", str(_quick_polls(registry)))
    server = start(*arguments).wait_ready()
    until(lambda: roles(server, "flag") == {"champion": first}, "the registry is followed")
    tracking.shut()
    until(lambda: server.total("penstock_source_up") == 0, "it is noticed")
    assert answering(server.grpc, "flag") == first
    # Also across a restart: from the last known state and the local copies.
    assert server.stop() == 0
    server = start(*arguments).wait_ready()
    assert answering(server.grpc, "flag") == first
    registry.promote("flag", second)
    tracking.open()
    until(lambda: answering(server.grpc, "flag") == second, "it follows again", timeout_s=60)


def test_a_registry_that_is_away_at_the_first_start(start: Any, until: Any, tmp_path: Path) -> None:
    config = tmp_path / "quick.toml"
    config.write_text("poll_interval_s = 0.2\n")
    server = start("--registry", "http://127.0.0.1:9", "--config", str(config)).wait_ready()
    with Client(server.grpc) as client:
        assert client.is_live()
        assert client.index() == ()
        with pytest.raises(PenstockClientError, match="is not served"):
            client.predict("flag", ROWS)
    until(lambda: '"state":"away"' in server.get("/v1/models"), "the registry is shown as away")


def _quick_polls(registry: Any) -> Path:
    config = Path(registry.uri.removeprefix("sqlite:///")).with_suffix(".toml")
    config.write_text("poll_interval_s = 0.1\n")
    return config


def _stored_model(registry: Any, name: str, version: str) -> Path:
    from mlflow import MlflowClient

    source = MlflowClient(registry.uri, registry.uri).get_model_version(name, version).source
    return Path(source.removeprefix("file://")) / "model.onnx"
