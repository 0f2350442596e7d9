from math import inf, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from penstock.tensors import NUMPY_TYPES
from penstock_server.features.cells import AnswerCells, ClassCells, NumberCells
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.onnx_file import Node, OnnxFile
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.prediction.outputs import (
    TOLERANCE,
    LabelOutput,
    Number,
    OutputReader,
    agreement,
    class_reader,
    count_arrays,
    number_readers,
    output_reader,
    reader_of,
    score_output,
)

LABEL = TensorInfo("label", "INT64", (ANY,))
COLUMN = TensorInfo("label", "INT32", (ANY, 1))
SCORES = TensorInfo("scores", "FP32", (ANY, 3))
TEXT = TensorInfo("name", "BYTES", (ANY,))
VALUE = TensorInfo("value", "FP64", (ANY, 1))
GRID = TensorInfo("grid", "INT64", (ANY, 3))
ALL = frozenset({"label", "scores", "name", "value", "grid", "wide", "free", "cube", "h"})
CLASSIFIER = ClassOutputs(ALL, ALL)

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
def test_class_reader(specs: list[TensorInfo], outputs: list[Any], options: Any, expected: list[int]) -> None:
    reader = class_reader(specs, CLASSIFIER, **options)
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
        ([TensorInfo("wide", "FP32", (ANY, 65))], {}),
        ([TensorInfo("free", "FP32", (ANY, ANY))], {}),
        ([TensorInfo("cube", "FP32", (ANY, 3, 3))], {}),
        ([LABEL], {"output": "other"}),
        ([LABEL, SCORES], {"found": ClassOutputs()}),
        ([TEXT, SCORES], {"found": ClassOutputs(), "names": ["a", "b"]}),
    ],
)
def test_outputs_without_classes_have_no_reader(specs: list[TensorInfo], options: Any) -> None:
    assert class_reader(specs, **{"found": CLASSIFIER, **options}) is None


def test_a_publisher_that_names_as_many_classes_says_that_scores_are_theirs() -> None:
    reader = class_reader([VALUE, SCORES], ClassOutputs(), names=["a", "b", "c"])
    assert reader is not None
    assert reader([np.zeros((2, 1)), PROBABILITIES]).tolist() == [2, 0]
    assert reader([np.zeros((0, 1)), PROBABILITIES[:0]]).tolist() == []


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([LABEL, SCORES], 1),
        ([VALUE, SCORES], 0),
        ([TEXT, LABEL], 1),
        ([TEXT], None),
        ([TensorInfo("h", "FP16", (ANY,))], 0),
    ],
)
def test_score_output(specs: list[TensorInfo], expected: int | None) -> None:
    assert score_output(specs) == expected
    assert score_output(specs, has_classes=True) == (
        None if expected is not None and specs[expected] == LABEL else expected
    )


@pytest.mark.parametrize("datatype", [*NUMPY_TYPES, "BYTES"])
def test_any_number_can_be_a_score(datatype: str) -> None:
    is_number = datatype not in {"BYTES", "BOOL"}
    assert score_output([TEXT, TensorInfo("y", datatype, (ANY,))]) == (1 if is_number else None)


@pytest.mark.parametrize(
    ("specs", "found", "has_classes", "score"),
    [
        ([LABEL], CLASSIFIER, True, None),
        ([LABEL], ClassOutputs(), False, 0),
        ([LABEL, SCORES], CLASSIFIER, True, 1),
        ([GRID, VALUE], ClassOutputs(), False, 1),
    ],
)
def test_integers_are_scores_only_where_they_are_no_classes(
    specs: list[TensorInfo], found: ClassOutputs, has_classes: bool, score: int | None
) -> None:
    reader = output_reader(specs, found)
    assert (reader.classes is not None, reader.score) == (has_classes, score)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (None, [2, 0]),
        (SimpleNamespace(class_output="name", classes=("spam", "eggs", "ham")), [2, 1]),
        (SimpleNamespace(class_output=None, classes=None), [2, 0]),
    ],
)
def test_a_manifest_says_where_the_class_is(manifest: Any, expected: list[int]) -> None:
    softmax = OnnxFile((Node("Softmax", "", ("x",), ("scores",), {}),), outputs=("name", "scores"))
    servable: Any = SimpleNamespace(
        artifact=SimpleNamespace(manifest=manifest, baseline=None),
        outputs=(TEXT, SCORES),
        model=SimpleNamespace(file=softmax),
    )
    reader = reader_of(servable)
    assert isinstance(reader, OutputReader)
    assert reader.score == 1
    assert reader.classes is not None
    assert reader.classes([NAMES, PROBABILITIES]).tolist() == expected


