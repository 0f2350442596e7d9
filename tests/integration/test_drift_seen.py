"""What a server says of drift, by every way of asking, and the requests that it logs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from penstock import penstock_pb2 as pb
from penstock_client import Client, ModelNotFoundError
from penstock_server.drift.answer import as_message
from penstock_tools.drift import evidently, fetch

Server = Any  # the process that conftest starts

CITIES = np.array(["Oslo", "Bergen", "Bodø"], object)
SETTINGS = """
[drift]
window_rows = 4000
[request_log]
directory = "{directory}"
sample_ratio = 1.0
rotate_s = 0.2
max_bytes = 10000000
rotate_bytes = 100000
"""


def rows(seed: int, count: int, shift: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {"delay": rng.normal(shift, 1.0, count), "city": rng.choice(CITIES, count), "age": rng.uniform(0, 9, count)}


def put_fares(repository: Path, put_version: Callable[..., Path]) -> None:
    """A version with features and a baseline."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from penstock_server.drift.fit import fit_baseline
    from penstock_server.models import artifact
    from penstock_tools.publish.pipeline import prepare

    table = rows(0, 4000)
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["delay", "age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city"]),
    )
    frame = pd.DataFrame(table)
    prepared = prepare(make_pipeline(columns, LogisticRegression()).fit(frame, table["delay"] > 0), frame)
    folder = put_version(repository, "fares", "1", prepared.graph.model.SerializeToString())
    artifact.write(folder, features=prepared.features, baseline=fit_baseline(prepared.features, table))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, put_version: Any, flag_model: bytes) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    put_fares(folder, put_version)
    put_version(folder, "flag", "3", flag_model)
    return folder


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "requests"


@pytest.fixture(scope="module")
def server(repository: Path, log_folder: Path, start_shared: Any, until: Any) -> Server:
    """Two workers that have answered 2,000 rows, of which the delays are those of another world."""
    settings = repository.parent / "penstock.toml"
    settings.write_text(SETTINGS.format(directory=log_folder))
    arguments = ("--model-repository", str(repository), "--config", str(settings), "--workers", "2")
    running = start_shared(*arguments).wait_ready()
    for seed in range(8):
        # A connection of its own, which goes to one of the workers.
        with Client(running.grpc, timeout_s=30) as client:
            client.predict("fares", rows(seed, 250, shift=1.5), request_id=f"request-{seed}")
            until(lambda: client.drift_state("fares").versions[0].looks > seed, "the monitor looked")  # noqa: B023 - now
    return running


def test_every_worker_answers_for_all(server: Server) -> None:
    answers = []
    for _ in range(12):
        with Client(server.grpc, timeout_s=30) as client:
            answers.append(client.drift_state("fares", "@champion"))
    (version,) = answers[0].versions
    assert (version.rows, version.tested, version.drifted) == (2000, 3, 1)
    columns = {column.name: column for column in version.columns}
    assert [name for name, column in columns.items() if column.drifted] == ["delay"]
    assert columns["delay"].jensen_shannon > 0.3 > 0.1 > columns["city"].jensen_shannon
    assert sum(columns["delay"].current) == pytest.approx(1.0)
    assert all(answer == answers[0] for answer in answers)


def test_http_says_the_same(server: Server) -> None:
    with Client(server.grpc) as client:
        over_grpc = fetch.report_of(client.drift_state("fares"))
    found = fetch.fetch(f"http://{server.http}", "fares")
    assert as_message(found) == as_message(over_grpc)
    everything = json.loads(server.get("/v1/drift"))
    assert [one["model"] for one in everything["versions"]] == ["fares"]
    assert [one["model"] for one in everything["unwatched"]] == ["flag"]
    assert json.loads(server.get("/v1/drift/fares?version=@champion")) == json.loads(server.get("/v1/drift/fares"))


def test_what_is_not_loaded(server: Server) -> None:
    with Client(server.grpc) as client, pytest.raises(ModelNotFoundError, match="no version '9' of model 'fares'"):
        client.drift_state("fares", "9")
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/penstock.v1.Penstock/DriftState")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff", timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_reflection_describes_it(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        known = ProtoReflectionDescriptorDatabase(channel)
        assert "penstock.v1.Penstock" in known.get_services()
        file = known.FindFileContainingSymbol("penstock.v1.Penstock")
    assert file.SerializeToString() == pb.DESCRIPTOR.serialized_pb


@pytest.mark.parametrize("address", ["grpc", "http"])
def test_the_command_shows_it(server: Server, penstock: Any, address: str) -> None:
    where = server.grpc if address == "grpc" else f"http://{server.http}"
    code, output, error = penstock("drift", "fares", "--server", where, "--fail-on-drift")
    assert (code, error) == (3, "")
    assert "1 of 3 features drifted" in output
    assert "alarm: " in output
    assert "delay drifts since 20" in output


def test_requests_are_logged(server: Server, log_folder: Path, until: Any) -> None:
    def logged() -> bool:
        return sum(path.suffix == ".parquet" for path in log_folder.rglob("*")) > 0 and len(frame()) == 2000

    def frame() -> Any:
        return evidently.read_log(log_folder, "fares", "@champion")

    until(logged, "the log is written")
    assert server.total("penstock_request_log_rows_total", model_name="fares") == 2000
    assert server.total("penstock_request_log_dropped_total") == 0
    sent = np.sort(np.concatenate([rows(seed, 250, shift=1.5)["delay"] for seed in range(8)]))
    np.testing.assert_array_equal(np.sort(frame()["delay"].to_numpy()), sent)
    assert set(frame()["city"]) == set(CITIES)
    assert frame()["output.label"].mean() == pytest.approx((sent > 0).mean(), abs=0.02)


def test_a_directory_that_cannot_be_written_hurts_no_answer(
    start: Any, repository: Path, tmp_path: Path, until: Any
) -> None:
    log = tmp_path / "log"
    settings = tmp_path / "penstock.toml"
    settings.write_text(SETTINGS.format(directory=log))
    running = start("--model-repository", str(repository), "--config", str(settings)).wait_ready()
    log.rename(tmp_path / "gone")
    log.write_text("")
    with Client(running.grpc, timeout_s=30) as client:
        for seed in range(20):
            assert client.predict("fares", rows(seed, 5)).timing.batch_rows == 5
    until(
        lambda: running.total("penstock_request_log_dropped_total", reason="disk") == 100,
        "the dropped rows are counted",
    )
    assert running.stop() == 0
