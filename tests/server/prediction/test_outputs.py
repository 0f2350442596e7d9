from typing import Any

import numpy as np
import pytest

from penstock_server.models.signature import ANY, TensorSpec
from penstock_server.prediction.outputs import class_reader, score_output

LABEL = TensorSpec("label", "INT64", (ANY,))
COLUMN = TensorSpec("label", "INT32", (ANY, 1))
SCORES = TensorSpec("scores", "FP32", (ANY, 3))
TEXT = TensorSpec("name", "BYTES", (ANY,))
VALUE = TensorSpec("value", "FP64", (ANY, 1))
GRID = TensorSpec("grid", "INT64", (ANY, 3))

LABELS = np.array([2, 0])
PROBABILITIES = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], np.float32)
NAMES = np.array(["ham", "eggs"], object)


@pytest.mark.parametrize(
    ("specs", "outputs", "options", "expected"),
    [
        ([LABEL, SCORES], [LABELS, PROBABILITIES[::-1]], {}, [2, 0]),
        ([SCORES, LABEL], [PROBABILITIES[::-1], LABELS], {}, [2, 0]),
        ([COLUMN], [LABELS.astype(np.int32).reshape(2, 1)], {}, [2, 0]),
        ([SCORES], [PROBABILITIES], {}, [2, 0]),
        ([GRID, SCORES], [np.zeros((2, 3), np.int64), PROBABILITIES], {}, [2, 0]),
        ([LABEL, GRID], [LABELS, np.array([[7], [8]])], {"output": "grid"}, [7, 8]),
        ([TEXT], [NAMES], {"output": "name", "names": ["spam", "eggs", "ham"]}, [2, 1]),
        ([TEXT], [NAMES], {"output": "name", "names": ["ham"]}, [0, 1]),
        ([TEXT, SCORES], [NAMES, PROBABILITIES], {}, [2, 0]),
    ],
)
def test_class_reader(specs: list[TensorSpec], outputs: list[Any], options: Any, expected: list[int]) -> None:
    reader = class_reader(specs, **options)
    assert reader is not None
    labels = reader(outputs)
    assert labels.dtype == np.int64
    assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("specs", "options"),
    [
        ([], {}),
        ([VALUE], {}),
        ([TEXT], {}),
        ([TEXT, SCORES], {"output": "name"}),
        ([TensorSpec("wide", "FP32", (ANY, 65))], {}),
        ([TensorSpec("free", "FP32", (ANY, ANY))], {}),
        ([TensorSpec("cube", "FP32", (ANY, 3, 3))], {}),
        ([LABEL], {"output": "other"}),
    ],
)
def test_outputs_without_classes_have_no_reader(specs: list[TensorSpec], options: Any) -> None:
    assert class_reader(specs, **options) is None


@pytest.mark.parametrize(
    ("specs", "expected"),
    [([LABEL, SCORES], 1), ([VALUE, SCORES], 0), ([LABEL, TEXT], None), ([TensorSpec("h", "FP16", (ANY,))], 0)],
)
def test_score_output(specs: list[TensorSpec], expected: int | None) -> None:
    assert score_output(specs) == expected
