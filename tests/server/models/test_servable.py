import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.tensors import join_bytes
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.reference import reference_of
from penstock_server.errors import ModelFailedError
from penstock_server.features.counting import counts_of
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Fill, OneHot
from penstock_server.models.artifact import Artifact
from penstock_server.models.manifest import Manifest
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable

WriteOnnx = Callable[..., Path]
PORT = Text("port", Categories(("s", "q")), (OneHot(((0, 1, 2),), (3,)),))
SPEC = FeatureSpec((NumberColumn("age"), StringColumn("port")), Join((Take(("age",), (Fill((7.0,)),)), PORT)))


def servable_of(path: Path, pipeline: Pipeline | None = None) -> OnnxServable:
    return OnnxServable(("m", "1"), Artifact(path.parent, path), OnnxModel(path), pipeline)


@pytest.fixture(scope="module")
def doubling(write_onnx: WriteOnnx) -> Path:
    return write_onnx(
        [("Add", ["x", "x"], ["y"], {})], inputs=[("x", "FP32", ["N", 4])], outputs=[("y", "FP32", ["N", 4])]
    )


def test_a_graph_alone_takes_rows(doubling: Path) -> None:
    servable = servable_of(doubling)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    outputs = servable.predict([rows.tobytes()], 2, None, None)
    np.testing.assert_array_equal(outputs.arrays[0], rows * 2)
    assert outputs.features_s == 0
    assert outputs.infer_s > 0
    assert servable.is_batched
    assert [spec.name for spec in servable.outputs] == ["y"]


@pytest.mark.parametrize(
    ("classes", "labels"), [(None, ()), (("a", "b", "c"), ()), ((1, 2, 3, 4), ("1", "2", "3", "4"))]
)
def test_an_output_with_a_number_for_each_class_has_their_names(
    doubling: Path, classes: Any, labels: tuple[str, ...]
) -> None:
    manifest = Manifest(files={}, created=datetime.now(UTC), classes=classes)
    artifact = Artifact(doubling.parent, doubling, manifest=manifest)
    (output,) = OnnxServable(("m", "1"), artifact, OnnxModel(doubling), None).outputs
    assert output.labels == labels


def test_a_graph_that_runs_requests_alone_takes_their_shapes(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N", "M"])], outputs=[("y", "FP32", ["N", "M"])]
    )
    outputs = servable_of(path).predict([bytes(24)], 2, [(2, 3)], None)
    assert outputs.arrays[0].shape == (2, 3)


@pytest.mark.parametrize("is_learned", [False, True])
def test_no_rows_are_answered_with_none_without_the_graph(write_onnx: WriteOnnx, is_learned: bool) -> None:
    path = write_onnx(
        [
            ("Gather", ["x", "zero"], ["first"], {}),
            ("NonZero", ["wide"], ["at"], {}),
            ("Squeeze", ["at"], ["flat"], {}),
            ("Add", ["flat", "plus"], ["shape"], {}),
            ("Reshape", ["x", "shape"], ["y"], {}),
            ("Cast", ["x"], ["t"], {"to": 8}),
            ("Identity", ["x"], ["z"], {}),
        ],
        inputs=[("x", "FP32", ["N", 4])],
        outputs=[("y", "FP32", ["N", "M"]), ("t", "BYTES", ["N", 4]), ("z", "FP32", ["N", 4])],
        constants={"zero": np.array([0]), "wide": np.array([1, 1]), "plus": np.array([-1, 3])},
    )
    servable = servable_of(path)
    if is_learned:
        servable.learn_shapes(servable.predict([bytes(16)], 1, None, None))
    outputs = servable.predict([b""], 0, None, None)
    assert [(array.shape, array.dtype.str) for array in outputs.arrays] == [
        ((0, 4 if is_learned else 0), "<f4"),
        ((0, 4), "|O"),
        ((0, 4), "<f4"),
    ]


def test_a_graph_that_runs_alone_is_asked_about_no_rows_first(write_onnx: WriteOnnx) -> None:
    takes = [("x", "FP32", ["N", "M"])]
    echo = write_onnx([("Identity", ["x"], ["y"], {})], inputs=takes, outputs=[("y", "FP32", ["N", "M"])])
    assert servable_of(echo).predict([b""], 0, [(0, 3)], None).arrays[0].shape == (0, 3)
    first = ("Gather", ["x", "zero"], ["first"], {})
    zero = {"zero": np.array([0])}
    more = write_onnx(
        [first, ("Concat", ["x", "first"], ["y"], {"axis": 0})],
        inputs=takes, outputs=[("y", "FP32", ["K", "M"])], constants=zero,
    )  # fmt: skip
    assert servable_of(more).predict([b""], 0, [(0, 3)], None).arrays[0].shape == (0, 0)
    only = write_onnx([first], inputs=takes, outputs=[("first", "FP32", [1, "M"])], constants=zero)
    with pytest.raises(ModelFailedError):
        servable_of(only).predict([b""], 0, [(0, 3)], None)


