"""What a version of a stream counts, and until when: a scrape sees each version that answers, however often it was loaded."""

import pytest
from onnx import TensorProto, helper
from prometheus_client import generate_latest

from penstock_server.drift.report import DriftRules
from penstock_server.metrics.store import CounterStore
from penstock_server.models import artifact
from penstock_server.rollout.plan import Arm, TrafficPlan
from penstock_tools.stream.answering import Part
from penstock_tools.stream.follower import Serving
from penstock_tools.stream.json_rows import JsonRows
from penstock_tools.stream.status import Status
from penstock_tools.stream.version import VersionLoader

KEY = ("minus", "1")
ALONE = TrafficPlan("1")


@pytest.fixture
def files(tmp_path):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "minus", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return artifact.read(tmp_path)


@pytest.fixture
def counters():
    with CounterStore() as store:
        yield store


def requests_of(counters, plan=ALONE, loaded=()):
    """What a scrape says of the versions that answer."""
    serving = Serving(plan, {version.key[1]: version for version in loaded})
    text = generate_latest(Status(counters, lambda: serving, DriftRules()).registry()).decode()
    found = [line for line in text.splitlines() if line.startswith("penstock_requests_total{")]
    return {line.split('model_version="')[1][0]: float(line.split()[-1]) for line in found}


def answer(version, messages):
    values = [b'{"x": 1}'] * messages
    scored = version.score(version.codec.read(values).batch)
    part = Part(version.key[1], values, messages, {}, scored)
    version.count(part, began_s=0.0, ended_s=0.001, now_s=10.0)


def test_a_version_that_is_loaded_again_before_it_was_closed_is_counted_on(files, counters):
    load = VersionLoader(JsonRows, counters)
    first = load(KEY, files, "same files")
    answer(first, 3)
    second = load(KEY, files, "same files")
    first.close()
    answer(second, 2)
    assert requests_of(counters, loaded=[second]) == {"1": 5.0}
    second.close()
    assert counters.of_version(KEY) == []


def test_new_files_of_a_version_are_counted_anew(files, counters):
    load = VersionLoader(JsonRows, counters)
    first = load(KEY, files, "old files")
    answer(first, 3)
    second = load(KEY, files, "new files")
    first.close()
    answer(second, 2)
    assert requests_of(counters, loaded=[second]) == {"1": 2.0}


def test_a_scrape_leaves_out_a_version_that_was_closed_meanwhile(files, counters):
    load = VersionLoader(JsonRows, counters)
    champion, canary = load(KEY, files, "files"), load(("minus", "2"), files, "files")
    answer(champion, 3)
    canary.close()
    assert requests_of(counters, TrafficPlan("1", (Arm("2", 0.5),)), [champion, canary]) == {"1": 3.0}
