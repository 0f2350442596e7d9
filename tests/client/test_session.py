"""The session without a server: scripted outcomes, and a clock that only pauses and calls move."""

import contextlib
import json
from collections import deque

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock_client.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PenstockClientError,
    ServerUnavailableError,
)
from penstock_client.request import RequestOptions
from penstock_client.retry import Backoff, RetryBudget
from penstock_client.session import _MOST_SAID, Session
from penstock_client.steps import Failure, Pause

UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE, "gone")
INVALID = Failure(grpc.StatusCode.INVALID_ARGUMENT, "wrong tensor")
LATE = Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "late")
MISSING = Failure(grpc.StatusCode.NOT_FOUND, "no such model")
FULL = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", pushback_s=0.2)
BROKEN = Failure(grpc.StatusCode.INTERNAL)
ANSWER = pb.ModelInferResponse(model_name="m", model_version="1").SerializeToString()
TRUE = b"\x08\x01"


def declares(**inputs):
    spec = pb.ModelMetadataResponse.TensorMetadata
    specs = [spec(name=name, datatype=datatype, shape=[-1]) for name, datatype in inputs.items()]
    return pb.ModelMetadataResponse(name="m", inputs=specs).SerializeToString()


class Script:
    """Performs a session's steps; each attempt takes `call_s` and ends in the next outcome."""

    def __init__(self, *outcomes, call_s=0.0, **settings):
        self.outcomes = deque(outcomes)
        self.call_s = call_s
        self.now_s = 100.0
        self.calls = []
        self.pauses = []
        backoff = Backoff(initial_s=0.1, cap_s=0.4)
        defaults = {"timeout_s": 1.0, "retries": 3, "backoff": backoff, "budget": None, "max_message_bytes": 1000}
        self.session = Session(
            "s:1",
            clock=lambda: self.now_s,
            fraction=lambda: 1.0,
            **defaults | settings,
        )

    def run(self, steps):
        outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as finished:
                return finished.value
            outcome = self.perform(step)

    def perform(self, step):
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            self.now_s += step.seconds
            return None
        self.calls.append(step)
        self.now_s += self.call_s
        return self.outcomes.popleft()

    def predict(self, rows=None, timeout_s=None, **options):
        return self.run(self.session.predict(RequestOptions(model="m", **options), rows or {"a": [1]}, timeout_s))

    @property
    def methods(self):
        return [call.method for call in self.calls]


def test_metadata_is_fetched_once_for_each_model_and_version():
    script = Script(declares(a="FP32"), ANSWER, ANSWER, declares(a="FP32"), ANSWER)
    script.predict()
    script.predict()
    script.predict(version="2")
    assert script.methods == ["ModelMetadata", "ModelInfer", "ModelInfer", "ModelMetadata", "ModelInfer"]


def test_a_refusal_from_old_metadata_is_tried_again_with_new():
    script = Script(declares(a="FP32"), ANSWER, INVALID, declares(a="INT64"), ANSWER)
    script.predict()
    script.predict()
    assert script.methods[-3:] == ["ModelInfer", "ModelMetadata", "ModelInfer"]
    request = pb.ModelInferRequest.FromString(script.calls[-1].payload)
    assert request.inputs[0].datatype == "INT64"


def test_a_refusal_here_from_old_metadata_is_tried_again_with_new():
    script = Script(declares(a="FP32"), ANSWER, declares(a="FP32", b="FP32"), ANSWER)
    script.predict()
    script.predict({"a": [1], "b": [2]}, extra="refuse")
    assert script.methods[-2:] == ["ModelMetadata", "ModelInfer"]


def test_a_refusal_stands_when_the_metadata_is_the_same():
    script = Script(declares(a="FP32"), ANSWER, INVALID, declares(a="FP32"))
    script.predict()
    with pytest.raises(InvalidRequestError, match="wrong tensor"):
        script.predict()
    assert script.methods[-1] == "ModelMetadata"


def test_a_refusal_from_fresh_metadata_stands_at_once():
    script = Script(declares(a="FP32"), INVALID)
    with pytest.raises(InvalidRequestError, match=r"wrong tensor \(model 'm' at s:1\)"):
        script.predict()
    assert script.methods == ["ModelMetadata", "ModelInfer"]


def test_a_second_refusal_stands():
    script = Script(declares(a="FP32"), ANSWER, INVALID, declares(a="INT64"), INVALID)
    script.predict()
    with pytest.raises(InvalidRequestError):
        script.predict()
    assert len(script.calls) == 5


