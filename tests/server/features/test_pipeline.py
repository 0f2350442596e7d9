import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from penstock.tensors import join_bytes
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.reference import reference_of
from penstock_server.errors import InvalidInputError
from penstock_server.features import pipeline as module
from penstock_server.features.counting import Counts, counts_of
from penstock_server.features.pipeline import Pipeline, count_elements
from penstock_server.features.spec.spec import (
    Categories,
    Column,
    FeatureSpec,
    Hash,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Apply, Bucket, Clip, Fill, Match, OneHot, Spline, Standardise
from tests.examples import examples

NAN, INF = float("nan"), float("inf")

REALS = st.floats(width=64) | st.sampled_from([NAN, INF, -INF, 0.0, -0.0, -1.0, 5e-324, 1e308, -1e308])


def test_it_gives_what_a_scikit_learn_pipeline_gives() -> None:
    rng = np.random.default_rng(2)
    delays, carriers = rng.lognormal(1, 1, 400), rng.choice(["UA", "AA", "DL"], 400)
    delays[::7] = NAN
    numbers = make_pipeline(SimpleImputer(strategy="median"), FunctionTransformer(np.log1p), StandardScaler())
    fitted = ColumnTransformer([("x", numbers, [0]), ("s", OneHotEncoder(sparse_output=False), [1])])
    expected = fitted.fit_transform(np.array([delays, carriers], object).T)
    fill, scaler = fitted.named_transformers_["x"][0].statistics_, fitted.named_transformers_["x"][-1]
    scaled = (Fill(tuple(fill)), Apply("log1p"), Standardise(tuple(scaler.mean_), tuple(scaler.scale_)))
    one_hot = Text("carrier", Categories(("AA", "DL", "UA")), (OneHot(((0, 1, 2, -1),), (3,)),))
    columns = (NumberColumn("delay"), StringColumn("carrier"))
    pipeline = Pipeline(FeatureSpec(columns, Join((Take(("delay",), scaled), one_hot)), "FP64"))
    found = pipeline.transform({"delay": delays, "carrier": carriers})
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-12, atol=1e-12)


def test_too_large_for_fp32_becomes_an_infinity() -> None:
    found = Pipeline(FeatureSpec((NumberColumn("x"),), Take(("x",)))).transform({"x": [1e300, -1e300, 0.1]})
    np.testing.assert_array_equal(found[:, 0], np.float32([INF, -INF, 0.1]))


COLUMNS: tuple[Column, ...] = (
    NumberColumn("a"),
    StringColumn("s"),
    NumberColumn("b"),
    StringColumn("t"),
    NumberColumn("c"),
)
FEATURES = Join(
    (
        Take(("a",), (Fill((1,)), Apply("log1p"), Standardise((0.5,), (2,)))),
        Text("s", Categories(("x", "yy", "zzz")), (OneHot(((0, 1, 2, 3),), (4,)),)),
        Take(("b",), (Clip((-1,), (1,)), Bucket(((-0.5, 0.5),)))),
        Text("t", Categories(("", "p"))),
        Take(("c",)),
    )
)
SPEC = FeatureSpec(COLUMNS, FEATURES)
TRAINING = {
    "a": [NAN, INF, *np.linspace(0, 9, 98)],
    "b": np.sin(np.arange(100)),
    "c": np.zeros(100),
    "s": ["x", "yy", "other", ""] * 25,
    "t": ["p", ""] * 50,
}
BASELINE = fit_baseline(SPEC, TRAINING)
PIPELINE = Pipeline(SPEC, BASELINE.cells_for(SPEC))

ROWS = st.lists(
    st.tuples(REALS, REALS, REALS, st.sampled_from(["x", "yy", "zzz", "", "no"]), st.sampled_from(["", "p", "é"])),
    max_size=30,
)
Rows = list[tuple[float, float, float, str, str]]


def run(rows: Rows, pipeline: Pipeline = PIPELINE) -> tuple[NDArray[Any], NDArray[np.int64]]:
    numbers = np.array([row[:3] for row in rows], np.float64).tobytes()
    strings = [join_bytes(row[3] for row in rows), join_bytes(row[4] for row in rows)]
    out = np.full((len(rows), pipeline.width), 99, pipeline.dtype)
    cells = np.zeros(pipeline.cells_shape, np.int64)
    pipeline.run(numbers, strings, len(rows), out, cells)
    return out, cells


