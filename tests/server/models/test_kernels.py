"""Which graphs run as kernels, and why the others do not: said of whole versions, as the loader has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from penstock_server.compiled_models import choice, proof
from penstock_server.compiled_models.compiled_model import CompiledModel
from penstock_server.compiled_models.kernel_set import KERNELS
from penstock_server.kernels import compiled
from penstock_server.models import kernels
from penstock_server.models.execution import ExecutionSettings, Placement
from penstock_server.models.kernels import ModelKernels, kernels_of
from penstock_server.models.loader import load
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.signature import GivenTensor
from tests.server.compiled_models.graphs import TREES_OF_TWO, model_of, node, regressor, rows_for, session

WriteOnnx = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    compiled.ensure_compiled(KERNELS)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(regressor())
    return tmp_path


def always(*_: Any) -> choice.Choice:
    return choice.Choice((True,) * 4, "kernels")


def loaded(version: Path, **options: Any) -> Any:
    return load(("m", "1"), version, threads=options.pop("threads", 1), max_rows=64, **options)[0]


def test_a_version_is_served_by_kernels_as_onnxruntime_would(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "fastest", always)
    ours, theirs = loaded(version), loaded(version, compiled_models=False)
    assert ours.engine == "kernels"
    assert theirs.engine == "onnxruntime: the settings say serving.compiled_models = false"
    monkeypatch.setattr(ours.model, "run", None)  # nothing of onnxruntime's is called
    for rows in (1, 7, 40):
        block = rows_for(2, rows).tobytes()
        (found,), (expected,) = (each.predict([block], rows, None, None).arrays for each in (ours, theirs))
        assert proof.is_same(expected, found)


def test_a_block_of_another_size_never_reaches_kernels(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "fastest", always)
    found = loaded(version).kernels
    assert found.of_block(bytes(16), 2) is not None
    for block, rows in ((bytes(15), 2), (bytes(24), 2), (b"", 1), (bytes(16), 1 << 61)):
        assert found.of_block(block, rows) is None
    assert found.of_block(memoryview(bytes(16)), 2) is None


def test_a_program_that_answers_otherwise_is_refused(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = CompiledModel.run

    def wrong(self: CompiledModel, matrix: Any, rows: int) -> Any:
        (answer,) = run(self, matrix, rows)
        return [np.nextafter(answer, np.float32(np.inf))]

    monkeypatch.setattr(CompiledModel, "run", wrong)
    servable = loaded(version)
    assert servable.engine == "onnxruntime: the kernels answer otherwise than onnxruntime on random rows"
    (found,) = servable.predict([np.zeros(2, np.float32).tobytes()], 1, None, None).arrays
    assert found.tolist() == [[pytest.approx(-0.3 + 0.7)]]


def test_golden_rows_are_part_of_the_proof(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def difference(*arguments: Any) -> str:
        given.append(arguments[-1])
        return "no"

    monkeypatch.setattr(proof, "difference", difference)
    model = OnnxModel(version / "model.onnx")
    golden = np.ones((3, 2), np.float32)
    assert kernels_of(model, version / "model.onnx", golden, threads=1).choice.reason == "onnxruntime: no"
    assert given == [golden] or given[0] is golden


@pytest.mark.parametrize(
    ("nodes", "takes", "reason"),
    [
        ([("Identity", ["x"], ["y"], {})], [("x", "INT64", ["N", 2])], "matrix of floating-point numbers"),
        ([("Identity", ["x"], ["y"], {})], [("x", "FP32", ["N"])], "matrix of floating-point numbers"),
        ([("Identity", ["x"], ["y"], {})], [("x", "FP32", ["N", "M"])], "its rows are not batched"),
        (
            [("Add", ["x", "z"], ["y"], {})],
            [("x", "FP32", ["N", 2]), ("z", "FP32", ["N", 2])],
            "takes more than a matrix",
        ),
        ([("Tanh", ["x"], ["y"], {})], [("x", "FP32", ["N", 2])], "the operator Tanh is not compiled"),
    ],
)
def test_graphs_that_are_left_to_onnxruntime(write_onnx: WriteOnnx, nodes: Any, takes: Any, reason: str) -> None:
    path = write_onnx(nodes, inputs=takes, outputs=[("y", takes[0][1], takes[0][2])])
    found = kernels_of(OnnxModel(path), path, None, threads=1)
    assert reason in found.choice.reason
    assert found.of_block(bytes(8), 1) is None
    assert found.of_matrix(np.zeros((1, 2), np.float32)) is None


def test_several_threads_add_up_otherwise(version: Path) -> None:
    assert loaded(version, threads=2).engine == "onnxruntime: it runs in 2 threads"


def test_kernels_that_are_not_compiled_are_not_waited_for(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.compiled, "available", lambda _: None)
    assert loaded(version).engine == "onnxruntime: the kernels of models are not compiled yet"


def test_whatever_fails_is_left_to_onnxruntime(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(kernels, "compile_graph", fail)
    assert loaded(version).engine == "onnxruntime: its graph could not be compiled: MemoryError"


def test_a_hostile_graph_is_left_to_onnxruntime_which_refuses_it(tmp_path: Path) -> None:
    """A tree that leads back to its root: kernels take it as little as onnxruntime does."""
    circle = {**TREES_OF_TWO, "nodes_truenodeids": [1, 0, 0, 0, 0, 1, 0, 0]}
    path = tmp_path / "model.onnx"
    path.write_bytes(regressor())
    model = OnnxModel(path)
    path.write_bytes(regressor(circle))
    found = kernels_of(model, path, None, threads=1)
    assert "lead back to where they were" in found.choice.reason


def test_nothing_is_taken_without_kernels() -> None:
    assert ModelKernels(choice.none("why")).of_block(bytes(8), 1) is None


def test_what_another_process_has_proven_is_taken_on_trust(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "fastest", always)
    first = loaded(version).kernels.choice
    assert first.proven_with
    monkeypatch.setattr(proof, "difference", None)  # nothing is proven or timed again
    monkeypatch.setattr(choice, "fastest", None)
    again = loaded(version, proven=first)
    assert again.kernels.choice == first
    assert again.engine == "kernels"
    block = rows_for(2, 3).tobytes()
    assert again.kernels.of_block(block, 3) is not None


def test_what_other_kernels_have_proven_is_proven_again(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proven = choice.Choice((True,) * 4, "kernels", "of another machine")
    monkeypatch.setattr(proof, "difference", lambda *_: "they differ")
    assert loaded(version, proven=proven).engine == "onnxruntime: they differ"


def test_that_kernels_differ_is_taken_on_trust_too(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "difference", lambda *_: "they differ")
    first = loaded(version).kernels.choice
    monkeypatch.setattr(proof, "difference", lambda *_: "")
    assert loaded(version, proven=first).engine == "onnxruntime: they differ"


def on_device(monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...] = ("cuda",)) -> list[Any]:
    """Sessions that settings give a device say that they run there, and add up otherwise; the rows that they are asked."""
    opened, ran = kernels.OnnxModel.__init__, kernels.OnnxModel.run
    asked: list[Any] = []

    def init(self: OnnxModel, path: Path, **given: Any) -> None:
        settings = given.pop("settings", ExecutionSettings())
        opened(self, path, **given)
        if settings.has_device:
            self.placement = Placement(devices, 0, 1, is_told=True)

    def run(self: OnnxModel, feeds: Any) -> Any:
        outputs = ran(self, feeds)
        if not self.placement.devices:
            return outputs
        asked.append(len(next(iter(feeds.values()))))
        return [np.nextafter(each, np.float32(np.inf)) for each in outputs]

    monkeypatch.setattr(OnnxModel, "__init__", init)
    monkeypatch.setattr(OnnxModel, "run", run)
    return asked


def test_kernels_beside_a_device_are_proven_on_the_cpu_and_timed_against_the_device(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = on_device(monkeypatch)
    timed: list[Any] = []

    def fastest(about: str, ours_s: Any, theirs_s: Any) -> choice.Choice:
        timed.append(set(asked))
        return choice.Choice((True, True, True, False), "kernels up to 256 rows: fast")

    monkeypatch.setattr(choice, "fastest", fastest)
    servable = loaded(version, execution=ExecutionSettings(("cuda", "cpu")))
    assert timed == [set(choice.SIZES)], "the device's answers are no part of the proof"
    assert servable.engine == "kernels up to 256 rows, else onnxruntime on cuda: fast"
    assert servable.is_on_device
    assert servable.kernels.choice.proven_with.endswith(" cuda")


def test_a_version_that_kernels_serve_altogether_waits_for_no_device(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_device(monkeypatch)
    monkeypatch.setattr(choice, "fastest", always)
    servable = loaded(version, execution=ExecutionSettings(("cuda", "cpu")))
    assert (servable.engine, servable.is_on_device) == ("kernels", False)


def test_kernels_do_not_run_what_must_run_on_a_device(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_device(monkeypatch)
    monkeypatch.setattr(choice, "fastest", always)
    servable = loaded(version, execution=ExecutionSettings(("cuda",)))
    assert servable.engine == "onnxruntime on cuda: the settings do not list cpu in execution.providers"
    assert servable.is_on_device


@pytest.mark.parametrize(("tried", "found"), [((), ("cuda",)), (("cuda",), ()), (("cuda",), ("tensorrt", "cuda"))])
def test_what_was_found_beside_another_device_is_found_again(
    version: Path, monkeypatch: pytest.MonkeyPatch, tried: tuple[str, ...], found: tuple[str, ...]
) -> None:
    settings = ExecutionSettings(("tensorrt", "cuda", "cpu"))
    monkeypatch.setattr(choice, "fastest", always)
    with monkeypatch.context() as trial:
        on_device(trial, tried)
        proven = loaded(version, execution=settings).kernels.choice
    on_device(monkeypatch, found)
    assert loaded(version, execution=settings, proven=proven).kernels.choice != proven
    on_device(monkeypatch, tried)
    monkeypatch.setattr(choice, "fastest", None)
    assert loaded(version, execution=settings, proven=proven).kernels.choice == proven


def test_kernels_answer_with_defaults_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Add", ["x", "shift"], ["moved"]), *onnx.load_from_string(regressor()).graph.node]
    nodes[1].input[0] = "moved"
    model = onnx.load_from_string(model_of(nodes, ["y"], constants={"shift": np.array([0.5], np.float32)}))
    model.graph.input.append(onnx.helper.make_tensor_value_info("shift", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.setattr(choice, "fastest", always)
    version = loaded(tmp_path)
    assert version.engine == "kernels"
    rows = rows_for(2, 50)

    def answers(*given: GivenTensor) -> Any:
        return version.predict([rows.tobytes()], 50, None, None, given).arrays[0]

    def expected(shift: float) -> Any:
        return session(regressor()).run(None, {"x": rows + np.float32(shift)})[0]

    np.testing.assert_array_equal(answers(), expected(0.5))
    np.testing.assert_array_equal(
        answers(GivenTensor("shift", np.array([-1], np.float32).tobytes(), (1,))), expected(-1)
    )
    assert not np.array_equal(expected(0.5), expected(-1))
