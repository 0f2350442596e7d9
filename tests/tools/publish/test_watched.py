import msgspec
import numpy as np
import pytest

from penstock_server.drift.baseline import Baseline, StringBaseline
from penstock_server.drift.fit import fit_classes, fit_number, fit_string, with_predictions
from penstock_tools.publish.watched import NAMED, sentences

RNG = np.random.default_rng(0)
ROWS = 5000
NUMBER = fit_number("age", RNG.normal(size=ROWS))
WORD = fit_string("city", [b"%d" % at for at in RNG.integers(0, 5, ROWS)])


def baseline(*columns, **fields) -> Baseline:
    return Baseline(columns, "digest", **fields)


def test_a_sample_without_faults_takes_one_sentence() -> None:
    assert sentences(baseline(NUMBER)) == ["drift of 1 column is watched, in windows of 10,000 rows"]
    watched = with_predictions(baseline(NUMBER, WORD), fit_classes("label", RNG.integers(0, 2, ROWS)))
    assert sentences(watched, 2000) == [
        "drift of 2 columns and of the predictions is watched, in windows of 2,000 rows"
    ]


def clumped(rows: int, dispersion: float, **fields):
    return msgspec.structs.replace(fit_number("x", RNG.normal(size=rows)), dispersion=dispersion, **fields)


def values(rows: int, kinds: int) -> StringBaseline:
    return StringBaseline("x", tuple(map(str, range(kinds))), (rows // kinds,) * kinds)


CHANGES = "it changes so much along the sample that"
REASONS = {
    "one number": (fit_number("x", np.ones(ROWS)), "column 'x' drifts only when other values come: the sample has one"),
    "one text": (fit_string("x", [b"a"] * ROWS), "column 'x' drifts only when other values come: the sample has one"),
    "no number": (fit_number("x", np.full(ROWS, np.nan)), "column 'x' never drifts: it has no value in the sample"),
    "no text": (fit_string("x", [b""] * ROWS), "column 'x' never drifts: it has no value in the sample"),
    "free text": (
        fit_string("x", [b"%d" % at for at in range(ROWS)]),
        "column 'x' never drifts: no text of it comes again in the sample",
    ),
    "more values than rows enough": (
        values(600, 30),
        "column 'x' is never judged: its 30 cells take 750 rows of the sample, which has 600",
    ),
    "windows too small": (values(9000, 45), "column 'x' is never judged: its 45 cells take windows of 1,125 rows"),
    "few rows": (clumped(100, 1.9, minimum_effect=0.2), "column 'x' drifts from a PSI of 0.67 on: 100 rows are compared"),
    "much that is tolerated": (
        msgspec.structs.replace(NUMBER, name="x", minimum_effect=0.6),
        "column 'x' drifts from a PSI of 0.74 on: 0.6 is tolerated",
    ),
    "rows that come in clumps": (
        clumped(ROWS, 40.0),
        f"column 'x' drifts from a PSI of 1.2 on: {CHANGES} 1,000 rows say as much as 25 would of unrelated ones",
    ),
    "a short sample of clumps": (
        clumped(800, 40.0),
        f"column 'x' drifts from a PSI of 2 on: {CHANGES} 800 rows say as much as 20 would of unrelated ones",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("column", "reason"), REASONS.values(), ids=REASONS)
def test_a_column_that_hardly_shows_drift_says_why(column, reason) -> None:
    head, said = sentences(baseline(NUMBER, column), 1000)
    assert head == "drift of 2 columns is watched, in windows of 1,000 rows; of 1 of them it is seen late or never"
    assert said == reason


def test_the_predictions_are_called_the_output() -> None:
    found = sentences(with_predictions(baseline(NUMBER), fit_classes("label", [1] * ROWS)))
    assert found[1:] == ["the model's output drifts only when other values come: the sample has one"]


def test_of_many_columns_some_are_named_and_the_others_counted() -> None:
    found = sentences(baseline(*(fit_number(f"x{at}", np.ones(ROWS)) for at in range(NAMED + 3))))
    assert len(found) == NAMED + 2
    assert found[-1] == "and of 3 more columns"


@pytest.mark.parametrize("rows", [0, 5, 99])
def test_a_tiny_sample_judges_nothing(rows: int) -> None:
    (said,) = sentences(baseline(fit_number("x", np.arange(float(rows)))))
    assert said.startswith(f"no drift is ever judged: the sample has {rows} rows")
    assert len(sentences(baseline(fit_number("x", np.arange(100.0))))) == 2


def test_the_order_is_told_where_it_is_not_time() -> None:
    assert len(sentences(baseline(NUMBER, order="time", ordered_by=("age",)))) == 1
    (shuffled,) = sentences(baseline(NUMBER, order="shuffled"))[1:]
    assert shuffled.startswith("the sample looks shuffled")
    assert "--time COLUMN" in shuffled
    (by,) = sentences(baseline(NUMBER, WORD, order="sorted", ordered_by=("city", "age")))[1:]
    assert by.startswith("the sample is in the order of 'city' and 'age'. If that is not time")
    assert by.endswith("--time city says that they are")