def test_what_a_pipeline_says_of_itself() -> None:
    assert PIPELINE.columns == ("a", "s", "b", "t", "c")
    assert PIPELINE.numbers == ("a", "b", "c")
    assert PIPELINE.strings == ("s", "t")
    assert PIPELINE.width == 8
    assert PIPELINE.dtype == np.float32
    assert PIPELINE.cells_shape == BASELINE.cells_shape
    assert Pipeline(FeatureSpec(COLUMNS, FEATURES, "FP64")).dtype == np.float64


def test_required_are_the_numbers_that_nothing_fills_and_that_training_never_lacked() -> None:
    assert PIPELINE.required == {"c"}
    lacking = fit_baseline(SPEC, TRAINING | {"c": [NAN] * 100})
    assert Pipeline(SPEC, lacking.cells_for(SPEC)).required == set()
    assert Pipeline(SPEC).required == set()


@given(ROWS)
def test_a_batch_is_its_rows_one_by_one(rows: Rows) -> None:
    out, cells = run(rows)
    single = [run([row]) for row in rows]
    np.testing.assert_array_equal(out, np.concatenate([np.empty((0, 8)), *(one for one, _ in single)]))
    assert_same_counts(counts_of(np.stack([counts for _, counts in single])) if rows else counts_of(cells), cells)


@given(ROWS)
def test_cells_are_a_recount_of_the_raw_values(rows: Rows) -> None:
    _, cells = run(rows)
    found = counts_of(cells).cells
    table = dict(zip(("a", "b", "c", "s", "t"), zip(*rows, strict=True), strict=True)) if rows else {}
    expected = np.zeros_like(found)
    for row, column in enumerate(BASELINE.columns):
        for value in table.get(column.name, ()):
            expected[row, cell_by_hand(column, value)] += 1
    np.testing.assert_array_equal(found, expected)


def cell_by_hand(column: Any, value: Any) -> int:
    if isinstance(value, str):
        if value == "":
            return -3
        return min(column.watched.index(value), len(column.counts)) if value in column.watched else -1
    if np.isnan(value):
        return -3
    return -2 if np.isinf(value) else int(np.searchsorted(column.edges, value, side="right"))


def assert_same_counts(expected: Counts, cells: NDArray[np.int64]) -> None:
    found = counts_of(cells)
    np.testing.assert_array_equal(found.cells, expected.cells)
    np.testing.assert_array_equal(found.outside, expected.outside)
    # The order of a sum decides its last bits.
    is_sound = np.isfinite(expected.sums)
    np.testing.assert_allclose(found.sums[is_sound], expected.sums[is_sound], rtol=1e-9, atol=1e-9)


def test_counts_are_added_to_what_is_there() -> None:
    rows: Rows = [(1, 2, 3, "x", "p")]
    _, once = run(rows)
    cells = once.copy()
    PIPELINE.run(
        np.array(rows[0][:3], np.float64),
        [join_bytes(["x"]), join_bytes(["p"])],
        1,
        np.empty((1, 8), np.float32),
        cells,
    )
    assert_same_counts(counts_of(np.stack([once, once])), cells)


def test_a_baseline_with_many_bins_counts_like_one_with_few() -> None:
    values = np.random.default_rng(1).normal(size=3000)
    spec = FeatureSpec((NumberColumn("x"),), Take(("x",)))
    baseline = fit_baseline(spec, {"x": values}, bins=200)
    pipeline = Pipeline(spec, baseline.cells_for(spec))
    cells = np.zeros(pipeline.cells_shape, np.int64)
    pipeline.run(values, (), 3000, np.empty((3000, 1), np.float32), cells)
    np.testing.assert_array_equal(counts_of(cells).cells, reference_of(baseline).cells)


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 9))
@examples(300)
def test_whatever_the_strings_hold_they_fit_or_are_refused_untouched(one: bytes, two: bytes, rows: int) -> None:
    out, cells = np.full((rows, 8), 99, np.float32), np.zeros(PIPELINE.cells_shape, np.int64)
    fits = count_elements(one + two) == 2 * rows or rows == 0
    try:
        PIPELINE.run(bytes(24 * rows), (one, two), rows, out, cells)
    except InvalidInputError:
        assert not fits
        assert (out == 99).all()
        assert not cells.any()
    else:
        assert fits


def good() -> dict[str, Any]:
    return {
        "numbers": bytes(48),
        "others": (join_bytes(["x", "x"]), join_bytes(["p", "p"])),
        "rows": 2,
        "out": np.empty((2, 8), np.float32),
        "cells": np.zeros(PIPELINE.cells_shape, np.int64),
    }


