"""Rows with everything that columns hold, and both sides' answers to them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from penstock_server.features.pipeline import Pipeline
from penstock_tools.sklearn_compiler import sample_reading as samples
from penstock_tools.sklearn_compiler.compiler import compile_pipeline

ROWS = 240


@pytest.fixture(scope="session")
def frame():
    """Passengers: numbers with and without gaps, whole numbers, booleans, text with None, NaN and "" for what is missing."""
    draw = np.random.default_rng(7)
    age = draw.normal(40, 12, ROWS).round(1)
    age[::9] = np.nan
    city = draw.choice(["Oslo", "Rome", "Łódź", "Bern"], ROWS, p=[0.5, 0.3, 0.18, 0.02]).astype(object)
    city[::11] = None
    deck = draw.choice(["A", "B", "C"], ROWS).astype(object)
    deck[::5] = ""
    gate = draw.choice(["g1", "g2", "?"], ROWS).astype(object)
    gate[3::13] = np.nan
    maybe = draw.choice([True, False], ROWS).astype(object)
    maybe[::10] = None
    return pd.DataFrame(
        {
            "age": age,
            "fare": draw.lognormal(2, 1, ROWS),
            "year": draw.integers(1990, 2030, ROWS).astype(float),
            "class": draw.integers(1, 4, ROWS),
            "alone": draw.choice([True, False], ROWS),
            "maybe": pd.Series(maybe, dtype=object),
            "hole": np.full(ROWS, np.nan),
            "sex": draw.choice(["f", "m"], ROWS).astype(object),
            "city": pd.Series(city, dtype=object),
            "deck": deck,
            "gate": pd.Series(gate, dtype=object),
        }
    )


@pytest.fixture(scope="session")
def answers(frame):
    """Answers of every kind for each row."""
    draw = np.random.default_rng(8)
    number = np.nan_to_num(frame["age"].to_numpy()) / 40 + frame["class"].to_numpy() + draw.normal(0, 0.3, ROWS)
    is_high = number > np.median(number)
    return {
        "binary": is_high.astype(int),
        "boolean": is_high,
        "float": is_high + 1.0,
        "text": np.where(is_high, "high", "low"),
        "three": np.digitize(number, [2, 3]),
        "number": number,
    }


def both(transformer, frame, rows=None):
    """What scikit-learn's fitted transformer gives for the rows, and what its compiled specification gives."""
    rows = frame if rows is None else rows
    compiled = compile_pipeline(transformer, frame)
    given = samples.read(transformer, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = transformer.transform(given.as_float64())
    expected = expected.toarray() if sparse.issparse(expected) else np.asarray(expected, np.float64)
    return expected, Pipeline(compiled.features("FP64")).transform(given.on_the_wire())


@pytest.fixture
def hold_equal():
    """Holds that both sides give the same: every bit, or within `ulps` units in the last place of a column's largest."""

    def hold(transformer, frame, rows=None, ulps=0):
        expected, got = both(transformer, frame, rows)
        assert got.shape == expected.shape
        if not ulps:
            np.testing.assert_array_equal(got, expected)
            return
        scale = np.max(np.abs(np.where(np.isfinite(expected), expected, 0.0)), axis=0, initial=0.0)
        is_same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            off = np.where(is_same, 0.0, np.abs(got - expected) / np.spacing(np.maximum(scale, np.finfo(float).tiny)))
        assert not np.isnan(off).any()
        assert off.max() <= ulps

    return hold
