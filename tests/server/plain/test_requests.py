"""What is known of forms: kept for models that are routed as before, and forgotten with a model or a lane."""

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock_server.kernels import compiled
from penstock_server.plain import layout
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.plain.lane import Form
from penstock_server.plain.requests import Canaries, PlainRequests, RawColumn, Target
from tests.examples import examples
from tests.server.plain.test_scan import _Nobody as Nobody

COLUMNS = [RawColumn(layout.ROWS, 0, 0, 8)]


class FakeEncoder:
    """No reply is written."""


FORM = Form(None, FakeEncoder())  # type: ignore[arg-type]


def message(model: str) -> bytes:
    request = pb.ModelInferRequest(model_name=model, inputs=[{"name": "x", "datatype": "FP64", "shape": [1, 1]}])
    request.raw_input_contents.append(np.ones(1).tobytes())
    encoded: bytes = request.SerializeToString()
    return encoded


def new() -> PlainRequests:
    return PlainRequests(compiled.library(KERNELS), 0, Nobody())


def colliding() -> list[str]:
    """Models whose forms are in the same few buckets, by threes or more where there are such."""
    requests, bucket_of = new(), {}
    for number in range(1500):
        assert requests.is_new(message(f"m{number}"))
        bucket_of[f"m{number}"] = requests._found[layout.F_HASH // 8] & layout.BUCKETS - 1
    shared = Counter(bucket_of.values()).most_common(3)
    return [model for model, bucket in bucket_of.items() if bucket in dict(shared)]


MODELS = colliding()
STEPS = st.one_of(
    st.tuples(st.just("learn"), st.sampled_from(MODELS), st.integers(0, 2), st.none() | st.integers(0, 2)),
    st.tuples(st.just("forget"), st.sets(st.sampled_from(MODELS), max_size=4)),
    st.tuples(st.just("reopen"), st.integers(0, 2)),
)


@examples(300)
@given(steps=st.lists(STEPS, max_size=30))
def test_a_form_is_known_until_its_model_or_a_lane_of_it_is_forgotten(steps: list[Any]) -> None:
    requests, known = new(), dict[str, set[int]]()
    lanes: list[Any] = [requests.open_lane([8], lambda: None) for _ in range(3)]
    for step in steps:
        match step:
            case "learn", model, first, second:
                canaries = None
                if second is not None:
                    canary = Target(COLUMNS, lanes[second], FORM)
                    canaries = Canaries([canary], [(1 << 52, 0), (1 << 53, 1)], bytes(16))
                requests.learn(message(model), COLUMNS, lanes[first], FORM, canaries, model=model)
                known.setdefault(model, {first} if second is None else {first, second})
            case "forget", models:
                requests.forget(models)
                known = {model: used for model, used in known.items() if model not in models}
            case "reopen", at:
                requests.close_lane(lanes[at])
                lanes[at] = requests.open_lane([8], lambda: None)
                known = {model: used for model, used in known.items() if at not in used}
        assert {model for model in MODELS if not requests.is_new(message(model))} == known.keys()
        for model, used in known.items():
            plan = requests._plans[requests.plan_of(message(model))]
            assert plan[layout.P_LANE // 8] in {lanes[at].number for at in used}


def test_numbers_are_given_anew_when_there_are_no_more() -> None:
    requests = new()
    lane = requests.open_lane([8], lambda: None)
    requests.learn(message("kept"), COLUMNS, lane, FORM, model="kept")
    for number in range(layout.MAX_PLANS - 1):
        requests.learn(message("m"), COLUMNS, lane, FORM, model="m")
        assert requests.plan_of(message("m")) == number + 1
        requests.forget({"m"})
        assert requests.plan_of(message("kept")) == 0
    requests.learn(message("m"), COLUMNS, lane, FORM, model="m")
    assert (requests.plan_of(message("m")), requests.is_new(message("kept"))) == (0, True)


def test_none_is_learnt_while_numbers_are_in_use() -> None:
    requests = new()
    lane = requests.open_lane([8], lambda: None)
    for _ in range(layout.MAX_PLANS):
        requests.learn(message("m"), COLUMNS, lane, FORM, model="m")
        requests.learn(message("n"), COLUMNS, lane, FORM, model="n")
        requests.forget({"n"})
        if requests._plan_count == layout.MAX_PLANS:
            break
    requests._state[layout.T_FREE_COUNT // 8] -= 1  # a request waits
    requests.learn(message("n"), COLUMNS, lane, FORM, model="n")
    assert requests.is_new(message("n"))
    requests._state[layout.T_FREE_COUNT // 8] += 1
    requests.learn(message("n"), COLUMNS, lane, FORM, model="n")
    assert requests.plan_of(message("n")) == 0
