"""Programs against onnxruntime, to the last bit, in batches of all sorts of sizes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.compiled_models import compiled_model
from penstock_server.compiled_models.compiled_model import CompiledModel
from penstock_server.compiled_models.proof import is_same
from penstock_server.errors import UnavailableError
from tests.examples import examples
from tests.server.compiled_models.graphs import (
    ML,
    compiled,
    ensembles,
    knows_positive_votes,
    model_of,
    node,
    regressor,
    rows_for,
    session,
)

SIZES = (1, 2, 3, 15, 16, 17, 35)


def assert_equal(content: bytes, columns: int, dtype: Any = np.float32, name: str = "x") -> None:
    program = compiled(content, columns=columns, dtype=dtype, name=name)
    ours, theirs = CompiledModel(program), session(content)
    for seed, size in enumerate(SIZES):
        for rows in (
            rows_for(columns, size, dtype, seed=seed),
            np.random.default_rng(seed).normal(size=(size, columns)),
        ):
            given_rows = np.ascontiguousarray(rows, dtype)
            expected = theirs.run(None, {name: given_rows})
            found = ours.run(given_rows.tobytes(), size)
            assert all(map(is_same, expected, found)), (size, expected, found)


@pytest.mark.long
@given(ensembles(), st.sampled_from([np.float32, np.float64]))
@examples(60)
def test_random_trees(attributes: dict[str, Any], dtype: Any) -> None:
    assert_equal(regressor(attributes, columns=3, dtype=dtype), 3, dtype)


@given(
    ensembles(),
    st.sampled_from(["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
@examples(60)
def test_random_classifiers(
    attributes: dict[str, Any], transform: str, bases: int, has_texts: bool, dtype: Any
) -> None:
    outputs = max(2, attributes.pop("n_targets"))
    attributes.pop("base_values", None)
    attributes.pop("aggregate_function", None)
    votes = {name.replace("target_", "class_"): attributes.pop(name) for name in tuple(attributes) if "target_" in name}
    # Each row has a score for every class, as in all fitted classifiers; in two classes also for the first alone.
    if outputs > 2:
        for output in range(outputs):
            votes["class_treeids"] += [100 + output]
            votes["class_nodeids"] += [0]
            votes["class_ids"] += [output]
            votes["class_weights"] += [0.25]
            for key, value in (("treeids", 100 + output), ("nodeids", 0), ("featureids", 0), ("values", 0.0)):
                attributes[f"nodes_{key}"].append(value)
            attributes["nodes_modes"].append("LEAF")
            attributes["nodes_truenodeids"].append(0)
            attributes["nodes_falsenodeids"].append(0)
        if "nodes_missing_value_tracks_true" in attributes:
            attributes["nodes_missing_value_tracks_true"] += [0] * outputs
    else:
        votes["class_ids"] = [0] * len(votes["class_ids"])
        keys = list(zip(votes["class_treeids"], votes["class_nodeids"], strict=True))
        first = [at for at, key in enumerate(keys) if key not in keys[:at]]
        votes = {name: [values[at] for at in first] for name, values in votes.items()}
        if not knows_positive_votes():
            votes["class_weights"][0] = -1.0
    labels = (
        {"classlabels_strings": [f"é{at}" for at in range(outputs)]}
        if has_texts
        else {"classlabels_int64s": [3 * at - 1 for at in range(outputs)]}
    )
    if bases and (outputs == 2 or bases == 2):
        attributes["base_values"] = [0.5 * at for at in range(bases if outputs == 2 else outputs)]
    trees = node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "p"],
        domain=ML,
        post_transform=transform,
        **attributes,
        **votes,
        **labels,
    )
    gives = {"label": 8 if has_texts else 7}
    assert_equal(model_of([trees], ["label", "p"], columns=3, dtype=dtype, gives=gives), 3, dtype)


CASES: dict[str, tuple[list[Any], list[str], dict[str, Any]]] = {
    "scaled": ([node("Scaler", ["x"], ["y"], domain=ML, offset=[0.5, -1.0], scale=[2.0, 0.1])], ["y"], {}),
    "scaled alike": ([node("Scaler", ["x"], ["y"], domain=ML, offset=[0.5], scale=[2.0])], ["y"], {}),
    **{f"norm {norm}": ([node("Normalizer", ["x"], ["y"], domain=ML, norm=norm)], ["y"], {}) for norm in ("MAX", "L1", "L2")},
    "sigmoid": ([node("Sigmoid", ["x"], ["y"])], ["y"], {}),
    "relu": ([node("Relu", ["x"], ["y"])], ["y"], {}),
    "softmax": ([node("Softmax", ["x"], ["y"], axis=1)], ["y"], {}),
    "places": ([node("ArgMax", ["x"], ["y"], axis=1, keepdims=0, select_last_index=1)], ["y"], {"y": 7}),
    "arithmetic": (
        [
            node("Mul", ["x", "pair"], ["a"]),
            node("Sub", ["one", "a"], ["b"]),
            node("Div", ["b", "x"], ["c"]),
            node("Add", ["c", "a"], ["d"]),
            node("ArrayFeatureExtractor", ["d", "first"], ["e"], domain=ML),
            node("Mul", ["e", "d"], ["f"]),
            node("Concat", ["f", "a", "x"], ["y"], axis=1),
        ],
        ["y"],
        {},
    ),
    "columns": (
        [
            node("ArrayFeatureExtractor", ["x", "turned"], ["a"], domain=ML),
            node("Cast", ["a"], ["b"], to=11),
            node("Cast", ["b"], ["y"], to=1),
        ],
        ["y"],
        {},
    ),
    "labels": (
        [
            node("ArgMax", ["x"], ["a"], axis=1, keepdims=1),
            node("ArrayFeatureExtractor", ["numbers", "a"], ["b"], domain=ML),
            node("Reshape", ["b", "flat"], ["c"]),
            node("Cast", ["c"], ["y"], to=7),
            node("ArgMax", ["x"], ["d"], axis=1, keepdims=0),
            node("Gather", ["texts", "d"], ["z"], axis=0),
        ],
        ["y", "z"],
        {"y": 7, "z": 8},
    ),
    "linear": (
        [node("LinearClassifier", ["x"], ["y", "z"], domain=ML, coefficients=[0.1, 0.2, -3.0, 4.0, 5.0, 0.3],
              intercepts=[0.1, 0.0, -2.0], classlabels_ints=[4, 5, 6], post_transform="SOFTMAX")],
        ["y", "z"],
        {"y": 7},
    ),
    "linear logistic": (
        [node("LinearClassifier", ["x"], ["y", "z"], domain=ML, coefficients=[0.1, 0.2, -0.1, -0.2],
              intercepts=[0.1, -0.1], classlabels_strings=["a", "b"], post_transform="LOGISTIC")],
        ["y", "z"],
        {"y": 8},
    ),
    "regression": ([node("LinearRegressor", ["x"], ["y"], domain=ML, coefficients=[0.1, 0.2], intercepts=[3.0])], ["y"], {}),
    "regression of several": (
        [node("LinearRegressor", ["x"], ["y"], domain=ML, coefficients=[0.1, 0.2] * 7, targets=7)], ["y"], {}
    ),
    "perceptron": (
        [
            node("Gemm", ["x", "wide", "added"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("MatMul", ["b", "narrow"], ["c"]),
            node("Add", ["c", "one"], ["d"]),
            node("Sigmoid", ["d"], ["y"]),
        ],
        ["y"],
        {},
    ),
}  # fmt: skip
_RANDOM = np.random.default_rng(0)
CONSTANTS = {
    "pair": np.array([[0.0, 1.5]], np.float32),
    "one": np.array([1.0], np.float32),
    "first": np.array([0], np.int64),
    "turned": np.array([1, 0, 1], np.int64),
    "numbers": np.array([7, -1], np.int64),
    "texts": np.array(["no", "yés"], object),
    "flat": np.array([-1], np.int64),
    "wide": _RANDOM.normal(size=(2, 300)).astype(np.float32),
    "added": _RANDOM.normal(size=300).astype(np.float32),
    "narrow": _RANDOM.normal(size=(300, 5)).astype(np.float32),
}


@pytest.mark.parametrize("case", CASES)
def test_operators(case: str) -> None:
    nodes, outputs, gives = CASES[case]
    used = {name for each in nodes for name in each.input}
    constants = {name: array for name, array in CONSTANTS.items() if name in used}
    assert_equal(model_of(nodes, outputs, constants=constants, gives=gives), 2)


def test_softmax_of_two_doubles() -> None:
    assert_equal(
        model_of([node("Softmax", ["x"], ["y"], axis=1)], ["y"], dtype=np.float64, gives={"y": 11}), 2, np.float64
    )


@pytest.mark.parametrize("transform", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_operator_of_version_5(dtype: Any, transform: int) -> None:
    from onnx import helper

    kind = 1 if dtype == np.float32 else 11
    numbers = {
        "nodes_splits": helper.make_tensor("s", kind, (3,), [0.5, -1.0, 2.0]),
        "leaf_weights": helper.make_tensor("w", kind, (5,), [1.0, 0.1, -0.3, 0.7, 5.0]),
        "nodes_modes": helper.make_tensor("m", 2, (3,), [0, 1, 3]),
    }
    trees = node(
        "TreeEnsemble", ["x"], ["y"], domain=ML, n_targets=2, tree_roots=[0, 2], nodes_featureids=[0, 1, 1],
        nodes_truenodeids=[1, 1, 3], nodes_trueleafs=[0, 1, 1], nodes_falsenodeids=[0, 2, 4], nodes_falseleafs=[1, 1, 1],
        leaf_targetids=[0, 1, 1, 0, 0], post_transform=transform, **numbers,
    )  # fmt: skip
    assert_equal(model_of([trees], ["y"], dtype=dtype, gives={"y": kind}), 2, dtype)


def test_no_rows_are_answered_with_none() -> None:
    (found,) = CompiledModel(compiled(regressor())).run(b"", 0)
    assert found.shape == (0, 1)


def test_many_rows_run_without_the_lock_and_in_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_model, "_BRIEF_STEPS", 0)
    content = regressor()
    rows = rows_for(2, 100)
    model = CompiledModel(compiled(content))
    assert is_same(session(content).run(None, {"x": rows})[0], model.run(rows.tobytes(), 100)[0])


def test_numpy_that_lays_arrays_out_otherwise_gets_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    program = compiled(regressor())
    monkeypatch.setattr(compiled_model.layout, "ARRAY_DATA", 1)
    with pytest.raises(UnavailableError, match="laid out otherwise"):
        CompiledModel(program)
