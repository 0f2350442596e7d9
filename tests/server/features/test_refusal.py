import numpy as np
import pytest

from penstock.tensors import join_bytes
from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError
from penstock_server.features.counting import counts_of
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Match, Spline

NAN, INF = float("nan"), float("inf")
SPEC = FeatureSpec(
    (StringColumn("s"), NumberColumn("x"), NumberColumn("y")),
    Join(
        (
            Text("s", Categories(("a", "b"), unseen="refuse")),
            Take(("x",), (Match(((1.0, None),), unseen="refuse"),)),
            Take(("y",), (Spline(((0, 1, 2, 3, 4),), 1, "refuse"),)),
        )
    ),
)
ROWS = [
    ("a", 1.0, 2.0),
    ("c", 1.0, 2.0),
    ("b", 7.0, 9.0),
    ("a", NAN, 3.5),
    ("", 1.0, 1.0),
    ("b", 1.0, NAN),
    ("a", 1.0, INF),
]


def test_rows_are_refused_for_their_first_reason_and_the_others_are_as_without_them() -> None:
    pipeline = Pipeline(SPEC)
    out = np.empty((len(ROWS), pipeline.width), np.float32)
    numbers = np.array([row[1:] for row in ROWS])
    refusal = pipeline.run(numbers, [join_bytes(row[0] for row in ROWS)], len(ROWS), out, None)
    assert refusal is not None
    assert [refusal.columns[at] if at >= 0 else "" for at in refusal.found] == [
        "",
        "'s'",
        "'x'",
        "'y'",
        "'s'",
        "",
        "'y'",
    ]
    kept = [row for row, at in zip(ROWS, refusal.found, strict=True) if at < 0]
    table = dict(zip(("s", "x", "y"), zip(*kept, strict=True), strict=True))
    np.testing.assert_array_equal(out[refusal.found < 0], pipeline.transform(table))


def test_the_error_names_the_row_of_the_request_and_the_column() -> None:
    refusal = Pipeline(SPEC).run(
        np.array([[1.0, 2.0], [1.0, 9.0]]), [join_bytes("aa")], 2, np.empty((2, 5), np.float32), None
    )
    assert refusal is not None
    assert not refusal.touches(0, 1)
    assert not refusal.touches(0, 0)
    assert refusal.touches(1, 1)
    assert str(refusal.error(1, 1)) == (
        "row 0 holds a value of 'y' that the training data did not have, expected one that it had"
    )


def test_refused_rows_are_counted_once() -> None:
    training = {"s": ["a", "b"], "x": [1.0, NAN], "y": [1.5, 2.5]}
    pipeline = Pipeline(SPEC, fit_baseline(SPEC, training).cells)
    cells = np.zeros(pipeline.cells_shape, np.int64)
    pipeline.run(np.array([[1.0, 2.0]] * 2), [join_bytes(["a", "new"])], 2, np.empty((2, 5), np.float32), cells)
    assert counts_of(cells).rows.tolist() == [2, 2, 2]


def test_training_rows_that_would_be_refused_are_an_error() -> None:
    with pytest.raises(InvalidInputError, match="row 1 holds a value of 's'"):
        Pipeline(SPEC).transform({"s": ["a", "c"], "x": [1.0, 1.0], "y": [2.0, 2.0]})


def test_many_rows_are_refused_where_long_calls_run_too() -> None:
    pipeline = Pipeline(SPEC)
    rows = 3000
    values = ["c" if at % 7 == 3 else "a" for at in range(rows)]
    refusal = pipeline.run(np.tile([1.0, 2.0], rows), [join_bytes(values)], rows, np.empty((rows, 5), np.float32), None)
    assert refusal is not None
    np.testing.assert_array_equal(refusal.found >= 0, np.arange(rows) % 7 == 3)
