from typing import Any

import numpy as np
import pytest

from penstock_server.drift.baseline import AnswerBaseline, Baseline
from penstock_server.drift.fit import fit_number
from penstock_server.errors import InvalidInputError
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.models.watched_answers import can_be_watched, check


@pytest.mark.parametrize(
    ("datatype", "shape", "reads"),
    [
        ("FP32", (ANY,), {"value"}),
        ("FP64", (ANY, 1), {"value"}),
        ("INT64", (ANY, 1, 1), {"value"}),
        ("FP32", (ANY, 2), {"largest"}),
        ("INT64", (ANY, 9), {"largest"}),
        ("FP32", (ANY, 2, 2), set()),
        ("FP32", (ANY, ANY), set()),
        ("FP32", (), set()),
        ("FP16", (ANY,), set()),
        ("INT32", (ANY,), set()),
        ("BYTES", (ANY,), set()),
    ],
)
def test_what_can_be_watched(datatype: str, shape: tuple[int, ...], reads: set[str]) -> None:
    spec: Any = TensorInfo("y", datatype, shape)
    assert {each for each in ("value", "largest") if can_be_watched(spec, each)} == reads  # type: ignore[arg-type]


OUTPUTS = (TensorInfo("y", "FP32", (ANY,)), TensorInfo("scores", "FP32", (ANY, 3)))


def watching(output: str, reads: Any) -> Baseline:
    answer = AnswerBaseline(output, reads, fit_number("answer", np.arange(9.0)))
    return Baseline((fit_number("x", np.arange(9.0)),), "digest", answers=(answer,))


def test_a_version_has_the_outputs_that_are_watched() -> None:
    check(watching("y", "value"), OUTPUTS)
    check(watching("scores", "largest"), OUTPUTS)


@pytest.mark.parametrize(
    ("output", "reads", "said"),
    [
        ("z", "value", "output 'z' must have one number per row; there is none"),
        ("scores", "value", r"'scores' must have one number per row; it is FP32 of shape \[-1, 3\]"),
        ("y", "largest", r"'y' must have several numbers per row; it is FP32 of shape \[-1\]"),
    ],
)
def test_other_outputs_are_refused(output: str, reads: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        check(watching(output, reads), OUTPUTS)