def test_an_absent_server_is_tried_again_with_growing_pauses():
    script = Script(UNAVAILABLE, UNAVAILABLE, declares(a="FP32"), UNAVAILABLE, ANSWER, timeout_s=10.0)
    assert script.predict().version == "1"
    assert script.pauses == pytest.approx([0.1, 0.2, 0.1])


def test_the_retries_end():
    script = Script(*[UNAVAILABLE] * 4, timeout_s=10.0)
    with pytest.raises(ServerUnavailableError, match=r"gone \(model 'm' at s:1\)"):
        script.predict()
    assert len(script.calls) == 4


@pytest.mark.parametrize(
    ("failure", "meaning", "code"),
    [
        (LATE, DeadlineExceededError, grpc.StatusCode.DEADLINE_EXCEEDED),
        (MISSING, ModelNotFoundError, grpc.StatusCode.NOT_FOUND),
        (BROKEN, PenstockClientError, grpc.StatusCode.INTERNAL),
        (Failure(FULL.code, "full"), OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_other_failures_are_final(failure, meaning, code):
    script = Script(failure)
    with pytest.raises(meaning) as failed:
        script.predict()
    assert failed.value.code is code
    assert failed.value.details == (failure.details or "the call failed with INTERNAL")
    assert script.pauses == []


def test_overload_with_a_time_is_tried_again_then():
    script = Script(declares(a="FP32"), FULL, ANSWER)
    script.predict()
    assert script.pauses == [0.2]


def test_the_deadline_covers_all_attempts():
    script = Script(declares(a="FP32"), UNAVAILABLE, ANSWER, call_s=0.3)
    script.predict(timeout_s=2.0)
    assert [call.timeout_s for call in script.calls] == pytest.approx([2.0, 1.7, 1.3])


def test_no_pause_outlives_the_deadline():
    script = Script(UNAVAILABLE, UNAVAILABLE, call_s=0.45)
    with pytest.raises(ServerUnavailableError):
        script.predict(timeout_s=1.0)
    assert script.pauses == [0.1]
    assert script.now_s <= 101.0


@pytest.mark.parametrize("call_s", [1.0, 2.0])
def test_a_deadline_that_passed_between_calls_is_seen(call_s):
    script = Script(declares(a="FP32"), call_s=call_s)
    with pytest.raises(DeadlineExceededError, match="no answer before the deadline"):
        script.predict(timeout_s=1.0)
    assert script.methods == ["ModelMetadata"]


def test_the_cause_of_the_last_failure_is_kept():
    cause = ConnectionError()
    script = Script(Failure(grpc.StatusCode.INTERNAL, "x", cause=cause))
    with pytest.raises(PenstockClientError) as failed:
        script.predict()
    assert failed.value.__cause__ is cause


def test_round_trip_is_the_answered_attempt():
    script = Script(declares(a="FP32"), UNAVAILABLE, ANSWER, call_s=0.25)
    assert script.predict(timeout_s=5.0).timing.round_trip_s == pytest.approx(0.25)


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_finite_and_positive(timeout_s):
    with pytest.raises(InvalidRequestError, match="timeout_s is expected as a finite number above 0"):
        Script().predict(timeout_s=timeout_s)


@pytest.mark.parametrize("settings", [{"timeout_s": 0.0}, {"retries": -1}, {"timeout_s": float("inf")}])
def test_settings_are_checked_on_construction(settings):
    with pytest.raises(ValueError, match="expected retries >= 0"):
        Script(**settings)


def test_a_request_beyond_the_limit_is_refused_before_it_is_sent():
    script = Script(declares(a="FP32"))
    with pytest.raises(InvalidRequestError, match="the limit is 1000; send fewer rows"):
        script.predict({"a": np.zeros(1000)})


def test_the_limit_itself_is_sent():
    rows = {"a": np.zeros(100)}
    script = Script(declares(a="FP32"), ANSWER)
    script.predict(rows)
    size = len(script.calls[-1].payload)
    for limit, calls in ((size - 1, 1), (size, 2)):
        script = Script(declares(a="FP32"), ANSWER, max_message_bytes=limit)
        with contextlib.suppress(InvalidRequestError):
            script.predict(rows)
        assert len(script.calls) == calls


def test_options_are_checked_before_anything_is_asked():
    script = Script()
    with pytest.raises(InvalidRequestError, match=r"outputs is expected as a list of names.* \(model 'm' at s:1\)"):
        script.predict(outputs="score")
    assert script.calls == []


@pytest.mark.parametrize(("outcome", "expected"), [(TRUE, True), (b"", False), (UNAVAILABLE, False), (LATE, False)])
def test_is_live_asks_once(outcome, expected):
    script = Script(outcome)
    assert script.run(script.session.is_live(None)) is expected
    assert script.methods == ["ServerLive"]


@pytest.mark.parametrize(("model", "method"), [(None, "ServerReady"), ("m", "ModelReady")])
@pytest.mark.parametrize(
    ("outcome", "expected"), [(TRUE, True), (b"", False), (UNAVAILABLE, False), (LATE, False), (MISSING, False)]
)
def test_is_ready_asks_once(model, method, outcome, expected):
    script = Script(outcome)
    assert script.run(script.session.is_ready(model, "", None)) is expected
    assert script.methods == [method]


@pytest.mark.parametrize(("model", "where"), [(None, "the server at s:1"), ("m", "model 'm' at s:1")])
def test_is_ready_names_what_is_broken(model, where):
    script = Script(BROKEN)
    with pytest.raises(PenstockClientError, match=rf"INTERNAL \({where}\)") as failed:
        script.run(script.session.is_ready(model, "", None))
    assert failed.value.model == (model or "")


def test_is_live_does_not_hide_a_broken_server():
    script = Script(BROKEN)
    with pytest.raises(PenstockClientError, match="INTERNAL"):
        script.run(script.session.is_live(None))


@given(
    outcomes=st.lists(st.sampled_from([UNAVAILABLE, FULL, LATE, INVALID, BROKEN, "metadata", ANSWER]), max_size=12),
    call_s=st.floats(0, 0.5),
    timeout_s=st.floats(0.01, 3),
    retries=st.integers(0, 5),
)
def test_every_script_ends_in_time_in_an_answer_or_a_known_error(outcomes, call_s, timeout_s, retries):
    replies = [declares(a="FP32") if outcome == "metadata" else outcome for outcome in outcomes]
    script = Script(*replies, *[BROKEN] * 2, call_s=call_s, retries=retries)
    with contextlib.suppress(PenstockClientError):
        script.predict(timeout_s=timeout_s)
    # The model's description, the rows, and both once more where a version may have changed or another one answered.
    assert len(script.calls) <= 4 * (1 + retries)
    assert script.now_s <= 100.0 + timeout_s + call_s + 1e-9
    assert all(call.timeout_s <= timeout_s + 1e-9 for call in script.calls)


def described(shape=(-1, 2), columns=None, names=("X",)):
    """Metadata of a model with a matrix, whose columns may have names."""
    spec = pb.ModelMetadataResponse.TensorMetadata
    specs = [spec(name=name, datatype="FP32", shape=shape) for name in names]
    if columns:
        specs[0].parameters["columns"].string_param = json.dumps(columns)
    return pb.ModelMetadataResponse(name="m", versions=["1", "2"], inputs=specs).SerializeToString()


def answer(version):
    return pb.ModelInferResponse(model_name="m", model_version=version).SerializeToString()


def sent(call):
    request = pb.ModelInferRequest.FromString(call.payload)
    pairs = zip(request.inputs, request.raw_input_contents, strict=True)
    return {tensor.name: np.frombuffer(raw, np.float32).tolist() for tensor, raw in pairs}


def test_columns_go_by_name_in_any_order():
    script = Script(described(columns=["a", "b"]), ANSWER, ANSWER)
    script.predict({"a": [1], "b": [2]})
    script.predict({"b": [2], "a": [1]})
    assert [sent(call) for call in script.calls[1:]] == [{"a": [1], "b": [2]}] * 2


def test_a_promotion_to_another_order_of_columns_changes_no_answer():
    script = Script(described(columns=["a", "b"]), ANSWER, answer("2"))
    script.predict({"a": [1], "b": [2]})
    # The server's version 2 wants b before a: tensors by name say which is which.
    script.predict({"a": [1], "b": [2]})
    assert sent(script.calls[-1]) == {"a": [1], "b": [2]}


def test_columns_in_an_order_that_was_guessed_are_sent_again_if_another_version_answers():
    script = Script(described(), ANSWER, described(), answer("2"), described(columns=["b", "a"]), answer("2"))
    assert script.predict({"a": [1], "b": [2]}).version == "1"
    assert script.predict({"a": [1], "b": [2]}).version == "2"
    assert script.methods[3:] == ["ModelInfer", "ModelMetadata", "ModelInfer"]
    assert [sent(call) for call in script.calls if call.method == "ModelInfer"] == [
        {"X": [1, 2]},
        {"X": [1, 2]},
        {"a": [1], "b": [2]},
    ]
    assert pb.ModelInferRequest.FromString(script.calls[-1].payload).model_version == "2"


def test_a_version_that_was_compared_is_not_described_again():
    script = Script(described(), ANSWER, described(), ANSWER, answer("2"), described(), answer("2"))
    for _ in range(4):
        script.predict({"a": [1], "b": [2]})
    assert script.methods.count("ModelMetadata") == 3
    assert script.methods.count("ModelInfer") == 4


@pytest.mark.parametrize("failure", [MISSING, Failure(grpc.StatusCode.UNIMPLEMENTED, "no"), INVALID])
def test_a_server_that_does_not_describe_versions_is_believed(failure):
    script = Script(described(), ANSWER, failure)
    assert script.predict({"a": [1], "b": [2]}).version == "1"


@pytest.mark.parametrize("rows", [np.ones((1, 2)), {"X": [[1, 2]]}, [[1, 2]]])
def test_rows_without_names_are_not_compared(rows):
    script = Script(described(), answer("2"))
    assert script.run(script.session.predict(RequestOptions(model="m"), rows, None)).version == "2"


def test_a_version_asked_by_its_number_is_not_compared():
    script = Script(described(), answer("2"))
    assert script.predict({"a": [1], "b": [2]}, version="2").version == "2"


def test_columns_left_out_are_said_once(caplog):
    script = Script(described(columns=["a", "b"]), *[ANSWER] * 3)
    for extra in ("c", "c", "d"):
        script.predict({"b": [2], extra: ["text"], "a": [1]})
    assert [record.getMessage() for record in caplog.records] == [
        "model 'm' takes no column 'c': left out; extra='refuse' refuses such rows",
        "model 'm' takes no column 'd': left out; extra='refuse' refuses such rows",
    ]
    assert sent(script.calls[-1]) == {"a": [1], "b": [2]}


def test_many_columns_left_out_are_counted(caplog):
    script = Script(described(columns=["a", "b"]), ANSWER)
    script.predict({"a": [1], "b": [2]} | {f"c{at}": [0] for at in range(23)})
    (record,) = caplog.records
    assert record.getMessage().endswith("'c18', 'c19' and 3 more: left out; extra='refuse' refuses such rows")


def test_rows_that_differ_each_time_do_not_fill_the_log(caplog):
    script = Script(described(columns=["a", "b"]), *[ANSWER] * (_MOST_SAID + 2))
    for at in range(_MOST_SAID + 2):
        script.predict({"a": [1], "b": [2], f"c{at}": [0]})
    assert len(caplog.records) == _MOST_SAID


def test_columns_left_out_are_refused_for_the_strict():
    script = Script(described(columns=["amount", "b"]))
    with pytest.raises(InvalidRequestError, match=r"unexpected 'amuont' \(did you mean 'amount'\?\)"):
        script.predict({"amount": [1], "b": [1], "amuont": [2]}, extra="refuse")


def test_a_column_more_after_a_promotion_is_asked_for():
    script = Script(described(columns=["a", "b"]), ANSWER, INVALID, described((-1, 3), ["c", "a", "b"]), ANSWER)
    script.predict({"a": [1], "b": [2]})
    script.predict({"a": [1], "b": [2], "c": [3]})
    assert sent(script.calls[-1]) == {"a": [1], "b": [2], "c": [3]}


def test_a_canary_with_a_column_more_is_answered_too():
    more = described((-1, 3), ["c", "a", "b"])
    script = Script(described(columns=["a", "b"]), INVALID, described(columns=["a", "b"]), more, answer("2"))
    rows = {"b": [2], "a": [1], "c": [3], "d": [4]}
    assert script.predict(rows).version == "2"
    request = pb.ModelInferRequest.FromString(script.calls[-1].payload)
    assert sent(script.calls[-1]) == {"a": [1], "b": [2], "c": [3]}
    assert request.parameters["extra_columns"].string_param == "ignore"
    assert request.model_version == ""


def test_a_version_that_is_gone_is_no_canary():
    script = Script(described(columns=["a", "b"]), INVALID, MISSING, described((-1, 3), ["c", "a", "b"]), answer("2"))
    assert script.predict({"a": [1], "b": [2], "c": [3]}).version == "2"


@pytest.mark.parametrize(
    ("rows", "version"), [({"a": [1], "b": [2]}, "1"), ({"a": [1], "b": [2]}, "@champion"), (np.ones((1, 2)), "")]
)
def test_a_refusal_that_no_canary_can_have_caused_asks_for_no_other_version(rows, version):
    script = Script(described(columns=["a", "b"]), INVALID)
    with pytest.raises(InvalidRequestError, match="wrong tensor"):
        script.run(script.session.predict(RequestOptions(model="m", version=version), rows, None))
    assert script.methods == ["ModelMetadata", "ModelInfer"]


def test_versions_that_take_the_same_refuse_for_another_reason():
    same = described(columns=["a", "b"])
    script = Script(same, INVALID, same, same)
    with pytest.raises(InvalidRequestError, match="wrong tensor"):
        script.predict({"a": [1], "b": [2]})


def test_what_the_champion_misses_is_named_though_a_canary_would_take_the_rows():
    script = Script(described(columns=["a", "b"]))
    with pytest.raises(InvalidRequestError, match="missing 'b'"):
        script.predict({"a": [1]})
    assert script.methods == ["ModelMetadata"]


def test_a_row_like_an_earlier_one_is_planned_with_its_timeout():
    script = Script(declares(a="FP32"), ANSWER, ANSWER, call_s=0.25)
    session, options, row = script.session, RequestOptions(model="m"), {"a": 1.5}
    assert session._planned(options, row, None) is None
    script.predict(row)
    planned = session._planned(options, row, None)
    assert (planned.method, planned.payload, planned.timeout_s) == ("ModelInfer", script.calls[-1].payload, 1.0)
    assert session._planned(options, row, 0.5).timeout_s == 0.5
    assert session._planned(options, row, -1.0) is None
    assert script.predict(row).timing.round_trip_s == pytest.approx(0.25)
    assert script.calls[-1] == planned


@pytest.mark.parametrize(("room", "is_planned"), [(0, True), (-1, False)])
def test_a_planned_request_keeps_to_the_limit(room, is_planned):
    script = Script(declares(a="FP32"), ANSWER)
    script.predict({"a": 1.5})
    script.session._max_message_bytes = len(script.calls[-1].payload) + room
    assert (script.session._planned(RequestOptions(model="m"), {"a": 2.5}, None) is not None) == is_planned


def test_retries_end_where_the_budget_is_spent_and_answers_fill_it_again():
    script = Script(
        declares(a="FP32"), ANSWER, UNAVAILABLE, ANSWER, UNAVAILABLE, ANSWER, UNAVAILABLE,
        *[ANSWER] * 4, UNAVAILABLE, ANSWER,
        budget=RetryBudget(tokens=4, ratio=0.5),
    )  # fmt: skip
    for _ in range(2):
        script.predict()
    # Two failures were half made good by one answer each; the third leaves half of the bucket, or less.
    script.predict()
    with pytest.raises(ServerUnavailableError, match="gone"):
        script.predict()
    for _ in range(4):
        script.predict()
    assert script.predict().version == "1"
    assert not script.outcomes


@pytest.mark.parametrize("model", [None, "m"])
@pytest.mark.parametrize("early", [b"", MISSING, UNAVAILABLE, LATE])
def test_wait_ready_asks_until_it_is_so(model, early):
    script = Script(early, early, TRUE)
    assert script.run(script.session.wait_ready(model, "", 60.0)) is None
    assert script.methods == ["ServerReady" if model is None else "ModelReady"] * 3
    assert script.pauses == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize(
    ("last", "reason"), [(b"", "it says that it is not"), (MISSING, "no such model"), (UNAVAILABLE, "gone")]
)
def test_wait_ready_ends_and_tells_the_last_answer(last, reason):
    script = Script(*[last] * 20)
    with pytest.raises(
        DeadlineExceededError, match=rf"model 'm' is not ready after 1 s: {reason} \(model 'm' at s:1\)"
    ):
        script.run(script.session.wait_ready("m", "", 1.0))
    assert 100.5 < script.now_s < 101.0


def test_wait_ready_waits_for_no_server_that_refuses():
    script = Script(Failure(grpc.StatusCode.PERMISSION_DENIED, "not you"))
    with pytest.raises(PenstockClientError, match="not you"):
        script.run(script.session.wait_ready(None, "", 60.0))


def test_one_look_of_wait_ready_does_not_take_all_the_time():
    script = Script(TRUE)
    script.run(script.session.wait_ready(None, "", 60.0))
    assert script.calls[0].timeout_s == 5.0
