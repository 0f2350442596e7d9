import numpy as np
import pytest

from penstock_server.drift.baseline import MAX_ANSWERS, Baseline, ClassBaseline, NumberBaseline
from penstock_server.drift.fit import fit_number
from penstock_server.errors import InvalidInputError
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.signature import ANY, TensorInfo
from penstock_tools.publish.answers import Answers, Held

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


def held(specs, labels, found=NONE, class_output=None, classes=None, **arrays):
    known = {**ARRAYS, **arrays}
    outputs = [known[spec.name] for spec in specs]
    baseline = Baseline((fit_number("x", np.arange(9.0)),), "digest")
    read = Answers(specs, found, class_output, classes)
    return read.added_to(baseline, outputs, Held(outputs, labels))


TEXT = TensorInfo("text", "BYTES", (ANY,))
PLACES = ARRAYS["scores"].argmax(axis=1)
NAMES = np.array(["low", "middle", "high"], object)
RIGHT = RNG.random(200) < 0.7
TRUE = np.where(RIGHT, PLACES, (PLACES + 1) % 3)


@pytest.mark.parametrize(
    ("specs", "labels", "options"),
    [
        ([SCORES], TRUE, {"found": CLASSIFIER}),
        ([SCORES], TRUE.astype(float), {"found": CLASSIFIER}),
        ([SCORES], NAMES[TRUE], {"found": CLASSIFIER, "classes": ("low", "middle", "high")}),
        ([SCORES], np.array([7, 3, 9])[TRUE], {"found": CLASSIFIER, "classes": (7, 3, 9)}),
        ([LABEL, SCORES], TRUE, {"class_output": "label", "classes": (0, 1, 2), "label": PLACES}),
        ([LABEL, SCORES], TRUE + 4, {"class_output": "label", "classes": (4, 5, 6), "label": PLACES + 4}),
        (
            [TEXT, SCORES],
            NAMES[TRUE].tolist(),
            {"class_output": "text", "classes": ("low", "middle", "high"), "text": NAMES[PLACES]},
        ),
    ],
)
def test_a_holdout_keeps_what_was_right(specs, labels, options):
    (answer,) = held(specs, labels, **options).answers
    assert (answer.name, sum(answer.numbers.counts)) == ("confidence", 200)
    assert sum(answer.holdout.correct) == RIGHT.sum()
    in_first = np.searchsorted(answer.numbers.edges, ARRAYS["scores"].max(axis=1), side="right") == 0
    assert answer.holdout.correct[0] == RIGHT[in_first].sum()


def test_one_score_of_a_classifier_says_how_sure_it_is():
    classes = (ARRAYS["value"][:, 0] > 0).astype(int)
    truth = np.where(RIGHT, classes, 1 - classes)
    (answer,) = held([LABEL, VALUE], truth, class_output="label", classes=(0, 1), label=classes).answers
    assert (answer.name, answer.reads, sum(answer.holdout.correct)) == ("value", "value", RIGHT.sum())


def test_the_confidence_of_the_holdout_is_the_reference():
    read = Answers([SCORES], CLASSIFIER, None, None)
    baseline = Baseline((fit_number("x", np.arange(9.0)),), "digest")
    sure = [np.tile(np.array([[0.98, 0.01, 0.01]], "f4"), (500, 1))]
    found = read.added_to(baseline, sure, Held([ARRAYS["scores"]], TRUE))
    assert sum(found.predictions.counts) == 500
    assert found.answers[0].numbers.counts == held([SCORES], TRUE, CLASSIFIER).answers[0].numbers.counts


@pytest.mark.parametrize(
    ("specs", "labels", "options", "said"),
    [
        ([VALUE, COUNT], TRUE, {}, "a hold-out is for classifiers that give a score beside the class"),
        ([LABEL], TRUE, {"class_output": "label"}, "a hold-out is for classifiers that give a score beside the class"),
        ([SCORES], TRUE[1:], {"found": CLASSIFIER}, "199 labels for 200 rows of the hold-out"),
        (
            [SCORES],
            TRUE,
            {"found": CLASSIFIER, "classes": ("a", "b", "c")},
            "has the label [012], expected one of 'a', 'b', 'c'",
        ),
        (
            [SCORES],
            np.full(200, np.nan),
            {"found": CLASSIFIER, "classes": (0, 1, 2)},
            "has the label nan, expected one of 0",
        ),
    ],
)
def test_other_holdouts_are_refused(specs, labels, options, said):
    with pytest.raises(InvalidInputError, match=said):
        held(specs, labels, **options)