def test_features_come_before_the_graph_and_are_counted(doubling: Path) -> None:
    table = {"age": np.array([1.0, np.nan, 3.0]), "port": np.array(["q", "s", "x"], object)}
    baseline = fit_baseline(SPEC, table)
    servable = servable_of(doubling, Pipeline(SPEC, baseline.cells_for(SPEC)))
    cells = np.zeros(baseline.cells_shape, np.int64)
    blocks = [table["age"].astype("<f8").tobytes(), join_bytes(table["port"])]
    outputs = servable.predict(blocks, 3, None, cells)
    expected = np.array([[1, 0, 1, 0], [7, 1, 0, 0], [3, 0, 0, 1]]) * 2
    np.testing.assert_array_equal(outputs.arrays[0], expected)
    np.testing.assert_array_equal(counts_of(cells).cells, reference_of(baseline).cells)
    assert outputs.features_s > 0


def test_of_a_large_batch_as_many_rows_are_counted_as_it_says(doubling: Path) -> None:
    rows = 1100
    table = {"age": np.arange(float(rows)), "port": np.array(["q"] * rows, object)}
    baseline = fit_baseline(SPEC, table)
    servable = servable_of(doubling, Pipeline(SPEC, baseline.cells_for(SPEC)))
    cells = np.zeros(baseline.cells_shape, np.int64)
    outputs = servable.predict([table["age"].tobytes(), join_bytes(table["port"])], rows, None, cells)
    assert counts_of(cells).rows.tolist() == [servable.counted_rows(rows)] * 2 == [275, 275]
    np.testing.assert_array_equal(outputs.arrays[0][:, 0], 2 * table["age"])
    assert servable_of(doubling).counted_rows(rows) == rows


@pytest.mark.parametrize("rows", [0, 3])
def test_rows_are_counted_alike_where_the_graph_does_not_run(doubling: Path, rows: int) -> None:
    table = {"age": np.arange(float(max(1, rows))), "port": np.array(["q"] * max(1, rows), object)}
    baseline = fit_baseline(SPEC, table)
    servable = servable_of(doubling, Pipeline(SPEC, baseline.cells_for(SPEC)))
    ran, counted = np.zeros((2, *baseline.cells_shape), np.int64)
    blocks = [table["age"][:rows].tobytes(), join_bytes(table["port"][:rows])]
    servable.predict(blocks, rows, None, ran)
    servable.count(blocks, rows, counted)
    np.testing.assert_array_equal(ran, counted)
    assert ran.any() == (rows > 0)
    servable_of(doubling).count(blocks, rows, counted)  # counts nothing
    np.testing.assert_array_equal(ran, counted)


def test_a_graph_that_raises_is_a_failed_model(doubling: Path) -> None:
    with pytest.raises(ModelFailedError):
        servable_of(doubling).predict([bytes(24)], 2, [(2, 3)], None)


def test_a_run_shows_when_it_began_on_each_thread_and_nothing_afterwards(doubling: Path) -> None:
    servable = servable_of(doubling)
    cells = [0, 0]
    servable.report_runs(cells)
    seen: list[list[int]] = []
    other_runs, other_goes_on = threading.Event(), threading.Event()
    run = servable.model.run

    def watched(feeds: dict[str, Any]) -> Any:
        seen.append(list(cells))
        if threading.current_thread() is other:
            other_runs.set()
            assert other_goes_on.wait(10)
        return run(feeds)

    servable.model.run = watched  # type: ignore[method-assign]
    blocks = [bytes(16)]
    other = threading.Thread(target=servable.predict, args=(blocks, 1, None, None))
    before_ns = time.monotonic_ns()
    other.start()
    assert other_runs.wait(10)
    servable.predict(blocks, 1, None, None)
    first, second = seen
    assert before_ns <= first[0] == second[0] <= second[1] <= time.monotonic_ns()
    assert cells == [first[0], 0]  # the other still runs
    other_goes_on.set()
    other.join()
    assert cells == [0, 0]


def test_a_run_that_fails_is_over_too(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [("Reshape", ["x", "shape"], ["y"], {})],
        inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["M", 3])],
        constants={"shape": np.array([-1, 3], np.int64)},
    )  # fmt: skip
    servable, cells = servable_of(path), [0]
    servable.report_runs(cells)
    with pytest.raises(ModelFailedError):
        servable.predict([bytes(8)], 1, None, None)
    assert cells == [0]
