import numpy as np
import pytest

from penstock_server.drift.baseline import MAX_ANSWERS, Baseline, ClassBaseline, NumberBaseline
from penstock_server.drift.fit import fit_number
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.signature import ANY, TensorInfo
from penstock_tools.publish.answers import Answers

RNG = np.random.default_rng(0)
LABEL = TensorInfo("label", "INT64", (ANY,))
SCORES = TensorInfo("scores", "FP32", (ANY, 3))
VALUE = TensorInfo("value", "FP32", (ANY, 1))
COUNT = TensorInfo("count", "INT64", (ANY,))
GRID = TensorInfo("grid", "FP32", (ANY, 2, 2))
ARRAYS = {
    "label": RNG.integers(0, 3, 200),
    "scores": RNG.dirichlet([1, 1, 1], 200).astype("f4"),
    "value": RNG.normal(size=(200, 1)).astype("f4"),
    "count": RNG.poisson(3, 200),
    "grid": RNG.normal(size=(200, 2, 2)).astype("f4"),
}
CLASSIFIER = ClassOutputs(frozenset({"label"}), frozenset({"scores"}))
NONE = ClassOutputs()


def added(specs, found=NONE, class_output=None, labels=None, columns=("x",)):
    baseline = Baseline(tuple(fit_number(name, np.arange(9.0)) for name in columns), "digest")
    outputs = [ARRAYS[spec.name] for spec in specs]
    return Answers(specs, found, class_output, labels).added_to(baseline, outputs)


@pytest.mark.parametrize(
    ("specs", "options", "predictions", "answers"),
    [
        ([LABEL, SCORES], {"found": CLASSIFIER}, "class", [("confidence", "scores", "largest")]),
        ([SCORES], {"found": CLASSIFIER}, "class", [("confidence", "scores", "largest")]),
        (
            [LABEL, SCORES],
            {"class_output": "label", "labels": (0, 1, 2)},
            "label",
            [("confidence", "scores", "largest")],
        ),
        # Nothing says that these are scores of classes.
        ([LABEL, SCORES], {"class_output": "label"}, "label", []),
        ([LABEL, VALUE], {"class_output": "label"}, "label", [("value", "value", "value")]),
        (
            [LABEL, SCORES, VALUE, COUNT],
            {"found": CLASSIFIER},
            "class",
            [("confidence", "scores", "largest"), ("value", "value", "value"), ("count", "count", "value")],
        ),
        ([VALUE, COUNT, GRID], {}, "value", [("count", "count", "value")]),
        ([SCORES, COUNT], {}, None, [("count", "count", "value")]),
        ([GRID], {}, None, []),
    ],
)
def test_what_is_watched_of_outputs(specs, options, predictions, answers):
    found = added(specs, **options)
    assert (None if found.predictions is None else found.predictions.name) == predictions
    assert [(answer.name, answer.output, answer.reads) for answer in found.answers] == answers
    assert all(sum(answer.numbers.counts) == 200 for answer in found.answers)


def test_the_confidence_is_the_largest_score():
    found = added([LABEL, SCORES], CLASSIFIER)
    assert isinstance(found.predictions, ClassBaseline)
    numbers = found.answers[0].numbers
    assert isinstance(numbers, NumberBaseline)
    largest = ARRAYS["scores"].max(axis=1)
    assert (numbers.smallest, numbers.largest) == (largest.min(), largest.max())


def test_an_answer_has_the_name_of_no_column():
    columns = ("confidence", "value", "value (answer)")
    found = added([LABEL, SCORES, VALUE], CLASSIFIER, columns=columns)
    assert [answer.name for answer in found.answers] == ["confidence (answer)", "value (answer) (answer)"]


def test_the_first_of_many_outputs_are_watched():
    specs = [TensorInfo(f"y{at}", "FP32", (ANY,)) for at in range(20)]
    baseline = Baseline((fit_number("x", np.arange(9.0)),), "digest")
    found = Answers(specs, NONE, None, None).added_to(baseline, [np.arange(30.0)] * 20)
    assert found.predictions.name == "y0"
    assert [answer.name for answer in found.answers] == [f"y{at}" for at in range(1, 1 + MAX_ANSWERS)]
