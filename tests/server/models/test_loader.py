from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.batching.cost import Cost
from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.models import artifact, golden, loader
from penstock_server.models.execution import ExecutionSettings, Placement
from penstock_server.models.loader import load
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable

WriteOnnx = Callable[..., Path]
KEY = ("m", "1")
SPEC = FeatureSpec(
    (NumberColumn("age"), StringColumn("port")), Join((Take(("age",)), Text("port", Categories(("s", "q")))))
)
TABLE: dict[str, Any] = {"age": np.array([1.0, 2.0]), "port": np.array(["s", "x"], object)}


def doubling(write_onnx: WriteOnnx, shape: list[Any], datatype: str = "FP32") -> Path:
    return write_onnx(
        [("Add", ["x", "x"], ["y"], {})], inputs=[("x", datatype, shape)], outputs=[("y", datatype, shape)]
    ).parent


def requests(inputs: Mapping[str, Any], y: Any) -> golden.Golden:
    return golden.make(inputs, {"y": np.array(y)})


def test_a_plain_model_is_loaded_warm(write_onnx: WriteOnnx) -> None:
    servable, cost = load(KEY, doubling(write_onnx, ["N", 2]), threads=1, max_rows=8)
    assert (servable.key, servable.is_batched, servable.pipeline) == (KEY, True, None)
    assert cost.base_s >= 0
    assert cost.row_s >= 0
    assert cost.of(1) > 0


def test_cost_is_a_line() -> None:
    assert Cost(2.0, 0.5).of(4) == 4.0


def test_a_published_version_is_loaded_and_proven(write_onnx: WriteOnnx) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(
        folder, features=SPEC, baseline=fit_baseline(SPEC, TABLE), golden=requests(TABLE, [[2.0, 0.0], [4.0, 4.0]])
    )
    servable, _ = load(KEY, folder, threads=1, max_rows=8)
    assert servable.pipeline is not None
    assert servable.pipeline.columns == ("age", "port")


@pytest.mark.parametrize(
    ("shape", "datatype", "said"),
    [
        (["N", 3], "FP32", r"one input of shape \[rows, 2\] and type float32, but .*'x' is FP32 of shape \[-1, 3\]"),
        (["N", 2], "FP64", "'x' is FP64"),
        ([1, 2], "FP32", r"of shape \[1, 2\]"),
        (["N"], "FP32", r"of shape \[-1\]"),
        ([], "FP32", r"of shape \[\]"),
    ],
)
def test_features_that_do_not_fit_the_graph_are_refused(
    write_onnx: WriteOnnx, shape: list[Any], datatype: str, said: str
) -> None:
    folder = doubling(write_onnx, shape, datatype)
    artifact.write(folder, features=SPEC)
    with pytest.raises(InvalidInputError, match=said):
        load(KEY, folder, threads=1, max_rows=8)


def test_features_take_one_input(write_onnx: WriteOnnx) -> None:
    tensors = [(name, "FP32", ["N", 2]) for name in "ab"]
    folder = write_onnx([("Add", ["a", "b"], ["y"], {})], inputs=tensors, outputs=[("y", "FP32", ["N", 2])]).parent
    artifact.write(folder, features=SPEC)
    with pytest.raises(InvalidInputError, match="the model has 2 inputs"):
        load(KEY, folder, threads=1, max_rows=8)


PLAIN = {"x": np.array([[1.0, 2.0]])}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (requests(PLAIN, [[2.0, 5.0]]), "another answer than when it was published: output 'y', row 0"),
        (requests({"z": PLAIN["x"]}, [[2.0, 4.0]]), "the golden requests have no input 'x'"),
        (requests({"x": np.array([[1.0, 2.0, 3.0]])}, [[2.0, 4.0]]), "the model fails on its golden requests"),
        (requests({"x": np.array([["a", "b"]], object)}, [[2.0, 4.0]]), "the golden requests do not fit"),
    ],
)
def test_golden_requests_must_get_their_answers(write_onnx: WriteOnnx, made: golden.Golden, said: str) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(folder, golden=made)
    with pytest.raises(InvalidInputError, match=said):
        load(KEY, folder, threads=1, max_rows=8)


def test_golden_columns_of_another_shape_are_refused(write_onnx: WriteOnnx) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(folder, features=SPEC, golden=requests({**TABLE, "age": np.zeros((2, 3))}, [[2.0, 0.0], [4.0, 4.0]]))
    with pytest.raises(InvalidInputError, match="the golden requests do not fit what the version takes"):
        load(KEY, folder, threads=1, max_rows=8)


def test_a_changed_file_is_refused(write_onnx: WriteOnnx) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(folder)
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\x00")
    with pytest.raises(InvalidInputError, match=r"'?model.onnx'? has changed since it was published"):
        load(KEY, folder, threads=1, max_rows=8)


