import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler

from penstock.tensors import join_bytes
from penstock_server.errors import InvalidInputError
from penstock_server.features import pipeline as module
from penstock_server.features.baseline import Baseline, fit_baseline
from penstock_server.features.pipeline import Pipeline, count_elements
from penstock_server.features.spec import (
    Bucket,
    Clip,
    Column,
    FeatureSpec,
    Fill,
    Log1p,
    NumberColumn,
    Standardise,
    Step,
    StringColumn,
)

NAN, INF = float("nan"), float("inf")

REALS = st.floats(width=64) | st.sampled_from([NAN, INF, -INF, 0.0, -0.0, -1.0, 5e-324, 1e308, -1e308])
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
STEPS: st.SearchStrategy[Step] = st.one_of(
    FINITE.map(Fill),
    st.lists(FINITE, min_size=2, max_size=2).map(lambda sides: Clip(*sorted(sides))),
    FINITE.map(lambda low: Clip(low, None)),
    FINITE.map(lambda high: Clip(None, high)),
    st.just(Log1p()),
    st.builds(Standardise, FINITE, st.floats(1e-3, 1e6)),
    st.sets(FINITE.map(lambda edge: edge + 0.0), min_size=1, max_size=9).map(
        lambda edges: Bucket(tuple(sorted(edges)))
    ),
    st.integers(60, 90).map(lambda count: Bucket(tuple(map(float, range(count))))),
)
WORDS = st.sampled_from(["", "a", "b", "ab", "abcdefgh", "abcdefghi", "é", "a\0"]) | st.text(max_size=20)


