from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.tensors import join_bytes
from penstock_server.errors import InvalidInputError
from penstock_server.models.artifact import Artifact, read
from penstock_server.models.ensemble_servable import EnsembleServable, bound_steps
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable

HEAD = '[inputs.x]\ndatatype = "FP32"\nshape = [-1, 2]\n[outputs.y]\ndatatype = "FP32"\nshape = [-1, 2]\n'
KINDS = '[[steps]]\nmodel = "kinds"\ninputs = { x = "x" }\noutputs = { kind = "kind" }\n'


@pytest.fixture(scope="module")
def models(write_onnx: Callable[..., Path]) -> dict[str, OnnxServable]:
    """Small graphs: `y = -x`, `y = |x|`, whether a row's first number is above 0, texts as they are."""
    rows = [("x", "FP32", ["N", 2])]

    def servable(
        name: str, nodes: Any, inputs: Any = rows, outputs: Any = (("y", "FP32", ["N", 2]),), **constants: Any
    ) -> OnnxServable:
        path = write_onnx(nodes, inputs=inputs, outputs=list(outputs), constants=constants)
        return OnnxServable((name, "1"), Artifact(path.parent, path), OnnxModel(path), None)

    first = [
        ("Gather", ["x", "first"], ["f"], {"axis": 1}),
        ("Greater", ["f", "zero"], ["g"], {}),
        ("Cast", ["g"], ["kind"], {"to": 7}),
    ]
    text = [("t", "BYTES", ["N", 1])]
    return {
        "neg": servable("neg", [("Neg", ["x"], ["y"], {})]),
        "abs": servable("abs", [("Abs", ["x"], ["y"], {})]),
        "kinds": servable(
            "kinds", first, outputs=[("kind", "INT64", ["N"])], first=np.array(0), zero=np.zeros(1, np.float32)
        ),
        "texts": servable("texts", [("Identity", ["t"], ["y"], {})], text, [("y", "BYTES", ["N", 1])]),
        "whole": servable(
            "whole", [("Neg", ["x"], ["y"], {})], [("x", "FP32", ["N", "M"])], [("y", "FP32", ["N", "M"])]
        ),
    }


def bind(models: dict[str, OnnxServable], folder: Path, text: str) -> EnsembleServable:
    (folder / "1").mkdir(exist_ok=True)
    (folder / "1" / "pipeline.toml").write_text(text)
    artifact = read(folder / "1")
    assert artifact.ensemble is not None
    steps = bound_steps(artifact.ensemble, lambda model, _: models[model])
    counters = np.zeros((len(steps), 3), np.int64)
    made = EnsembleServable(("e", "1"), artifact, artifact.ensemble, steps, counters)
    made.counted = counters  # type: ignore[method-assign, assignment]
    return made


def model_step(model: str, gives: str = "y", reads: str = "x", own: str = "x", **more: str) -> str:
    lines = [f"{name} = {value}" for name, value in more.items()]
    return "\n".join(
        [
            "[[steps]]",
            f'model = "{model}"',
            f'inputs = {{ {own} = "{reads}" }}',
            f'outputs = {{ y = "{gives}" }}',
            *lines,
            "",
        ]
    )


ROWS = arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(2)), elements=st.floats(-9, 9, width=32))


@given(rows=ROWS)
def test_each_row_goes_through_the_branch_of_its_class(
    models: dict[str, OnnxServable], tmp_path_factory: pytest.TempPathFactory, rows: Any
) -> None:
    text = HEAD + KINDS + model_step("neg", when="{ kind = 1 }") + model_step("abs", when="{ kind = 0 }")
    servable = bind(models, tmp_path_factory.mktemp("e"), text)
    outputs = servable.predict([rows.tobytes()], len(rows), None, None).arrays
    is_one = rows[:, :1] > 0
    np.testing.assert_array_equal(outputs[0], np.where(is_one, -rows, np.abs(rows)))
    counted: Any = servable.counted
    ones = int(is_one.sum())
    assert counted[:, 1].tolist() == [len(rows), ones, len(rows) - ones]
    assert counted[:, 0].tolist() == [int(bool(rows)) for rows in (len(rows), ones, len(rows) - ones)]


@given(rows=ROWS)
def test_a_later_step_replaces_the_rows_that_it_runs_for(
    models: dict[str, OnnxServable], tmp_path_factory: pytest.TempPathFactory, rows: Any
) -> None:
    text = HEAD + KINDS + model_step("abs") + model_step("neg", when="{ kind = 1 }")
    servable = bind(models, tmp_path_factory.mktemp("e"), text)
    (found,) = servable.predict([rows.tobytes()], len(rows), None, None).arrays
    np.testing.assert_array_equal(found, np.where(rows[:, :1] > 0, -rows, np.abs(rows)))