@pytest.mark.parametrize(
    ("shape", "datatype"), [([], "FP32"), ([2, 3], "INT32"), (["N", "M"], "FP64"), (["N", 2], "FP16")]
)
def test_any_form_of_input_is_warmed_up(write_onnx: WriteOnnx, shape: list[Any], datatype: str) -> None:
    _, cost = load(KEY, doubling(write_onnx, shape, datatype), threads=1, max_rows=4)
    assert cost.of(1) > 0


def test_strings_are_warmed_up(write_onnx: WriteOnnx) -> None:
    folder = write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "BYTES", ["N", 2])], outputs=[("y", "BYTES", ["N", 2])]
    ).parent
    assert load(KEY, folder, threads=1, max_rows=4)[1].of(1) > 0


def test_a_graph_that_fails_on_blank_rows_is_loaded(write_onnx: WriteOnnx) -> None:
    folder = write_onnx(
        [("Reshape", ["x", "to"], ["y"], {})],
        inputs=[("x", "FP32", ["N", 2])],
        outputs=[("y", "FP32", ["M", 3])],
        constants={"to": np.array([-1, 3])},
    ).parent
    assert load(KEY, folder, threads=1, max_rows=4)[1] == Cost(0.0, 0.0)


def test_a_pipeline_of_encoders_answers_no_rows(tmp_path: Path) -> None:
    """The graph of a OneHotEncoder fails on them."""
    pd = pytest.importorskip("pandas")
    from skl2onnx import to_onnx
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame({"age": [20.0, 30, 40, 50], "town": ["a", "b", "a", "c"]})
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["town"])])
    fitted = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1, 0, 1])
    onnx = to_onnx(fitted, frame[:1], options={"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(onnx.SerializeToString())
    servable, _ = load(KEY, tmp_path, threads=1, max_rows=8)
    outputs = servable.predict([b"", b""], 0, None, None)
    assert [(array.shape, array.dtype.str) for array in outputs.arrays] == [((0,), "<i8"), ((0, 2), "<f8")]


def test_a_warm_up_without_memory_is_no_blank_row_that_the_model_does_not_like(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that takes all memory in its first run must not pass for one that blank rows say nothing about."""

    def run(_model: OnnxModel, _feeds: Any) -> Any:
        raise ModelFailedError("the model failed on this input") from RuntimeError("Failed to allocate memory")

    monkeypatch.setattr(OnnxModel, "run", run)
    with pytest.raises(InvalidInputError, match="needs more memory for its warm-up than there is"):
        load(KEY, doubling(write_onnx, ["N", 2]), threads=1, max_rows=8)


def test_requests_that_are_not_to_be_joined_run_alone(write_onnx: WriteOnnx) -> None:
    servable, _ = load(KEY, doubling(write_onnx, ["N", 2]), threads=1, max_rows=8, batching="request")
    assert not servable.is_batched


class Device:
    """A device that has memory for so many rows, and takes so long: what sessions with `settings` for it run on."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, most_rows: int, base_s: float = 1e-4, row_s: float = 1e-7
    ) -> None:
        self.sizes: list[int] = []
        self.now_s = 0.0
        opened = OnnxModel.__init__

        def init(model: OnnxModel, path: Path, *, threads: int, settings: ExecutionSettings, **_: Any) -> None:
            opened(model, path, threads=threads)
            model.placement = Placement(("cuda",), 0, 1, is_told=True) if settings.has_device else Placement()

        def run(_: OnnxModel, feeds: Any) -> Any:
            (rows,) = feeds.values()
            self.sizes.append(len(rows))
            self.now_s += base_s + row_s * len(rows)
            if len(rows) > most_rows:
                raise ModelFailedError("the model failed on this input") from RuntimeError(
                    "Available memory of 8 is smaller than requested bytes of 16"
                )
            return [rows + rows]

        monkeypatch.setattr(OnnxModel, "__init__", init)
        monkeypatch.setattr(OnnxModel, "run", run)
        monkeypatch.setattr(loader.time, "perf_counter", lambda: self.now_s)

    def load(self, folder: Path, max_rows: int = 4096) -> tuple[Any, Cost]:
        return load(KEY, folder, threads=1, max_rows=max_rows, batching="rows", execution=ExecutionSettings(("cuda",)))


def test_a_batch_on_a_device_is_warmed_up_as_large_as_it_will_be(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, most_rows=10**6)
    servable, cost = device.load(doubling(write_onnx, ["N", 2]))
    assert servable.is_on_device
    assert max(device.sizes) == 4096, "judged by one row alone it would be 2,497"
    assert servable.most_rows is None
    assert (cost.base_s, cost.row_s) == (pytest.approx(1e-4), pytest.approx(1e-7))


def test_a_batch_on_a_device_is_as_large_as_its_memory(write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, most_rows=700)
    servable, cost = device.load(doubling(write_onnx, ["N", 2]))
    assert 350 <= servable.most_rows <= 700
    assert servable.most_rows == max(size for size in device.sizes if size <= 700)
    assert servable.batching_note == f"a batch has at most {servable.most_rows} rows, for want of device memory"
    assert cost.row_s == pytest.approx(1e-7)


def test_memory_that_is_too_little_for_larger_batches_alone_stops_the_growth(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first large batch fits, by the time of one row; the one that its own time would allow does not."""
    servable, _ = Device(monkeypatch, most_rows=2600).load(doubling(write_onnx, ["N", 2]))
    assert 2000 < servable.most_rows <= 2600


@pytest.mark.parametrize(("base_s", "row_s", "least"), [(1e-3, 1e-3, 125), (1e-2, 1e-4, 25), (0.1, 0.0, 2)])
def test_a_slow_device_gets_no_batch_that_takes_long_to_warm_up(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch, base_s: float, row_s: float, least: int
) -> None:
    device = Device(monkeypatch, most_rows=10**6, base_s=base_s, row_s=row_s)
    servable, cost = device.load(doubling(write_onnx, ["N", 2]))
    assert max(device.sizes) >= least
    assert base_s + row_s * max(device.sizes) <= 0.3
    assert device.sizes.count(max(device.sizes)) <= 3, "it is not approached in small steps"
    assert servable.most_rows is None, "nothing says that there is no memory"
    assert cost.of(32) == pytest.approx(base_s + row_s * 32)


@pytest.mark.parametrize("most_rows", [0, 1])
def test_a_device_without_memory_for_two_rows_refuses(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch, most_rows: int
) -> None:
    with pytest.raises(InvalidInputError, match="needs more memory for its warm-up than there is"):
        Device(monkeypatch, most_rows).load(doubling(write_onnx, ["N", 2]))


def test_the_file_decides_how_requests_are_batched(configured: Any) -> None:
    assert configured("max_batch_size: 4").is_batched  # proven
    alone = configured("max_batch_size: 0")
    assert (alone.is_batched, alone.batching.reason) == (False, "each request runs alone, as its publisher says")
    joined = configured("max_batch_size: 4 dynamic_batching { }")
    assert (joined.is_batched, joined.note) == (True, "")


def test_what_has_no_effect_is_noted(configured: Any) -> None:
    found = configured("instance_group { count: 2 kind: KIND_GPU }")
    assert found.note == (
        "config.pbtxt has no effect with instance_group.count: each worker has one instance, and --workers says how many "
        "workers there are; instance_group.kind KIND_GPU: it runs on the CPU, as the setting execution.providers has it"
    )


def test_an_output_has_the_dims_that_the_file_declares(configured: Any) -> None:
    declared = "max_batch_size: 4 output {{ name: 'y' dims: {} }}"
    assert configured(declared.format(2), is_told=False).outputs[0].shape == (-1, 2)
    with pytest.raises(InvalidInputError, match=r"output 'y' has dims \[3\], and a row of it \[2\]"):
        configured(declared.format(3), is_told=False)


def test_a_version_runs_as_its_manifest_says(write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(folder, threads=3, graph_optimization="basic")
    opened: list[dict[str, Any]] = []
    real = loader.OnnxModel
    monkeypatch.setattr(loader, "OnnxModel", lambda path, **how: opened.append(how) or real(path, **how))
    servable, _ = load(KEY, folder, threads=None, max_rows=8)
    assert isinstance(servable, OnnxServable)
    assert servable.kernels.choice.reason.endswith("it runs in 3 threads")
    load(KEY, folder, threads=1, max_rows=8)  # as the settings say
    assert [(how["threads"], how["graph_optimization"]) for how in opened] == [(3, "basic"), (1, "basic")]


@pytest.mark.parametrize(
    ("batching", "is_slow", "asked"), [(None, True, [64]), (None, False, []), ("request", True, [])]
)
def test_a_device_that_is_slow_at_new_sizes_gets_few_of_them(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch, batching: Any, is_slow: bool, asked: list[int]
) -> None:
    Device(monkeypatch, 100)
    got: list[int] = []
    monkeypatch.setattr(loader.sized_batches, "is_slow_at_changes", lambda run: run(2) is not None and is_slow)

    def run_in_sizes(_: OnnxModel, feeds_of: Any, most: int) -> tuple[int, ...]:
        assert feeds_of(3)["x"].shape == (3, 2)
        got.append(most)
        return (1, 4)

    monkeypatch.setattr(OnnxModel, "run_in_sizes", run_in_sizes)
    folder, execution = doubling(write_onnx, ["N", 2]), ExecutionSettings(("cuda",))
    load(KEY, folder, threads=1, max_rows=64, batching=batching, execution=execution)
    assert got == asked
