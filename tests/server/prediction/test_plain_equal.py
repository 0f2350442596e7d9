"""With kernels for plain requests and without: the same answers, byte for byte but for their times, and the same counts."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.tensors import join_bytes
from penstock_server.batching.cost import Cost
from penstock_server.compiled_models.choice import Choice
from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import DeadlinePassedError, OverloadedError, PenstockError
from penstock_server.features.counting import EXTRA_CELLS, TALLIES, bins_of
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
    TimeColumn,
)
from penstock_server.features.spec.steps import Fill
from penstock_server.metrics.counters import STAGES, CountersShape
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.routed import totals
from penstock_server.models.artifact import Artifact
from penstock_server.models.kernels import kernels_of
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable
from penstock_server.plain import layout
from penstock_server.prediction.block_copies import BlockCopy
from penstock_server.prediction.decode import block_of
from penstock_server.prediction.records import prediction_reader
from penstock_server.prediction.shadow import ShadowTarget
from penstock_server.prediction.shadows import Shadows
from penstock_server.request_log.sampler import RequestSampler
from penstock_server.request_log.segment import header_of
from penstock_server.rollout.plan import Arm, TrafficPlan
from tests.examples import examples
from tests.server.prediction.conftest import answers_of
from tests.server.prediction.plain_world import Collected, Record, World, asked, without_times

NAN: Final = float("nan")
WORDS: Final[dict[str, Any]] = {
    "domain": "ai.onnx.ml", "classlabels_strings": ["no", "perhaps", "é" * 30], "post_transform": "NONE",
    "coefficients": [1.0, -1.0, 0.5, 0.25, -0.5, 1.0], "intercepts": [0.0, 0.1, -0.1],
}  # fmt: skip
REGRESSOR: Final[dict[str, Any]] = {"domain": "ai.onnx.ml", "coefficients": [3.0, -1.0], "intercepts": [0.5]}
MISSING: Final = np.iinfo(np.int64).min
RNG: Final = np.random.default_rng(0)


def version(path: Path, pipeline: Pipeline | None = None) -> OnnxServable:
    return OnnxServable(("m", "1"), Artifact(path.parent, path), OnnxModel(path), pipeline)


def graph_behind(pipeline: Pipeline, write_onnx: Callable[..., Path]) -> OnnxServable:
    """Twice the features, and which of them is the largest."""
    width = pipeline.width
    path = write_onnx(
        [
            ("Add", ["features", "features"], ["double"], {}),
            ("ArgMax", ["features"], ["label"], {"axis": 1, "keepdims": 0}),
        ],
        inputs=[("features", "FP64" if pipeline.dtype == np.float64 else "FP32", ["N", width])],
        outputs=[
            ("double", "FP64" if pipeline.dtype == np.float64 else "FP32", ["N", width]),
            ("label", "INT64", ["N"]),
        ],
    )
    return version(path, pipeline)


def texts(*values: str) -> Any:
    return np.array(values, object)


def rows_of(kind: str, rows: int) -> dict[str, Any]:
    """Some rows for a version of this kind."""
    return {name: make(rows) for name, make in COLUMNS[kind].items()}


def numbers(dtype: str = "f8", *row: int) -> Callable[[int], Any]:
    return lambda rows: RNG.normal(size=(rows, *row)).astype(dtype)


def integers(dtype: str, *row: int) -> Callable[[int], Any]:
    return lambda rows: RNG.integers(0, 9, (rows, *row)).astype(dtype)


def words(*row: int, among: Sequence[str] = ("s", "q", "é" * 40, "", "unknown")) -> Callable[[int], Any]:
    return lambda rows: np.array(RNG.choice(among, (rows, *row)), object)


_NUMBERS_AND_MORE: Final = {
    "a": numbers(),
    "t": lambda rows: RNG.integers(0, 2**62, rows),
    "s": words(),
    "b": numbers("f4"),
}
COLUMNS: Final[dict[str, dict[str, Callable[[int], Any]]]] = {
    "one matrix": {"x": numbers("f4", 3)},
    "doubles": {"x": numbers("f8", 3)},
    "no class": {"x": numbers("f8", 3)},
    "integers": {"x": integers("i8", 2), "y": integers("i4", 2, 2)},
    "several": {"text": words(1), "x": numbers("f4", 3)},
    "texts": {"text": words()},
    "rows of one number": {"x": numbers("f4"), "flag": integers("?")},
    "straight": {"x": numbers("f4", 3)},
    "straight doubles": {"x": numbers("f8", 3)},
    "numbers": {"a": numbers(), "b": numbers("f4", 1), "c": numbers()},
    "columns": _NUMBERS_AND_MORE,
    "required": _NUMBERS_AND_MORE,
    "refusing": {"a": numbers(), "s": words(among=("s", "q"))},
    "wide": {f"c{at}": numbers() for at in range(200)},
    "classes in words": {"x": numbers("f4", 2)},
    "one score": {"a": numbers(), "b": numbers()},
}
FUSED: Final = (
    "one matrix",
    "doubles",
    "straight",
    "numbers",
    "columns",
    "required",
    "refusing",
    "wide",
    "classes in words",
    "one score",
)
"""Those whose graphs kernels run too: there the whole batch is theirs."""
COLUMNS.update({f"fused {kind}": COLUMNS[kind] for kind in FUSED})


@pytest.fixture(scope="session")
def servables(write_onnx: Callable[..., Path], mixed: OnnxServable) -> dict[str, OnnxServable]:
    def identity(**tensors: tuple[str, list[int | str]]) -> OnnxServable:
        path = write_onnx(
            [("Identity", [name], [f"{name}_out"], {}) for name in tensors],
            inputs=[(name, *spec) for name, spec in tensors.items()],
            outputs=[(f"{name}_out", *spec) for name, spec in tensors.items()],
        )
        return version(path)

    def doubling(datatype: str) -> OnnxServable:
        path = write_onnx(
            [("Add", ["x", "x"], ["y"], {}), ("ArgMax", ["x"], ["label"], {"axis": 1, "keepdims": 0})],
            inputs=[("x", datatype, ["N", 3])],
            outputs=[("y", datatype, ["N", 3]), ("label", "INT64", ["N"])],
        )
        return version(path)

    def mixed_columns(*, required: bool) -> Pipeline:
        spec = FeatureSpec(
            (NumberColumn("a"), StringColumn("s"), TimeColumn("t"), NumberColumn("b")),
            Join(
                (
                    Take(("a", "b")) if required else Take(("a", "b"), (Fill((1.0, 2.0)),)),
                    Text("s", Categories(("s", "q"))),
                )
            ),
        )
        table = {"a": np.zeros(2), "b": np.zeros(2), "s": texts("s", "q"), "t": np.zeros(2, "M8[ns]")}
        return Pipeline(spec, fit_baseline(spec, table).cells)

    numbers = FeatureSpec(tuple(map(NumberColumn, "abc")), Take(("a", "b", "c"), (Fill((1.0, 2.0, 3.0)),)), "FP64")
    refusing = FeatureSpec(
        (NumberColumn("a"), StringColumn("s")), Join((Take(("a",)), Text("s", Categories(("s", "q"), unseen="refuse"))))
    )
    wide = FeatureSpec(
        tuple(NumberColumn(f"c{at}") for at in range(200)),
        Take(tuple(f"c{at}" for at in range(200)), (Fill((0.5,) * 200),)),
    )
    passed = FeatureSpec(tuple(NumberColumn(name, "accept") for name in "abc"), Take(("a", "b", "c")))
    straight = Pipeline(passed, fit_baseline(passed, {name: np.linspace(-1, 1, 600) for name in "abc"}).cells)
    scored = FeatureSpec(tuple(map(NumberColumn, "ab")), Take(("a", "b"), (Fill((1.0, 2.0)),)))
    some = np.arange(3.0)
    made = {
        "one matrix": doubling("FP32"),
        "doubles": doubling("FP64"),
        "no class": identity(x=("FP64", ["N", 3])),
        "integers": identity(x=("INT64", ["N", 2]), y=("INT32", ["N", 2, 2])),
        "several": mixed,
        "texts": identity(text=("BYTES", ["N"])),
        "rows of one number": identity(x=("FP32", ["N"]), flag=("BOOL", ["N"])),
        "straight": graph_behind(straight, write_onnx),
        "straight doubles": graph_behind(straight, write_onnx),
        "numbers": graph_behind(Pipeline(numbers, fit_baseline(numbers, dict.fromkeys("abc", some)).cells), write_onnx),
        "columns": graph_behind(mixed_columns(required=False), write_onnx),
        "required": graph_behind(mixed_columns(required=True), write_onnx),
        "refusing": graph_behind(Pipeline(refusing), write_onnx),
        "wide": graph_behind(Pipeline(wide), write_onnx),
        "classes in words": version(
            write_onnx(
                [("LinearClassifier", ["x"], ["label", "scores"], WORDS)],
                inputs=[("x", "FP32", ["N", 2])],
                outputs=[("label", "BYTES", ["N"]), ("scores", "FP32", ["N", 3])],
            )
        ),
        "one score": version(
            write_onnx(
                [("LinearRegressor", ["features"], ["sum"], REGRESSOR)],
                inputs=[("features", "FP32", ["N", 2])],
                outputs=[("sum", "FP32", ["N", 1])],
            ),
            Pipeline(scored, fit_baseline(scored, dict.fromkeys("ab", some)).cells),
        ),
    }
    return made | {f"fused {kind}": fused(made[kind]) for kind in FUSED}


def fused(servable: OnnxServable) -> OnnxServable:
    """The same with kernels for its graph."""
    made = copy(servable)
    made.kernels = kernels_of(made.model, made.artifact.model_path, None, threads=1)
    assert made.kernels.model is not None, made.kernels.choice
    made.kernels = replace(made.kernels, choice=Choice((True,) * 4, "kernels"))
    return made


class Both:
    """Two worlds with one version: requests in the one are plain, in the other they take the general path."""

    def __init__(self, servable: Any, clock: Any, new_counters: Any, folder: Path, **settings: Any) -> None:
        self.servable = servable
        self.recorded: list[Record] = []
        self._new_counters = new_counters
        self.worlds = [
            World(
                {"1": servable} | settings.get("others", {}),
                report_of=self.report,
                clock=clock,
                is_plain=is_plain,
                records=folder / f"records-{is_plain}",
                **{name: value for name, value in settings.items() if name != "others"},
            )
            for is_plain in (True, False)
        ]
        self.plain, self.general = self.worlds
        # Where only some requests of a turn are plain, those run in a batch of their own.
        self.are_batches_alike = True
        self.is_fused = servable.kernel_calls is not None
        # Why kernels left a batch to Python.
        self.left: list[int] = []
        executor = self.plain.executors["1"]
        take_over = executor._take_over

        def left(why: int, batch: Any) -> None:
            self.left.append(why)
            take_over(why, batch)

        executor._take_over = left  # type: ignore[method-assign]

    def report(self, sub_windows: int = 10) -> Any:
        cells = None if self.servable.pipeline is None else self.servable.pipeline.cells_shape
        answers = answers_of(self.servable)
        shape = CountersShape(*cells, sub_windows, len(answers)) if answers else CountersShape()  # type: ignore[misc]
        counters = self._new_counters(shape)
        recorder: Any = Recorder(counters, drift_window_rows=50, answers=answers)
        recorder.counters = counters
        return recorder

    def do(self, action: Callable[[World], Any]) -> None:
        for world in self.worlds:
            action(world)

    def warm(self, *messages: bytes) -> None:
        self.do(lambda world: world.warm(*messages))

    def ask(self, *messages: bytes, **settings: Any) -> list[bytes | PenstockError]:
        """Sends these in one turn to both, and returns the answers, which are the same."""
        found = []
        for world in self.worlds:
            slots = world.send(*messages, **settings)
            world.run()
            found.append([world.port.ends[slot] for slot in slots])
        for plain, general in zip(*found, strict=True):
            same_end(plain, general)
        self.check()
        return found[0]

    def check(self) -> None:
        """The counts and the records are the same, and nothing is left."""
        self.do(World.check_clean)
        plain_records, general_records = (world.records.take() for world in self.worlds if world.records is not None)
        assert plain_records == general_records
        self.recorded += plain_records
        for name in ("unrouted", "reports"):
            plain, general = (getattr(world, name) for world in self.worlds)
            pairs = zip(plain.values(), general.values(), strict=True) if name == "reports" else [(plain, general)]
            for one, other in pairs:
                same_counts(
                    one.counters,
                    other.counters,
                    are_batches_alike=self.are_batches_alike,
                    is_fused=self.is_fused,
                )


def same_end(plain: bytes | PenstockError, general: bytes | PenstockError) -> None:
    if isinstance(general, PenstockError):
        assert (type(plain), str(plain)) == (type(general), str(general))
    else:
        assert isinstance(plain, bytes), plain
        assert without_times(plain) == without_times(general)


def same_counts(one: Any, other: Any, *, are_batches_alike: bool, is_fused: bool) -> None:
    for name in (
        "rows", "requests", "refusals", "classes", "class_values", "class_count", "waiting", "drift_at",
        "drift_rows", "log_rows", "log_drops", "shadow_drops", "routed", "named_failed",
    ):  # fmt: skip
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    if are_batches_alike:
        assert one.batch_rows.tolist() == other.batch_rows.tolist()
        for stage in range(len(STAGES)):
            assert one.latency[stage].sum() == other.latency[stage].sum(), STAGES[stage]
    # Time stands still here, so that what depends on the requests' arrival is the same to the nanosecond. But kernels read
    # the system's clock.
    latency = 1 if is_fused else 0
    assert one.latency[latency:2].tolist() == other.latency[latency:2].tolist()
    assert one.named_latency.sum() == other.named_latency.sum()
    assert one.drift.tobytes() == other.drift.tobytes()


@pytest.fixture
def both(servables: dict[str, OnnxServable], fake_clock: Any, new_counters: Any, tmp_path: Path) -> Callable[..., Both]:
    def make(kind: str, **settings: Any) -> Both:
        return Both(servables[kind], fake_clock(), new_counters, tmp_path, **settings)

    return make


@pytest.mark.long
@pytest.mark.parametrize("kind", COLUMNS)
def test_answers_are_the_same_byte_for_byte(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    chosen = [spec.name for spec in pair.servable.outputs][::-1][:1]
    forms: list[dict[str, Any]] = [
        {},
        {"id": "request-1"},
        {"outputs": chosen},
        {"model_version": "1", "parameters": {"routing_key": "customer 7"}},
        {"model_version": "@champion", "parameters": {"timeout": 5_000_000, "priority": 0}, "id": "2"},
        {"parameters": {"routing_key": "", "timeout": 0}, "id": "x" * 256},
    ]
    pair.warm(*(asked(rows_of(kind, 1), **form) for form in forms))
    pair.ask(*(asked(rows_of(kind, rows), **form) for form in forms for rows in (1, 2, 7)))
    for form in forms:
        pair.ask(asked(rows_of(kind, 3), **form))
    pair.ask(asked(rows_of(kind, 1)), deadline_s=pair.plain.clock.now + 5)
    assert pair.plain.taken == 25
    pair.left.clear()
    runs = pair.ask(*(asked(rows_of(kind, rows), **form) for form in forms for rows in (1, 2, 7)))
    assert len(runs) == 18
    assert pair.plain.executors["1"].plain_batches.lane.is_fused == pair.is_fused
    # Kernels run them whole, but for batches that are not brief; and a class that comes for the first time is not known.
    assert set(pair.left) <= {layout.TO_RUN if kind == "fused wide" else layout.TO_COUNT}
    # Whether other bytes than ASCII are text is protobuf's to say.
    pair.ask(asked(rows_of(kind, 2), id="ü" * 3))
    assert pair.plain.taken == 43
    is_recorded = prediction_reader(pair.plain.executors["1"].reader, pair.servable.outputs) is not None
    assert is_recorded == (kind not in {"integers", "texts"})
    # Three forms with an id: warming, once 3 and twice 1, 2 and 7 rows each; and the last one.
    assert len(pair.recorded) == (3 * (1 + 3 + 2 * 10) + 2 if is_recorded else 0)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["columns", "fused columns", "numbers", "fused numbers"])
def test_a_batch_of_repeats_counts_for_no_drift(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind, skips_repeats=True)
    is_matrix = kind.endswith("numbers")

    def new(rows: int) -> bytes:
        return asked({"input": RNG.normal(size=(rows, 3))} if is_matrix else rows_of(kind, rows))

    def drift_rows() -> int:
        pair.check()
        return int(pair.plain.reports["1"].counters.drift_rows.sum())

    pair.warm(new(1))
    one, other, large = new(3), new(2), new(100)
    counted = []
    for requests in ([one], [one], [one, other], [other, one], [other], [new(1)], [large], [large], [one]):
        before, answered = drift_rows(), int(pair.plain.reports["1"].counters.rows[0])
        assert all(isinstance(answer, bytes) for answer in pair.ask(*requests))
        counted.append(drift_rows() - before)
        # They are answered and counted all the same.
        assert int(pair.plain.reports["1"].counters.rows[0]) > answered
    # A batch that brings something new counts whole; then `large` starts the ring's next window.
    assert counted[:6] == [3, 0, 5, 0, 0, 1]
    assert counted[7:] == [0, 0]
    assert pair.plain.taken >= 9


@pytest.mark.parametrize("kind", ["required", "fused required"])
def test_missing_values_are_refused_where_they_are_required(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    pair.warm(asked(rows_of(kind, 1)))
    rows = rows_of(kind, 5)
    for name, value in (("a", NAN), ("b", np.float32(NAN)), ("t", MISSING)):
        bad = {key: column.copy() for key, column in rows.items()}
        bad[name][3] = value
        first, second, third = pair.ask(asked(rows), asked(bad, id="bad"), asked(rows_of(kind, 2)))
        assert isinstance(first, bytes)
        assert isinstance(third, bytes)
        assert isinstance(second, PenstockError) == (name != "t")
    assert pair.plain.taken == 7


@pytest.mark.parametrize("kind", ["columns", "fused columns"])
def test_missing_values_are_filled_where_they_may_be(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    pair.warm(asked(rows_of(kind, 1)))
    rows = rows_of(kind, 4)
    rows["a"][1], rows["b"][2], rows["t"][3] = NAN, NAN, MISSING
    assert isinstance(pair.ask(asked(rows), asked(rows_of(kind, 1)))[0], bytes)
    assert pair.plain.taken == 2


@pytest.mark.parametrize("kind", ["numbers", "fused numbers"])
def test_a_matrix_of_all_columns_is_plain(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    pair.warm(asked({"input": RNG.normal(size=(1, 3))}))
    matrix = RNG.normal(size=(3, 3))
    matrix[1, 1] = NAN
    pair.ask(asked({"input": matrix}), asked({"input": RNG.normal(size=(2, 3))}, id="b"))
    assert pair.plain.taken == 2


@pytest.mark.parametrize("kind", ["straight", "fused straight", "fused numbers"])
def test_matrices_of_singles_and_of_doubles_share_a_batch(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    singles = np.array([[NAN, np.inf, -np.inf], [-0.0, 1e-40, 3.4e38], [16777217, 0.1, -1 / 3]], "f4")
    doubles = RNG.normal(size=(2, 3))
    pair.warm(asked({"input": singles[:1]}), asked({"input": doubles[:1]}))
    for requests in ([singles], [singles, doubles], [doubles, singles, doubles, singles[:2]]):
        found = pair.ask(*(asked({"input": matrix}) for matrix in requests))
        assert all(isinstance(each, bytes) for each in found)
    assert pair.plain.taken == 7


@pytest.mark.parametrize("kind", ["refusing", "fused refusing"])
def test_refused_rows_are_refused_alike(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    pair.warm(asked(rows_of(kind, 1)))
    bad = {"a": np.zeros(3), "s": texts("s", "never seen", "q")}
    for requests in ([rows_of(kind, 2), bad, rows_of(kind, 1)], [bad], [bad, bad]):
        pair.ask(*map(asked, requests))
    assert pair.plain.taken == 6
    assert (layout.TO_REFUSE in pair.left) == pair.is_fused


@pytest.mark.long
def test_requests_that_differ_in_form_are_told_apart(both: Callable[..., Both]) -> None:
    """Each is like one before but for something that decides how it is decoded."""
    pair = both("several")
    pair.are_batches_alike = False
    usual = {"text": texts("a").reshape(1, 1), "x": np.ones((1, 3), "f4")}
    pair.warm(asked(usual))
    turned = {"x": usual["x"], "text": usual["text"]}
    request = pb.ModelInferRequest.FromString(asked(usual))

    def changed(change: Callable[[pb.ModelInferRequest], object]) -> bytes:
        other = pb.ModelInferRequest()
        other.CopyFrom(request)
        change(other)
        return bytes(other.SerializeToString(deterministic=True))

    def shape(*sizes: int) -> Callable[[pb.ModelInferRequest], object]:
        def change(request: pb.ModelInferRequest) -> None:
            request.inputs[1].shape[:] = sizes

        return change

    messages = [
        asked(turned),
        changed(shape(1, 4)),
        changed(shape(3, 1)),
        changed(shape(3)),
        changed(shape(1, 3, 1)),
        changed(shape(-1, 3)),
        changed(shape(0, 3)),
        changed(shape(2**34, 3)),
        changed(lambda request: setattr(request.inputs[1], "datatype", "INT32")),
        changed(lambda request: setattr(request.inputs[1], "name", "z")),
        changed(lambda request: setattr(request, "model_name", "n")),
        changed(lambda request: setattr(request, "model_version", "2")),
        changed(lambda request: request.raw_input_contents.append(b"")),
        changed(lambda request: request.raw_input_contents.pop()),
        changed(lambda request: request.raw_input_contents.__setitem__(0, join_bytes(["a", "b"]))),
        changed(lambda request: request.raw_input_contents.__setitem__(0, b"\x05\0\0\0torn")),
        changed(lambda request: request.raw_input_contents.__setitem__(1, bytes(11))),
        changed(lambda request: request.inputs[0].parameters["a"].CopyFrom(pb.InferParameter(int64_param=1))),
        changed(lambda request: request.inputs[1].contents.fp32_contents.append(1.0)),
        changed(lambda request: request.outputs.add(name="none")),
        changed(lambda request: (request.outputs.add(name="label"), request.outputs.add(name="label"))),
        changed(lambda request: request.parameters["priority"].CopyFrom(pb.InferParameter(int64_param=10))),
        changed(lambda request: request.parameters["priority"].CopyFrom(pb.InferParameter(int64_param=-1))),
        changed(lambda request: request.parameters["timeout"].CopyFrom(pb.InferParameter(string_param="a"))),
        changed(lambda request: request.parameters["routing_key"].CopyFrom(pb.InferParameter(int64_param=1))),
        changed(lambda request: request.parameters["sequence_id"].CopyFrom(pb.InferParameter(int64_param=1))),
        changed(lambda request: request.parameters["penstock_explain"].CopyFrom(pb.InferParameter(bool_param=True))),
        asked(usual)[:-1],
        asked(usual) + b"\x0a\x01n",
        asked(usual) + b"\x98\x06\x01",
        b"",
    ]
    for _ in range(2):  # the second time, what can be known of them is known
        for one in messages:
            pair.ask(asked(usual), one, asked(usual, id="after"))


@pytest.mark.parametrize("kind", ["doubles", "fused columns"])
def test_requests_for_classes_take_the_general_path(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    usual = asked(rows_of(kind, 2))
    pair.warm(usual)
    taken = pair.plain.taken
    request = pb.ModelInferRequest.FromString(usual)
    request.outputs.add(name=pair.plain.executors["1"].servable.outputs[-1].name)
    request.outputs[0].parameters["classification"].int64_param = 2
    for _ in range(3):
        (reply,) = pair.ask(request.SerializeToString())
        assert pb.ModelInferResponse.FromString(reply).outputs[0].datatype == "BYTES"
    assert pair.plain.taken == taken
    pair.ask(usual)
    assert pair.plain.taken > taken


@pytest.mark.parametrize("kind", ["doubles", "fused columns"])
def test_what_perf_analyzer_sends_is_plain(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    request = pb.ModelInferRequest.FromString(asked(rows_of(kind, 1)))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.outputs.extend(
        pb.ModelInferRequest.InferRequestedOutputTensor(name=spec.name)
        for spec in pair.plain.executors["1"].servable.outputs
    )
    message = request.SerializeToString()
    pair.warm(message)
    taken = pair.plain.taken
    pair.ask(message)
    assert pair.plain.taken == taken + 1


def test_requests_for_attributions_take_the_general_path(both: Callable[..., Both]) -> None:
    pair = both("doubles")
    message = asked(rows_of("doubles", 1))
    pair.warm(message)
    request = pb.ModelInferRequest.FromString(message)
    request.parameters["explain"].bool_param = True
    assert isinstance(pair.ask(request.SerializeToString())[0], PenstockError)
    assert isinstance(pair.ask(asked(rows_of("doubles", 1), outputs=["penstock_attributions"]))[0], PenstockError)
    assert pair.plain.taken == 0


@pytest.mark.parametrize("kind", ["several", "fused columns"])
def test_priorities_are_served_in_the_same_order(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind, max_rows=3)
    pair.warm(asked(rows_of(kind, 1)))
    levels = [5, 9, 1, 0, 6, 1, 4, 9, 5, 2, 2, 8]
    pair.ask(*(asked(rows_of(kind, 1 + at % 2), parameters={"priority": level}) for at, level in enumerate(levels)))
    assert pair.plain.taken == len(levels)
    orders = [[slot for slot in world.port.ends if slot > 0] for world in pair.worlds]
    assert orders[0] == orders[1] != sorted(orders[0])


@pytest.mark.parametrize("kind", ["several", "fused columns"])
def test_what_would_miss_the_objective_is_refused_alike(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind, objective_ms=100.0, cost=Cost(0.01, 0.01))
    pair.warm(asked(rows_of(kind, 1)))
    requests = [asked(rows_of(kind, 1 + at % 3), parameters={"priority": at % 7}) for at in range(20)]
    ends = pair.ask(*requests)
    late = pair.ask(*requests, deadline_s=pair.plain.clock.now + 0.05)
    assert pair.plain.taken == 40
    assert {type(end) for end in ends} == {bytes, OverloadedError}
    assert DeadlinePassedError in {type(end) for end in late}
    assert pair.plain.port.refused > 10


@pytest.mark.parametrize("kind", ["several", "fused columns"])
def test_requests_are_delayed_alike(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind, max_delay_s=0.01, max_rows=4)
    message = asked(rows_of(kind, 1))
    for world in pair.worlds:
        world.send(message)
    pair.plain.clock.now += 0.02
    pair.do(lambda world: world.scheduler.step())
    pair.plain.taken = 0
    for count, passed_s in ((3, 0.0), (1, 0.0), (2, 0.009), (1, 0.001), (0, 0.009), (4, 0.0)):
        pair.plain.clock.now += passed_s
        waiting = []
        for world in pair.worlds:
            world.send(*[message] * count)
            world.scheduler.step()
            waiting.append(len(world.sent) - len(world.port.ends))
        assert waiting[0] == waiting[1]
    assert pair.plain.taken == 11
    pair.do(lambda world: world.executors["1"].drain(lambda: None))
    pair.do(World.step)
    pair.check()


@pytest.mark.parametrize("kind", ["several", "numbers", "fused numbers"])
def test_a_canary_answers_alike(servables: dict[str, OnnxServable], both: Callable[..., Both], kind: str) -> None:
    other = copy(servables[kind])
    other.key = ("m", "2")
    plan = TrafficPlan("1", (Arm("2", 0.4),))
    pair = both(kind, others={"2": other}, plan=plan)
    pair.warm(asked(rows_of(kind, 1), id="first"))
    ends = pair.ask(*(asked(rows_of(kind, 1 + at % 3), id=f"caller {at}") for at in range(40)))
    assert pair.plain.taken == 40
    versions = [pb.ModelInferResponse.FromString(end).model_version for end in ends if isinstance(end, bytes)]
    are_canarys = [version == "2" for version in versions]
    assert are_canarys == [plan.choose("m", f"caller {at}")[0] == "2" for at in range(40)]
    assert set(are_canarys) == {True, False}


@pytest.mark.parametrize("kind", ["several", "numbers", "fused numbers"])
def test_requests_that_name_the_version_are_told_apart_alike(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    routed = [asked(rows_of(kind, 1), id=str(at)) for at in range(5)]
    named = [asked(rows_of(kind, 1), id=str(at), model_version="1") for at in range(3)]
    pair.warm(routed[0], named[0])
    pair.ask(*routed, *named, *routed)
    assert pair.plain.taken == 13
    counters = pair.plain.reports["1"].counters
    assert (counters.routed[0], counters.named_latency.sum(), counters.latency[0].sum()) == (11, 4, 15)
    assert totals([counters, counters])[:2] == (22, 0)
    assert totals([counters]).answered == 11


@pytest.mark.parametrize("kind", ["several", "fused columns"])
def test_a_full_queue_refuses_alike(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind, queue_requests=5, queue_rows=8)
    pair.warm(asked(rows_of(kind, 1)))
    ends = pair.ask(*(asked(rows_of(kind, 1 + at % 3)) for at in range(12)))
    pair.ask(asked(rows_of(kind, 1)), asked(rows_of(kind, 1)), deadline_s=pair.plain.clock.now)
    assert (pair.plain.taken, pair.plain.port.refused) == (14, 2 + sum(not isinstance(end, bytes) for end in ends))


@pytest.mark.parametrize("kind", ["several", "numbers", "fused numbers"])
def test_a_shadow_compares_alike(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    pair.warm(asked(rows_of(kind, 1)))
    targets = []
    for world in pair.worlds:
        executor, report, thread = world.executors["1"], pair.report(), Collected()
        executor.set_shadows(
            Shadows(
                [
                    (
                        ShadowTarget(
                            thread,  # type: ignore[arg-type]
                            servable=pair.servable,
                            report=report,
                            reader=executor.reader,
                            champion=executor.reader,
                            order=tuple(map(BlockCopy, range(len(executor.decoder.blocks)))),
                        ),
                        1.0,
                    )
                ]
            )
        )
        targets.append((thread, report))
    pair.ask(*(asked(rows_of(kind, rows)) for rows in (1, 3, 2)))
    assert pair.plain.taken == 3
    for thread, _ in targets:
        ((target, copy),) = thread.copies
        target.run(copy)
    (_, plain), (_, general) = targets
    assert plain.counters.shadow.tolist() == general.counters.shadow.tolist() == [6, 0, 0, 0]
    assert plain.counters.scores.tolist() == general.counters.scores.tolist()


@pytest.mark.parametrize("kind", ["straight", "columns", "fused numbers", "one score"])
def test_a_shadow_counts_as_if_it_had_answered(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind, skips_repeats=True)
    pair.warm(asked(rows_of(kind, 1)))
    targets = []
    for world in pair.worlds:
        executor, report, thread = world.executors["1"], pair.report(), Collected()
        target = ShadowTarget(
            thread,  # type: ignore[arg-type]
            servable=pair.servable,
            report=report,
            reader=executor.reader,
            champion=executor.reader,
            order=tuple(map(BlockCopy, range(len(executor.decoder.blocks)))),
            apart=pair.report(sub_windows=1),
        )
        executor.set_shadows(Shadows([(target, 1.0)]))
        targets.append((target, thread, report, world.reports["1"].counters.drift.sum(axis=0)))
    again = asked(rows_of(kind, 2))
    for messages in ([again, asked(rows_of(kind, 3))], [again], [asked(rows_of(kind, 4))]):
        pair.ask(*messages)
    assert pair.plain.taken == 4
    for (target, thread, report, before), world in zip(targets, pair.worlds, strict=True):
        assert [copy.is_repeat for _, copy in thread.copies] == [False, True, False]
        for _, offered in thread.copies:
            target.run(offered)
        target.hand_over()
        found, expected = report.counters.drift.sum(axis=0), world.reports["1"].counters.drift.sum(axis=0) - before
        sums_at = bins_of(found.shape[1]) + EXTRA_CELLS + TALLIES
        assert report.counters.drift_rows.sum() == 9
        assert found[:, :sums_at].tolist() == expected[:, :sums_at].tolist()
        assert report.counters.classes.sum() == 0


@pytest.mark.parametrize("kind", ["one matrix", "several"])
def test_repeats_are_known_for_a_shadow(both: Callable[..., Both], kind: str) -> None:
    """The champion has no baseline, so it looks for them only from then on."""
    pair = both(kind)
    again = asked(rows_of(kind, 2))
    pair.warm(asked(rows_of(kind, 1)), again)
    threads = []
    for world in pair.worlds:
        executor, thread = world.executors["1"], Collected()
        order = tuple(map(BlockCopy, range(len(executor.decoder.blocks))))
        executor.set_shadows(
            Shadows(
                [
                    (
                        ShadowTarget(
                            thread,  # type: ignore[arg-type]
                            servable=pair.servable,
                            report=pair.report(),
                            reader=executor.reader,
                            champion=executor.reader,
                            order=order,
                            skips_repeats=True,
                        ),
                        1.0,
                    )
                ]
            )
        )
        threads.append(thread)
    for _ in range(3):
        pair.ask(again)
    pair.ask(asked(rows_of(kind, 2)))
    assert pair.plain.taken == 4
    for thread in threads:
        assert [copy.is_repeat for _, copy in thread.copies] == [False, True, True, False]


@pytest.mark.parametrize("kind", ["several", "columns", "texts", "fused columns", "fused classes in words"])
def test_the_request_log_keeps_the_same(both: Callable[..., Both], kind: str) -> None:
    pair = both(kind)
    pair.warm(asked(rows_of(kind, 1)), asked(rows_of(kind, 1), model_version="1"))
    samplers = []
    for world in pair.worlds:
        executor = world.executors["1"]
        outputs = [block_of(spec, is_batched=True) for spec in pair.servable.outputs]
        fractions = iter([0.5, 0.3, 0.9, 0.2] * 20)
        sampler = RequestSampler(
            header_of(("m", "1"), executor.decoder.blocks, outputs),
            sample_ratio=0.6,
            report=world.reports["1"],
            wake=lambda: None,
            clock=lambda: 1.0,
            fraction=lambda fractions=fractions: next(fractions),
        )
        executor.set_sampler(sampler)
        samplers.append(sampler)
    for turn in range(3):
        pair.ask(*(asked(rows_of(kind, rows), id=f"{turn}-{rows}" if rows != 2 else "") for rows in (1, 3, 2, 1, 4)))
    pair.ask(*(asked(rows_of(kind, 1), model_version="1") for _ in range(5)))
    plain, general = ([record.rows for record in sampler._waiting] for sampler in samplers)
    assert pair.plain.taken == 20
    weights = [record.logged().weight for record in samplers[0]._waiting]
    assert weights == [record.logged().weight for record in samplers[1]._waiting]
    assert set(weights) == {1.0, None}  # those that name the version were not drawn
    assert len(plain) > 5
    assert [_frozen(one) for one in samplers[0]._waiting] == [_frozen(one) for one in samplers[1]._waiting]
    assert plain == general


def _frozen(sample: Any) -> Any:
    return [
        [part.tobytes() if isinstance(part, np.ndarray) and part.dtype != object else repr(part) for part in value]
        if isinstance(value, Sequence) and not isinstance(value, str | bytes)
        else value
        for value in (getattr(sample, name) for name in type(sample).__slots__)
    ]


SOME: Final = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "customer-17", "z" * 256, "z" * 257, "ü"]),
        st.integers(0, 9),
        st.sampled_from([(), ("label",), ("label", "echo"), ("double", "echo", "label")]),
        st.dictionaries(
            st.sampled_from(["routing_key", "timeout", "priority"]), st.sampled_from([0, 1, 300, 2**33]), max_size=3
        ),
        st.sampled_from(["", "1", "@champion", "9"]),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.long
@examples(40)
@given(turns=st.lists(SOME, min_size=1, max_size=4))
def test_whatever_comes_is_answered_and_counted_alike(
    servables: dict[str, OnnxServable], fake_clock: Any, tmp_path_factory: pytest.TempPathFactory, turns: list[Any]
) -> None:
    """Every request alone in its turn: then batches are the same, whether a form is known yet or not."""
    from penstock_server.metrics.counters import create_counters

    folder = tmp_path_factory.mktemp("counters")
    pair = Both(
        servables["several"],
        fake_clock(),
        lambda shape: create_counters(folder / str(len(list(folder.iterdir()))), shape),
        folder,
        plan=TrafficPlan("1"),
    )
    for turn in turns:
        for request_id, rows, outputs, parameters, named in turn:
            keys = {name: f"key {value}" if name == "routing_key" else value for name, value in parameters.items()}
            pair.ask(
                asked(rows_of("several", rows), id=request_id, outputs=outputs, parameters=keys, model_version=named)
            )
