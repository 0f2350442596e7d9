"""A server that follows a real MLflow registry: promotions, canaries, shadows, damage, and a registry that is away."""

import shutil
import sqlite3
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock_client import Client, PenstockClientError
from tests.server.sources.fake_registry import FakeRegistry, fake_registry

Server = Any  # the process that conftest starts
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)


class Traffic:
    """Callers that go on until they are stopped; every failure is kept."""

    def __init__(self, address: str, model: str, threads: int = 4) -> None:
        self.versions: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._address = address
        self._model = model
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def _call(self) -> None:
        with Client(self._address, retries=0) as client:
            while not self._is_over.wait(0.002):  # hundreds of calls in a second, and time for others
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
    """The statuses that a load balancer gets meanwhile, as it watches the server's health."""
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


@pytest.fixture(scope="module")
def following(start_shared: Any, shared_registry: Any, flag_model: bytes) -> Server:
    """A server that follows a registry of several models, of which one was damaged before it started.

    Each test has a model of its own: a server of a registry takes many seconds to start.
    """
    for model in ("promoted", "compared", "damaged", "broken", "renewed"):
        version = shared_registry.publish(model, flag_model, alias="champion")
    _stored_model(shared_registry, "broken", version).write_bytes(b"this is no ONNX")
    config = _quick_polls(shared_registry)
    config.write_text(f'{config.read_text()}[policy.models.kept]\nchampion = "production"\nlatest = 2\n')
    server: Server = start_shared("--registry", shared_registry.uri, "--config", str(config))
    return server.wait_ready()


def versions(server: Server, model: str) -> list[str]:
    return [row["version"] for row in server.models() if row["name"] == model]


def test_promotions_under_load_lose_no_request(
    following: Server, shared_registry: Any, opposite_model: bytes, until: Any
) -> None:
    server, registry, first = following, shared_registry, "1"
    second = registry.publish("promoted", opposite_model)
    with Traffic(server.grpc, "promoted") as traffic, watching(server.grpc) as statuses:
        for version in (second, first, second):
            registry.promote("promoted", version)
            until(lambda version=version: answering(server.grpc, "promoted") == version, f"version {version} answers")
    assert traffic.failures == []
    assert set(traffic.versions) == {first, second}
    assert statuses == [health_pb2.HealthCheckResponse.SERVING]  # a load balancer never heard anything else
    # What nobody needs is unloaded, and its series are gone with it.
    until(lambda: versions(server, "promoted") == [second], "the old version is unloaded")
    counted = [dict(labels) for labels in server.samples("model_predictions_total")]
    assert {labels["model_version"] for labels in counted if labels["model_name"] == "promoted"} == {second}