def test_rows_that_no_step_runs_for_have_no_number(models: dict[str, OnnxServable], tmp_path: Path) -> None:
    servable = bind(models, tmp_path, HEAD + KINDS + model_step("neg", when="{ kind = 7 }"))
    (found,) = servable.predict([np.ones((2, 2), np.float32).tobytes()], 2, None, None).arrays
    assert found.shape[0] == 2
    assert np.isnan(found).all()


def test_it_varies_where_a_step_of_it_does(
    models: dict[str, OnnxServable], tmp_path: Path, write_onnx: Callable[..., Path]
) -> None:
    path = write_onnx(
        [("RandomNormalLike", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["N", 2])]
    )
    noise = OnnxServable(("noise", "1"), Artifact(path.parent, path), OnnxModel(path), None)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    steady = bind(models, tmp_path / "one", HEAD + model_step("neg"))
    varying = bind(models | {"noise": noise}, tmp_path / "two", HEAD + model_step("neg", "z") + model_step("noise"))
    assert steady.varies == ""
    assert varying.varies == "of its model 'noise', its graph draws random numbers (RandomNormalLike)"


def test_means_have_weights(models: dict[str, OnnxServable], tmp_path: Path) -> None:
    text = (
        HEAD
        + model_step("neg", "a")
        + model_step("abs", "b")
        + '[[steps]]\nmean = ["a", "b"]\nweights = [1, 3]\noutput = "y"\n'
    )
    (found,) = bind(models, tmp_path, text).predict([np.full((1, 2), 2, np.float32).tobytes()], 1, None, None).arrays
    assert (found.dtype, found.tolist()) == (np.float32, [[1.0, 1.0]])


def test_texts_choose_and_pass(models: dict[str, OnnxServable], tmp_path: Path) -> None:
    head = '[inputs.x]\ndatatype = "BYTES"\nshape = [-1, 1]\n[outputs.y]\ndatatype = "BYTES"\nshape = [-1, 1]\n'
    servable = bind(models, tmp_path, head + model_step("texts", own="t", when='{ x = "é" }'))
    (found,) = servable.predict([join_bytes(["é", "a"])], 2, None, None).arrays
    assert found.tolist() == [["é"], [""]]


def test_requests_share_batches_if_those_of_all_models_do(models: dict[str, OnnxServable], tmp_path: Path) -> None:
    assert bind(models, tmp_path, HEAD + model_step("neg")).is_batched
    alone = bind(models, tmp_path, HEAD + model_step("whole"))
    assert alone.batching is not None
    assert alone.batching.reason == "each request runs alone: model 'whole' runs each request alone"
    rows = np.ones((3, 2), np.float32)
    (found,) = alone.predict([rows.tobytes()], 3, [(3, 2)], None).arrays
    np.testing.assert_array_equal(found, -rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            HEAD.replace("[-1, 2]", "[-1, 3]") + model_step("neg"),
            r"step 'neg': tensor 'x' is FP32 of shape \[-1, 3\], input 'x'",
        ),
        (HEAD + model_step("neg", own="z"), "step 'neg': model 'neg' has no input 'z'; it takes 'x'"),
        (
            HEAD + model_step("texts", own="t"),
            r"step 'texts': tensor 'x' is FP32 .* input 't' of model 'texts' is BYTES",
        ),
        (HEAD + KINDS + model_step("neg", "y", "kind"), r"step 'neg': tensor 'kind' is INT64 of shape \[-1\]"),
        (HEAD + model_step("neg").replace("{ y =", "{ z ="), "step 'neg': model 'neg' has no output 'z'; it has 'y'"),
        (HEAD.replace("FP32", "FP64") + model_step("neg"), "step 'neg': tensor 'x' is FP64"),
        (HEAD + KINDS + model_step("neg", when='{ kind = "a" }'), "runs when 'kind' is 'a', and that is INT64"),
        (HEAD + model_step("neg", when="{ x = 1 }"), r"runs when 'x' is 1, and that is FP32 of shape \[-1, 2\]"),
        (HEAD + KINDS + model_step("whole", when="{ kind = 1 }"), "model 'whole' runs each request whole"),
        (
            HEAD + KINDS + '[[steps]]\nmean = ["kind"]\noutput = "y"\n',
            "tensor 'kind' is INT64, expected floating-point numbers to average",
        ),
        (HEAD + KINDS + '[[steps]]\nmean = ["x", "kind"]\noutput = "y"\n', "tensor 'kind' is INT64 .* 'x' is FP32"),
        (HEAD + KINDS.replace('"kind"', '"y"').replace("kind =", "kind ="), "output 'y' is INT64 of shape"),
    ],
)
def test_what_does_not_fit_is_said(models: dict[str, OnnxServable], tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        bind(models, tmp_path, text)


def test_an_ensemble_is_no_step(models: dict[str, OnnxServable], tmp_path: Path) -> None:
    inner: Any = bind(models, tmp_path, HEAD + model_step("neg"))
    with pytest.raises(InvalidInputError, match="model 'inner' is an ensemble itself, which cannot be a step"):
        bind({"inner": inner}, tmp_path, HEAD + model_step("inner"))