READ_ONLY = np.zeros(PIPELINE.cells_shape, np.int64)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"numbers": bytes(47)}, "takes 48 bytes of numbers.*got 47 bytes"),
        ({"rows": 3}, "3 rows takes 72"),
        ({"rows": -1}, "takes -24"),
        ({"others": ()}, "got 48 bytes, 0 string columns"),
        ({"others": (b"", b"")}, "hold 0 bytes that are not 2 elements"),
        ({"out": np.empty((2, 8))}, r"float32 out of shape \[2, 8\].*float64"),
        ({"out": np.empty((2, 7), np.float32)}, r"float32 \[2, 7\]"),
        ({"out": np.empty((8, 2), np.float32).T}, "contiguous"),
        ({"cells": np.zeros((1, 1), np.int64)}, r"int64 \[1, 1\], expected int64"),
        ({"cells": np.zeros(PIPELINE.cells_shape)}, "float64"),
        ({"cells": READ_ONLY}, "writable"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    PIPELINE.run(**good())
    with pytest.raises(InvalidInputError, match=said):
        PIPELINE.run(**good() | changes)


def test_without_a_baseline_there_is_nothing_to_count_in() -> None:
    pipeline = Pipeline(SPEC)
    assert pipeline.cells_shape == (5, 0)
    pipeline.run(**good() | {"cells": None})
    with pytest.raises(InvalidInputError, match="no cells to count in"):
        pipeline.run(**good() | {"cells": np.zeros((5, 0), np.int64)})


def test_another_specifications_baseline_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="drift baseline is of the feature specification sha256:"):
        BASELINE.cells_for(FeatureSpec(COLUMNS, FEATURES, "FP64"))
    forged = Baseline(BASELINE.columns[::-1], BASELINE.spec_digest)
    with pytest.raises(InvalidInputError, match="other columns"):
        Pipeline(SPEC, forged.cells_for(SPEC))


def test_transform_names_what_is_missing() -> None:
    with pytest.raises(InvalidInputError, match="no column 'c'"):
        PIPELINE.transform({name: values for name, values in TRAINING.items() if name != "c"})


def test_no_rows_give_no_rows() -> None:
    assert PIPELINE.transform({name: [] for name in PIPELINE.columns}).shape == (0, 8)