def by_numpy(step: Step, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a step means, in numpy."""
    with np.errstate(all="ignore"):
        match step:
            case Fill(value):
                return np.where(np.isnan(x), value, x)
            case Clip(low, high):
                return np.clip(x, low, high)
            case Log1p():
                return np.log1p(x)
            case Standardise(mean, scale):
                return (x - mean) / scale
            case Bucket(edges):
                return np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x, side="right"))


def run_number(steps: tuple[Step, ...], values: list[float], datatype: Any = "FP64") -> NDArray[Any]:
    return Pipeline(FeatureSpec((NumberColumn("x", steps),), datatype)).transform({"x": np.array(values)})[:, 0]


@given(st.lists(STEPS, max_size=4).map(tuple), st.lists(REALS, max_size=300))
def test_steps_are_what_numpy_makes_of_them(steps: tuple[Step, ...], values: list[float]) -> None:
    # A value next to an edge may fall on its other side after a logarithm that differs in the last bit.
    while Log1p() in steps and any(isinstance(step, Bucket) for step in steps):
        steps = tuple(step for step in steps if not isinstance(step, Log1p))
    expected = np.array(values, np.float64)
    for step in steps:
        expected = by_numpy(step, expected)
    np.testing.assert_allclose(run_number(steps, values), expected, rtol=1e-14 if Log1p() in steps else 0)


@pytest.mark.parametrize(
    ("step", "values", "expected"),
    [
        (Fill(7), [NAN, INF, -INF, 1], [7, INF, -INF, 1]),
        (Clip(0, 2), [NAN, INF, -INF, 1], [NAN, 2, 0, 1]),
        (Clip(0, None), [NAN, INF, -INF], [NAN, INF, 0]),
        (Clip(None, 2), [NAN, INF, -INF], [NAN, 2, -INF]),
        (Log1p(), [NAN, INF, -INF, -1, -1.5, 0], [NAN, INF, NAN, -INF, NAN, 0]),
        (Standardise(1, 2), [NAN, INF, -INF, 5], [NAN, INF, -INF, 2]),
        (Bucket((0, 1)), [NAN, INF, -INF, -0.5, 0, 0.5, 1], [3, 2, 0, 0, 1, 1, 2]),
    ],
)
def test_what_each_step_does_with_nan_and_the_infinities(
    step: Step, values: list[float], expected: list[float]
) -> None:
    np.testing.assert_array_equal(run_number((step,), values), expected)


def test_too_large_for_fp32_becomes_an_infinity() -> None:
    np.testing.assert_array_equal(run_number((), [1e300, -1e300, 0.1], "FP32"), np.float32([INF, -INF, 0.1]))


def test_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    x, words = rng.lognormal(size=500), rng.choice(["JFK", "LGA", "EWR"], 500)
    scaler = StandardScaler().fit(x[:, None])
    np.testing.assert_array_equal(
        run_number((Standardise(scaler.mean_[0], scaler.scale_[0]),), list(x)), scaler.transform(x[:, None])[:, 0]
    )
    bins = KBinsDiscretizer(7, encode="ordinal", quantile_method="linear").fit(x[:, None])
    edges = bins.bin_edges_[0][1:-1]
    np.testing.assert_array_equal(run_number((Bucket(tuple(edges)),), list(x)), bins.transform(x[:, None])[:, 0])
    table = {"origin": np.append(words, "unseen")}
    for encoding, encoder in [
        ("one_hot", OneHotEncoder(sparse_output=False, handle_unknown="ignore")),
        ("ordinal", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=3)),
    ]:
        expected = encoder.fit(words[:, None]).transform(table["origin"][:, None])
        column = StringColumn("origin", tuple(encoder.categories_[0].tolist()), encoding)  # type: ignore[arg-type]
        found = Pipeline(FeatureSpec((column,), "FP64")).transform(table)
        np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)
        assert found[-1].tolist() == ([0, 0, 0, 1] if encoding == "one_hot" else [3])


@given(st.lists(WORDS, unique=True, max_size=40), st.lists(WORDS, max_size=60), st.sampled_from(["ordinal", "one_hot"]))
def test_a_string_has_the_index_of_its_category_and_any_other_has_the_last(
    categories: list[str], values: list[str], encoding: Any
) -> None:
    pipeline = Pipeline(FeatureSpec((StringColumn("s", tuple(categories), encoding),)))
    expected = [categories.index(value) if value in categories else len(categories) for value in values]
    found = pipeline.transform({"s": values})
    if encoding == "one_hot":
        assert found.tolist() == np.eye(len(categories) + 1)[expected].tolist()
    else:
        assert found[:, 0].tolist() == expected


def test_many_categories_are_each_found() -> None:
    categories = [f"category {at}" for at in range(20_000)]
    pipeline = Pipeline(FeatureSpec((StringColumn("s", tuple(categories)),)))
    assert pipeline.transform({"s": [*categories, "category 20000"]})[:, 0].tolist() == list(range(20_001))


def test_a_huge_string_is_unseen() -> None:
    pipeline = Pipeline(FeatureSpec((StringColumn("s", ("x",)),)))
    assert pipeline.transform({"s": ["x" * 5_000_000, "x", ""]})[:, 0].tolist() == [1, 0, 1]


COLUMNS: tuple[Column, ...] = (
    NumberColumn("a", (Fill(1), Log1p(), Standardise(0.5, 2))),
    StringColumn("s", ("x", "yy", "zzz"), "one_hot"),
    NumberColumn("b", (Clip(-1, 1), Bucket((-0.5, 0.5)))),
    StringColumn("t", ("", "p")),
    NumberColumn("c"),
)
SPEC = FeatureSpec(COLUMNS)
TRAINING = {
    "a": [NAN, INF, *np.linspace(0, 9, 98)],
    "b": np.sin(np.arange(100)),
    "c": np.zeros(100),
    "s": ["x", "yy", "other", ""] * 25,
    "t": ["p", ""] * 50,
}
BASELINE = fit_baseline(SPEC, TRAINING)
PIPELINE = Pipeline(SPEC, BASELINE)

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
    assert PIPELINE.cells_shape == BASELINE.reference.shape
    assert Pipeline(FeatureSpec(COLUMNS, "FP64")).dtype == np.float64


def test_required_are_the_numbers_that_nothing_fills_and_that_training_never_lacked() -> None:
    assert PIPELINE.required == {"c"}
    lacking = fit_baseline(SPEC, TRAINING | {"c": [NAN] * 100})
    assert Pipeline(SPEC, lacking).required == set()
    assert Pipeline(SPEC).required == set()


@given(ROWS)
def test_a_batch_is_its_rows_one_by_one(rows: Rows) -> None:
    out, cells = run(rows)
    single = [run([row]) for row in rows]
    np.testing.assert_array_equal(out, np.concatenate([np.empty((0, 8)), *(one for one, _ in single)]))
    np.testing.assert_array_equal(cells, sum((counts for _, counts in single), np.zeros_like(cells)))


@given(ROWS)
def test_cells_are_a_recount_of_the_raw_values(rows: Rows) -> None:
    _, cells = run(rows)
    table = dict(zip(("a", "b", "c", "s", "t"), zip(*rows, strict=True), strict=True)) if rows else {}
    expected = np.zeros_like(cells)
    for row, (column, known) in enumerate(zip(BASELINE.columns, COLUMNS, strict=True)):
        for value in table.get(column.name, ()):
            expected[row, cell_by_hand(column, known, value)] += 1
    np.testing.assert_array_equal(cells, expected)


def cell_by_hand(column: Any, known: Any, value: Any) -> int:
    if isinstance(value, str):
        if value == "":
            return -3
        code = known.categories.index(value) if value in known.categories else None
        return -1 if code is None else column.codes.index(code) if code in column.codes else len(column.codes)
    if np.isnan(value):
        return -3
    return -2 if np.isinf(value) else int(np.searchsorted(column.edges, value, side="right"))


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
    np.testing.assert_array_equal(cells, 2 * once)


def test_a_baseline_with_many_bins_counts_like_one_with_few() -> None:
    values = np.random.default_rng(1).normal(size=3000)
    spec = FeatureSpec((NumberColumn("x"),))
    baseline = fit_baseline(spec, {"x": values}, bins=200)
    pipeline = Pipeline(spec, baseline)
    cells = np.zeros(pipeline.cells_shape, np.int64)
    pipeline.run(values, (), 3000, np.empty((3000, 1), np.float32), cells)
    np.testing.assert_array_equal(cells, baseline.reference)


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_elements_are_counted(values: list[bytes]) -> None:
    raw = join_bytes(values)
    assert count_elements(raw) == len(values)
    if raw:
        assert count_elements(raw[:-1]) == -1
    assert count_elements(raw + b"\1") == -1
    assert count_elements(raw + b"\xff\xff\xff\xff") == -1


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 9))
@settings(max_examples=300)
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
        "strings": (join_bytes(["x", "x"]), join_bytes(["p", "p"])),
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
        ({"strings": ()}, "got 48 bytes, 0 string columns"),
        ({"strings": (b"", b"")}, "hold 0 bytes that are not 2 elements"),
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
    with pytest.raises(InvalidInputError, match="no drift baseline"):
        pipeline.run(**good() | {"cells": np.zeros((5, 0), np.int64)})


def test_another_specifications_baseline_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="drift baseline is of the feature specification sha256:"):
        Pipeline(FeatureSpec(COLUMNS, "FP64"), BASELINE)
    forged = Baseline(BASELINE.columns[::-1], BASELINE.spec_digest)
    with pytest.raises(InvalidInputError, match="other columns"):
        Pipeline(SPEC, forged)


def test_transform_names_what_is_missing() -> None:
    with pytest.raises(InvalidInputError, match="no column 'c'"):
        PIPELINE.transform({name: values for name, values in TRAINING.items() if name != "c"})


def test_no_rows_give_no_rows() -> None:
    assert PIPELINE.transform({name: [] for name in PIPELINE.columns}).shape == (0, 8)


@pytest.mark.parametrize("brief_values", [0, module.BRIEF_VALUES])
def test_threads_at_once_get_their_own_answers(brief_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRIEF_VALUES", brief_values)
    pipeline = Pipeline(SPEC, BASELINE)
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
