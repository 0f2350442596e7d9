"""Proofs that hold, and proofs that must fail: programs that are wrong in one place."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from penstock_server.compiled_models import proof
from penstock_server.compiled_models.compiled_model import CompiledModel
from tests.examples import examples
from tests.server.compiled_models.graphs import TREES_OF_TWO, compiled, ensembles, regressor, session


def found(content: bytes, run: Any, columns: int = 2, golden: Any = None) -> str:
    program, theirs = compiled(content, columns=columns), session(content)
    return proof.difference(program, run, lambda matrix: theirs.run(None, {"x": matrix}), golden)


def runner(content: bytes, columns: int = 2) -> Any:
    model = CompiledModel(compiled(content, columns=columns))
    return lambda matrix: model.run(matrix.tobytes(), len(matrix))


@given(ensembles())
@examples(10)
def test_sound_programs_are_proven(attributes: dict[str, Any]) -> None:
    content = regressor(attributes, columns=3)
    assert not found(content, runner(content, 3), 3)


@pytest.mark.parametrize("name", ["nodes_values", "target_weights"])
def test_any_number_a_step_away_is_found(name: str) -> None:
    """Each bound moved to the next float32, the smallest difference that there is, and each leaf as far as sums can show."""
    content = regressor()
    for at, mode in enumerate(TREES_OF_TWO["nodes_modes"] if name == "nodes_values" else [""] * 5):
        if mode == "LEAF":
            continue
        moved = np.array(TREES_OF_TWO[name], np.float32)
        step = 1 if name == "nodes_values" else 32
        moved[at] += step * np.spacing(np.abs(moved[at]))
        wrong = regressor({**TREES_OF_TWO, name: moved.tolist()})
        assert "otherwise than onnxruntime" in found(content, runner(wrong)), at


def test_a_sum_in_another_order_is_found() -> None:
    turned = {**TREES_OF_TWO, "nodes_treeids": [1] * 5 + [0] * 3, "target_treeids": [1, 1, 1, 0, 0]}
    weights = [1e8, 0.1, -1e8, 0.7, 5.0]
    last: dict[str, Any] = {
        "nodes_treeids": [2], "nodes_nodeids": [0], "nodes_featureids": [0], "nodes_modes": ["LEAF"], "nodes_values": [0.0],
        "nodes_truenodeids": [0], "nodes_falsenodeids": [0], "target_treeids": [2], "target_nodeids": [0], "target_ids": [0],
        "target_weights": [-1e8],
    }  # fmt: skip
    content = regressor(joined({**TREES_OF_TWO, "target_weights": weights}, last))
    other = regressor(joined(last, {**turned, "target_weights": weights}))
    assert "otherwise than onnxruntime" in found(content, runner(other))


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The trees of one, then those of the other."""
    return {name: one[name] + other[name] for name in TREES_OF_TWO if name != "n_targets"} | {"n_targets": 1}


def test_golden_rows_are_tried_first() -> None:
    content = regressor()
    run = runner(content)

    def wrong_on_seven(matrix: Any) -> Any:
        (answer,) = run(matrix)
        return [np.where(matrix[:, :1] == 7.125, np.float32(0), answer)]

    assert not found(content, wrong_on_seven)
    golden = np.array([[7.125, 0.0], [0.0, 1.0]], np.float32)
    assert (
        found(content, wrong_on_seven, golden=golden) == "the kernels answer otherwise than onnxruntime on golden rows"
    )


def test_small_batches_are_tried_too() -> None:
    content = regressor()
    run = runner(content)

    def wrong_alone(matrix: Any) -> Any:
        (answer,) = run(matrix)
        return [answer + np.float32(len(matrix) == 3)]

    assert found(content, wrong_alone).endswith("on random rows, 3 at a time")


def test_what_is_not_proven_in_time_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "BUDGET_S", -1.0)
    content = regressor()
    assert found(content, runner(content)) == "it could not be proven equal to onnxruntime within -1 s"


def test_a_graph_that_fails_is_not_proven() -> None:
    def fail(_: Any) -> Any:
        raise ValueError

    assert proof.difference(compiled(regressor()), fail, fail, None) == "onnxruntime fails on random rows"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (np.float32([1.0, np.nan]), np.float32([1.0, -np.nan]), True),
        (np.float32([0.0]), np.float32([-0.0]), False),
        (np.float32([1.0]), np.float32([1.0000001]), False),
        (np.float32([1.0]), np.float64([1.0]), False),
        (np.float32([1.0]), np.float32([[1.0]]), False),
        (np.int64([1]), np.int64([1]), True),
        (np.array(["a"], object), np.array(["a"], object), True),
        (np.array(["a"], object), np.array(["b"], object), False),
        (np.array(["a"], object), np.int64([1]), False),
    ],
)
def test_the_same_to_the_last_bit(one: Any, other: Any, is_same: bool) -> None:
    assert proof.is_same(one, other) is is_same