@pytest.mark.parametrize("brief_values", [0, module.BRIEF_VALUES])
def test_threads_at_once_get_their_own_answers(brief_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRIEF_VALUES", brief_values)
    pipeline = Pipeline(SPEC, BASELINE.cells_for(SPEC))
    rng = np.random.default_rng(5)
    batches: list[Rows] = [
        [(*rng.normal(size=3).tolist(), str(rng.choice(["x", "no"])), str(rng.choice(["p", ""]))) for _ in range(size)]
        for size in (1, 7, 300, 2000)
    ]
    expected = [run(batch) for batch in batches]
    start = threading.Barrier(4)

    def work(at: int) -> None:
        start.wait()
        for _ in range(20):
            out, cells = run(batches[at], pipeline)
            np.testing.assert_array_equal(out, expected[at][0])
            np.testing.assert_array_equal(cells, expected[at][1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


REFUSING = FeatureSpec(
    (StringColumn("s"), NumberColumn("x"), NumberColumn("y")),
    Join(
        (
            Text("s", Categories(("a", "b"), unseen="refuse")),
            Take(("x",), (Match(((1.0, None),), unseen="refuse"),)),
            Take(("y",), (Spline(((0, 1, 2, 3, 4),), 1, "refuse"),)),
        )
    ),
)


REFUSED_ROWS = [
    ("a", 1.0, 2.0),
    ("c", 1.0, 2.0),
    ("b", 7.0, 9.0),
    ("a", NAN, 3.5),
    ("", 1.0, 1.0),
    ("b", 1.0, NAN),
    ("a", 1.0, INF),
]


def test_rows_are_refused_for_their_first_reason_and_the_others_are_as_without_them() -> None:
    pipeline = Pipeline(REFUSING)
    out = np.empty((len(REFUSED_ROWS), pipeline.width), np.float32)
    numbers = np.array([row[1:] for row in REFUSED_ROWS])
    refusal = pipeline.run(numbers, [join_bytes(row[0] for row in REFUSED_ROWS)], len(REFUSED_ROWS), out, None)
    assert refusal is not None
    assert [refusal.reasons[at].split("'")[1] if at >= 0 else "" for at in refusal.found] == [
        "",
        "s",
        "x",
        "y",
        "s",
        "",
        "y",
    ]
    kept = [row for row, at in zip(REFUSED_ROWS, refusal.found, strict=True) if at < 0]
    table = dict(zip(("s", "x", "y"), zip(*kept, strict=True), strict=True))
    np.testing.assert_array_equal(out[refusal.found < 0], pipeline.transform(table))


def test_the_error_names_the_row_of_the_request_and_the_column() -> None:
    refusal = Pipeline(REFUSING).run(
        np.array([[1.0, 2.0], [1.0, 9.0]]), [join_bytes("aa")], 2, np.empty((2, 5), np.float32), None
    )
    assert refusal is not None
    assert not refusal.touches(0, 1)
    assert not refusal.touches(0, 0)
    assert refusal.touches(1, 1)
    assert str(refusal.error(1, 1)) == (
        "row 0 holds a value of 'y' that the training data did not have, expected one that it had"
    )


ACCEPTING = FeatureSpec(
    (StringColumn("s", "refuse"), StringColumn("t", "text"), NumberColumn("x", "refuse"), NumberColumn("y", None, 1e6)),
    Join((Text("s", Hash(2)), Text("t", Categories(("a", ""))), Take(("x", "y")))),
)
ACCEPTED = {
    ("a", "", 1.0, NAN): None,
    ("", "a", 1.0, 1.0): "has no value of 's', expected one: this version takes no missing value there",
    ("a", "a", NAN, 1.0): "has no value of 'x', expected one: this version takes no missing value there",
    ("a", "a", INF, -1e6): None,
    ("a", "a", 1.0, -INF): "holds a value of 'y' that is infinite or too large, expected a magnitude of at most 1e+06",
    ("a", "a", 1.0, 1e7): "holds a value of 'y' that is infinite or too large, expected a magnitude of at most 1e+06",
}


def test_a_column_says_what_it_accepts() -> None:
    pipeline = Pipeline(ACCEPTING)
    strings = [join_bytes(row[at] for row in ACCEPTED) for at in range(2)]
    numbers = np.array([row[2:] for row in ACCEPTED])
    refusal = pipeline.run(numbers, strings, len(ACCEPTED), np.empty((len(ACCEPTED), 5), np.float32), None)
    assert refusal is not None
    assert [None if at < 0 else refusal.reasons[at] for at in refusal.found] == list(ACCEPTED.values())


@pytest.mark.parametrize(("missing", "is_required"), [(None, True), ("accept", False), ("refuse", False)])
def test_the_training_rows_decide_about_missing_values_only_where_the_column_does_not(
    missing: Literal["accept", "refuse"] | None, is_required: bool
) -> None:
    features = FeatureSpec((NumberColumn("x", missing),), Take(("x",)))
    pipeline = Pipeline(features, fit_baseline(features, {"x": [1.0, 2.0]}).cells)
    assert pipeline.required == (frozenset({"x"}) if is_required else frozenset())


def test_refused_rows_are_counted_once() -> None:
    training = {"s": ["a", "b"], "x": [1.0, NAN], "y": [1.5, 2.5]}
    pipeline = Pipeline(REFUSING, fit_baseline(REFUSING, training).cells)
    cells = np.zeros(pipeline.cells_shape, np.int64)
    pipeline.run(np.array([[1.0, 2.0]] * 2), [join_bytes(["a", "new"])], 2, np.empty((2, 5), np.float32), cells)
    assert counts_of(cells).rows.tolist() == [2, 2, 2]


def test_training_rows_that_would_be_refused_are_an_error() -> None:
    with pytest.raises(InvalidInputError, match="row 1 holds a value of 's'"):
        Pipeline(REFUSING).transform({"s": ["a", "c"], "x": [1.0, 1.0], "y": [2.0, 2.0]})


def test_many_rows_are_refused_where_long_calls_run_too() -> None:
    pipeline = Pipeline(REFUSING)
    rows = 3000
    values = ["c" if at % 7 == 3 else "a" for at in range(rows)]
    refusal = pipeline.run(np.tile([1.0, 2.0], rows), [join_bytes(values)], rows, np.empty((rows, 5), np.float32), None)
    assert refusal is not None
    np.testing.assert_array_equal(refusal.found >= 0, np.arange(rows) % 7 == 3)
