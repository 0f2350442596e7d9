"""Versions that run a whole pipeline in Python, beside others: answers, refusals, roles, and what their faults cost."""

import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from bench.faults import misbehaving
from penstock_client import Client, PenstockClientError
from penstock_server.labels.keys import key_of
from penstock_server.labels.prediction_file import KEY, KIND, PREDICTION
from penstock_server.labels.ring import Ring, rings_in
from penstock_tools.publish.pipeline import publish_pipeline
from tests.integration.conftest import starting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(600),
]  # they publish and serve pipelines of Python

ROWS = misbehaving.sample()


@pytest.fixture(scope="module")
def registry(tmp_path_factory, empty_registry):
    """One model of two versions: the champion runs in Python, the shadow is compiled."""
    folder = tmp_path_factory.mktemp("python")
    uri = f"sqlite:///{shutil.copy(empty_registry, folder / 'registry.db')}"
    silent = {"registry": uri, "report": lambda _: None}
    fitted = misbehaving.fitted()
    publish_pipeline("odd", fitted, ROWS, alias="champion", allow_python=True, **silent)
    publish_pipeline("odd", fitted[1].fit(ROWS, ROWS["x"] + ROWS["z"]), ROWS, alias="shadow", **silent)
    publish_pipeline("plain", fitted[1], ROWS, alias="champion", **silent)
    return uri


@pytest.fixture(scope="module")
def environment_with_training_stack(environment):
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def server(registry, environment_with_training_stack, logs, tmp_path_factory, labels):
    config = tmp_path_factory.mktemp("config") / "penstock.toml"
    config.write_text(
        "[python]\nallow = true\nmemory_mib = 1024\nrun_limit_s = 2\nstart_limit_s = 300\n"
        f"[labels]\nenabled = true\nfolder = {str(labels)!r}\n"
    )
    with starting(environment_with_training_stack, logs) as start:
        yield start("--registry", registry, "--config", str(config)).wait_ready()


def test_it_answers_as_the_pipeline_does_and_its_shadow_agrees(server, until):
    with Client(server.grpc) as client:
        answer = client.predict("odd", ROWS)
        np.testing.assert_allclose(answer["prediction"].ravel(), ROWS["x"] + ROWS["z"], rtol=1e-9)
        assert answer.version == "1"
        assert [(spec.name, spec.datatype) for spec in client.metadata("odd").inputs] == [("x", "FP64"), ("z", "FP64")]
        with pytest.raises(
            PenstockClientError, match="the pipeline refuses these rows: ValueError: Input X contains NaN"
        ):
            client.predict("odd", ROWS.head(2).assign(z=np.nan))

        def is_compared():
            client.predict("odd", ROWS)  # the shadow may load after the server is ready
            return server.total("penstock_shadow_comparisons_total", model_name="odd", result="agree") > 0

        until(is_compared, "the shadow was compared", timeout_s=120)


def test_its_answers_are_recorded_for_labels(server, labels, until):
    with Client(server.grpc) as client:
        client.predict("odd", ROWS.head(2), request_id="recorded", version="1")

    def found():
        rings = [Ring(path) for path in rings_in(labels, KIND)]
        records = np.concatenate([ring.read(0, ring.written) for ring in rings])
        return records[records[:, KEY].view(np.uint64) == key_of("odd", b"recorded")]

    until(lambda: len(found()) == 2, "both rows are recorded")
    sums = (ROWS["x"] + ROWS["z"]).to_numpy()[:2]
    np.testing.assert_allclose(found().view(np.float64)[:, PREDICTION], sums, rtol=1e-9)


@pytest.mark.parametrize("mark", [misbehaving.CRASH, misbehaving.LOOP, misbehaving.EAT])
def test_a_fault_costs_its_own_rows_alone(server, mark):
    answered, failures = [], []
    stop = threading.Event()

    def ask():
        with Client(server.grpc, timeout_s=60) as client:
            while not stop.is_set():
                try:
                    answered.append(client.predict("plain", ROWS.head(1))["prediction"])
                except PenstockClientError as error:
                    failures.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with Client(server.grpc, timeout_s=300) as client:
            with pytest.raises(PenstockClientError, match="pipeline"):
                client.predict("odd", pd.DataFrame({"x": [mark], "z": [1.0]}))
            answer = client.predict("odd", ROWS.head(3))
            np.testing.assert_allclose(answer["prediction"].ravel(), ROWS["x"][:3] + ROWS["z"][:3], rtol=1e-9)
        # Too much memory ends no process.
        ends = server.total("penstock_python_process_ends_total", model_name="odd")
        assert ends >= (mark != misbehaving.EAT)
    finally:
        stop.set()
        asking.join()
    assert (failures, bool(answered)) == ([], True)
    assert sum(worker["restarts"] for worker in server.workers()) == 0


def test_without_the_setting_it_is_refused_with_what_to_set(registry, environment, logs):
    with starting(environment, logs) as start:
        server = start("--registry", registry).wait_ready()
        (row,) = [row for row in server.models() if (row["name"], row["version"]) == ("odd", "1")]
    assert row["state"] == "UNAVAILABLE"
    assert "set allow = true under [python], or serve with --allow-python" in row["reason"]