@given(
    npst.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 4)), elements=st.floats(width=32)),
    st.booleans(),
)
def test_a_number_is_the_largest_of_its_row(scores: Any, is_flat: bool) -> None:
    given_rows = scores[:, 0] if is_flat else scores
    found = Number(1, 0)([np.empty(0), given_rows])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, scores[:, 0] if is_flat else scores.max(axis=1))


def test_whole_numbers_are_counted_as_reals() -> None:
    assert Number(0, 0)([np.array([[3], [-1]])]).tolist() == [3.0, -1.0]
    assert Number(0, 0)([np.array([3])]).dtype == np.float64


NUMBERS = NumberCells((0.0,))


@pytest.mark.parametrize(
    ("classes", "answers", "expected"),
    [
        (None, [AnswerCells(NUMBERS)], [Number(2, 0)]),
        (None, [AnswerCells(NUMBERS), AnswerCells(NUMBERS, "label")], [Number(2, 0), Number(0, 1)]),
        (LabelOutput(0), [AnswerCells(ClassCells((0, 1))), AnswerCells(NUMBERS, "scores")], [Number(1, 1)]),
        # The baseline of a version whose graph was no classifier's when it was published.
        (LabelOutput(0), [AnswerCells(NUMBERS), AnswerCells(NUMBERS, "scores")], [Number(1, 1)]),
        (None, [], []),
    ],
)
def test_a_baseline_says_which_numbers_are_counted(
    classes: Any, answers: list[AnswerCells], expected: list[Number]
) -> None:
    reader = OutputReader(classes, 2)
    assert list(number_readers([LABEL, SCORES, VALUE], reader, answers)) == expected


class Counted:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def classes(self, labels: Any, *, is_drift: bool) -> None:
        self.told.append((labels.tolist(), is_drift))

    def numbers(self, place: int, values: Any) -> None:
        self.told.append((place, values.tolist()))


@pytest.mark.parametrize("is_drift", [True, False])
def test_classes_are_always_counted_and_numbers_for_drift(is_drift: bool) -> None:
    report: Any = Counted()
    reader = OutputReader(LabelOutput(0), 1, (Number(1, 1), Number(0, 2)))
    count_arrays(report, reader, [LABELS, np.array([[0.25, 0.75], [0.5, 0.5]])], is_drift=is_drift)
    numbers = [(1, [0.75, 0.5]), (2, [2.0, 0.0])] if is_drift else []
    assert report.told == [([2, 0], is_drift), *numbers]


def by_scores(left: Any, right: Any, rows: int) -> tuple[list[bool], list[float]]:
    found = agreement([left], [right], classes=(None, None), scores=(0, 0), rows=rows)
    assert found.classes is None
    return found.agree.tolist(), found.distance.tolist()


@pytest.mark.parametrize(
    ("left", "right", "agrees", "distance"),
    [
        (1.0, 1.0, True, 0.0),
        (1.0, 1.0 + TOLERANCE / 2, True, TOLERANCE / 2),
        (0.0, TOLERANCE, True, TOLERANCE),
        (1.0, 1.5, False, 0.5),
        (nan, nan, True, 0.0),
        (nan, 1.0, False, inf),
        (1.0, nan, False, inf),
        (inf, inf, True, 0.0),
        (inf, -inf, False, inf),
        (inf, 1.0, False, inf),
    ],
)
def test_scores_agree_within_the_tolerance(left: float, right: float, agrees: bool, distance: float) -> None:
    agree, distances = by_scores(np.array([[left]]), np.array([right]), 1)
    assert agree == [agrees]
    assert distances == pytest.approx([distance])