def test_a_name_that_is_registered_anew_between_two_polls_is_another_model(
    following: Server, shared_registry: Any, opposite_model: bytes, until: Any, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    database = Path(shared_registry.uri.removeprefix("sqlite:///"))
    aside = database.with_suffix(".aside")
    shutil.copy(database, aside)
    other = type(shared_registry)(f"sqlite:///{aside}", tmp_path)
    MlflowClient(other.uri, other.uri).delete_registered_model("renewed")
    assert other.publish("renewed", opposite_model, alias="champion") == "1"
    with Traffic(following.grpc, "renewed") as traffic, Client(following.grpc) as client:
        assert client.predict("renewed", ROWS)["label"].tolist() == [1, 0, 1]
        with closing(sqlite3.connect(aside)) as new, closing(sqlite3.connect(database)) as present:
            new.backup(present)  # in one transaction, so no poll sees a registry without the name
        until(lambda: client.predict("renewed", ROWS)["label"].tolist() == [0, 1, 0], "the new model answers")
    assert traffic.failures == []
    assert [(row["state"], row["reason"]) for row in following.models() if row["name"] == "renewed"] == [("READY", "")]


def test_canary_and_shadow_play_their_parts(
    following: Server, shared_registry: Any, opposite_model: bytes, until: Any
) -> None:
    server, registry, champion = following, shared_registry, "1"
    other = registry.publish("compared", opposite_model, alias="canary", weight=30)
    registry.promote("compared", other, alias="shadow")
    shared = {"champion": champion, "canary": other, "shadow": other}
    until(lambda: roles(server, "compared") == shared, "canary and shadow are served")
    with Client(server.grpc) as client:
        by_key = {f"key-{n}": client.predict("compared", ROWS, routing_key=f"key-{n}") for n in range(400)}
        canaries = {key for key, answer in by_key.items() if answer.role == "canary"}
        assert 80 < len(canaries) < 160  # 30 % of 400, five standard deviations
        assert all(
            answer["label"].tolist() == ([0, 1, 0] if key in canaries else [1, 0, 1]) for key, answer in by_key.items()
        )
        assert client.predict("compared", ROWS, version="@shadow").version == other
        registry.promote("compared", other, alias="canary", weight=60)
        until(
            lambda: 60 in [row["weight"] for row in server.models() if row["name"] == "compared"], "the weight changes"
        )
        for key in canaries:
            assert client.predict("compared", ROWS, routing_key=key).role == "canary"
    compared = 3 * (400 - len(canaries))
    until(
        lambda: (
            server.total("penstock_shadow_comparisons_total", model_name="compared", model_version=other) >= compared
        ),
        "every row is compared",
    )
    assert server.total("penstock_shadow_comparisons_total", model_name="compared", result="disagree") == compared
    assert server.total("penstock_shadow_agreement_ratio", model_name="compared") == 0
    assert server.total("penstock_shadow_dropped_total", model_name="compared") == 0
    registry.forget("compared", "canary")
    registry.forget("compared", "shadow")
    until(lambda: roles(server, "compared") == {"champion": champion}, "canary and shadow go")


def test_a_policy_names_the_alias_and_keeps_versions_without_a_role(
    following: Server, shared_registry: Any, flag_model: bytes, opposite_model: bytes, until: Any
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(shared_registry.uri, shared_registry.uri)
    first = shared_registry.publish("kept", flag_model, alias="champion")  # which gives no role here
    second, third = (shared_registry.publish("kept", opposite_model) for _ in range(2))
    client.set_registered_model_alias("kept", "production", second)
    until(lambda: roles(following, "kept") == {"champion": second}, "the policy's alias is followed")
    until(
        lambda: [row["state"] for row in following.models() if row["name"] == "kept"] == ["READY"] * 2, "both are ready"
    )
    with Client(following.grpc) as caller:
        assert caller.predict("kept", ROWS).version == second
        assert caller.predict("kept", ROWS, version=third).version == third
        assert caller.predict("kept", ROWS, version="@champion").version == second
        with pytest.raises(PenstockClientError, match=f"'{first}'|version {first}"):
            caller.predict("kept", ROWS, version=first)


def test_one_model_that_cannot_be_loaded_leaves_the_server_ready(following: Server) -> None:
    with Client(following.grpc) as client:
        assert client.is_ready()
        assert client.is_ready("damaged")
        assert not client.is_ready("broken")
        with pytest.raises(PenstockClientError, match=r"model 'broken' has no version ready \(version 1: "):
            client.predict("broken", ROWS)
    assert "ready" in following.get("/readyz")


def test_a_damaged_version_leaves_the_old_one_serving(
    following: Server, shared_registry: Any, opposite_model: bytes, until: Any
) -> None:
    server, registry, first = following, shared_registry, "1"
    second = registry.publish("damaged", opposite_model)
    artifact = _stored_model(registry, "damaged", second)
    artifact.write_bytes(artifact.read_bytes()[:-20])
    registry.promote("damaged", second)
    failed = until(
        lambda: [row for row in server.models() if row["name"] == "damaged" and row["state"] == "UNAVAILABLE"],
        "the damaged version is refused",
    )
    assert failed[0]["version"] == second
    assert "model.onnx" in failed[0]["reason"]
    assert answering(server.grpc, "damaged") == first
    until(lambda: "model.onnx" in _tags(registry, "damaged", second).get("penstock.refused", ""), "it is tagged")
    third = registry.publish("damaged", opposite_model, alias="champion")
    until(lambda: answering(server.grpc, "damaged") == third, "a sound version takes over")


@pytest.mark.slow
def test_a_registry_that_goes_away_and_comes_back(
    start: Any, registry: Any, registry_server: Any, flag_model: bytes, opposite_model: bytes, until: Any
) -> None:
    first = registry.publish("flag", flag_model, alias="champion")
    second = registry.publish("flag", opposite_model)
    arguments = ("--registry", registry_server.uri, "--config", str(_quick_polls(registry)))
    server = start(*arguments).wait_ready()
    until(lambda: roles(server, "flag") == {"champion": first}, "the registry is followed")
    registry_server.close()
    until(lambda: server.total("penstock_source_up") == 0, "it is noticed")
    assert answering(server.grpc, "flag") == first
    # Also across a restart: from the last known state and the local copies.
    assert server.stop() == 0
    server = start(*arguments).wait_ready()
    assert answering(server.grpc, "flag") == first
    registry.promote("flag", second)
    registry_server.open()
    until(lambda: answering(server.grpc, "flag") == second, "it follows again", timeout_s=60)


def test_a_registry_that_is_away_at_the_first_start(start: Any, until: Any, tmp_path: Path) -> None:
    config = tmp_path / "quick.toml"
    config.write_text("poll_interval_s = 0.2\n")
    server = start("--registry", "http://127.0.0.1:9", "--config", str(config)).wait_http()
    until(lambda: '"state":"away"' in server.get("/v1/models"), "the registry is shown as away")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        server.get("/readyz")  # nothing can be answered


@pytest.fixture
def odd_registry(flag_model: bytes) -> Iterator[FakeRegistry]:
    """A registry of one model, with its artifacts, that can hang and drip."""
    with fake_registry() as fake:
        fake.register("flag", "1", source="mlflow-artifacts:/1/model", champion="1")
        fake.files = {"1/model/MLmodel": b"flavors: {onnx: {}}", "1/model/model.onnx": flag_model}
        yield fake


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "drips"])
def test_a_registry_that_never_ends_an_answer_holds_up_nothing(
    start: Any,
    odd_registry: FakeRegistry,
    how: str,
    until: Any,
    put_version: Any,
    opposite_model: bytes,
    tmp_path: Path,
) -> None:
    repository = tmp_path / "models"
    put_version(repository, "other", "1", opposite_model)
    config = tmp_path / "quick.toml"
    config.write_text("poll_interval_s = 0.1\n")
    server = start(
        "--registry", odd_registry.uri, "--model-repository", str(repository), "--config", str(config)
    ).wait_ready()
    until(lambda: answering(server.grpc, "flag") == "1", "the registry's model answers")

    def drip() -> Iterator[bytes]:
        while not odd_registry.is_over.wait(0.5):
            yield b" "

    if how == "hangs":
        odd_registry.hangs = True
        assert odd_registry.hung.acquire(timeout=30)
    else:
        calls = len(odd_registry.calls)
        odd_registry.answers["/api/2.0/mlflow/registered-models/search"] = lambda _: drip()
        until(lambda: len(odd_registry.calls) > calls, "the registry is asked")
    put_version(repository, "other", "2", opposite_model)
    until(lambda: answering(server.grpc, "other") == "2", "the other source is followed")
    assert answering(server.grpc, "flag") == "1"
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 5.0


@pytest.mark.slow
def test_the_first_poll_holds_up_no_stop(start: Any, odd_registry: FakeRegistry) -> None:
    odd_registry.hangs = True
    server = start("--registry", odd_registry.uri)
    assert odd_registry.hung.acquire(timeout=30)
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 5.0


def _quick_polls(registry: Any) -> Path:
    config = Path(registry.uri.removeprefix("sqlite:///")).with_suffix(".toml")
    config.write_text("poll_interval_s = 0.1\n")
    return config


def _tags(registry: Any, name: str, version: str) -> dict[str, str]:
    from mlflow import MlflowClient

    return dict(MlflowClient(registry.uri, registry.uri).get_model_version(name, version).tags)


def _stored_model(registry: Any, name: str, version: str) -> Path:
    from mlflow import MlflowClient

    source = MlflowClient(registry.uri, registry.uri).get_model_version(name, version).source
    return Path(source.removeprefix("file://")) / "model.onnx"