def test_a_row_is_as_far_as_its_farthest_score() -> None:
    left, right = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.25, 1.0], [0.0, 0.5]], np.float32)
    assert by_scores(left, right, 2)[1] == [0.25, 0.5]


def test_no_rows_are_compared_to_nothing() -> None:
    assert by_scores(np.zeros((0, 3)), np.zeros((0, 3)), 0) == ([], [])


def test_scores_of_another_shape_are_infinitely_far() -> None:
    assert by_scores(np.zeros((2, 3)), np.zeros((2, 2)), 2) == ([False, False], [inf, inf])


@pytest.mark.parametrize("scores", [(None, 0), (0, None), (None, None)])
def test_without_scores_there_is_no_distance(scores: tuple[int | None, int | None]) -> None:
    agree, distance, _ = agreement([np.ones(2)], [np.zeros(2)], classes=(None, None), scores=scores, rows=2)
    assert (agree.tolist(), distance.tolist()) == ([True, True], [0.0, 0.0])


def test_classes_decide_where_both_have_them() -> None:
    champion, shadow = [np.array([1, 2, 3]), np.zeros(3)], [np.array([1, 0, 3]), np.full(3, 0.5)]

    def labels(outputs: Any) -> Any:
        return outputs[0]

    agree, distance, classes = agreement(champion, shadow, classes=(labels, labels), scores=(1, 1), rows=3)
    assert classes is not None
    assert [one.tolist() for one in classes] == [[1, 2, 3], [1, 0, 3]]
    assert agree.tolist() == [True, False, True]
    assert distance.tolist() == [0.5, 0.5, 0.5]
    agree, *_ = agreement(champion, shadow, classes=(labels, None), scores=(1, 1), rows=3)
    assert agree.tolist() == [False, False, False]


ROWS = npst.arrays(np.float64, (4, 3), elements=st.floats(width=32))


@given(left=ROWS, right=ROWS)
def test_distance_is_symmetric_and_zero_to_itself(left: Any, right: Any) -> None:
    assert by_scores(left, left, 4) == ([True] * 4, [0.0] * 4)
    assert by_scores(left, right, 4) == by_scores(right, left, 4)
    assert not any(np.isnan(by_scores(left, right, 4)[1]))


def test_each_version_is_read_by_its_own_reader() -> None:
    champion, shadow = [np.array([1, 2])], [np.zeros(2), np.array([1, 3])]
    agree, *_ = agreement(
        champion, shadow, classes=(lambda outputs: outputs[0], lambda outputs: outputs[1]), scores=(None, None), rows=2
    )
    assert agree.tolist() == [True, False]


def test_classes_on_one_side_only_are_not_compared() -> None:
    for classes in ((None, lambda outputs: outputs[0]), (lambda outputs: outputs[0], None)):
        agree, *_ = agreement([np.ones(1)], [np.ones(1)], classes=classes, scores=(0, 0), rows=1)
        assert agree.tolist() == [True]


@pytest.mark.parametrize(("other", "agrees", "distance"), [(1.0, True, 0.0), (3.0, False, 2.0)])
def test_one_answer_for_several_rows_is_compared_once(other: float, agrees: bool, distance: float) -> None:
    assert by_scores(np.array([1.0]), np.array([other]), 3) == ([agrees] * 3, [distance] * 3)
    labels = (lambda outputs: outputs[0], lambda outputs: outputs[0])
    agree, *_ = agreement([np.array([1])], [np.array([int(other)])], classes=labels, scores=(None, None), rows=3)
    assert agree.tolist() == [agrees] * 3


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        (OutputReader(LabelOutput(1), 0), [7, 8]),
        (OutputReader(None, 0), [0.25, 0.75]),
        (OutputReader(None, None), None),
    ],
)
def test_the_class_is_what_was_predicted_else_the_score(reader: OutputReader, expected: list[float] | None) -> None:
    found = reader.predicted([np.array([[0.25], [0.75]]), np.array([7, 8])])
    assert (None if found is None else found.tolist()) == expected
