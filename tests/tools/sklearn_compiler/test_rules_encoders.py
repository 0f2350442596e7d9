"""Each encoder of category_encoders with its options, compiled, against the encoder itself: seen, unseen, missing, one row."""

from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest

from penstock_server.errors import InvalidInputError, UnsupportedError
from penstock_server.features.pipeline import Pipeline
from penstock_tools.sklearn_compiler.compiler import compile_pipeline

ce = pytest.importorskip("category_encoders")
from penstock_tools.sklearn_compiler.rules_encoders import _TABLES  # noqa: E402 - needs the package

ROWS = 60
ANSWERS = (np.arange(ROWS) % 3 > 0).astype(int)


def frame(missing=np.nan):
    """Two columns of text, one with gaps, between numbers."""
    draw = np.random.default_rng(5)
    city = draw.choice(["Oslo", "Rome", "Łódź", "Bern"], ROWS, p=[0.5, 0.3, 0.15, 0.05]).astype(object)
    deck = draw.choice(["A", "B", "C"], ROWS).astype(object)
    deck[::7] = missing
    return pd.DataFrame(
        {"fare": draw.normal(size=ROWS), "city": city, "class": draw.choice([1, 2, 3], ROWS), "deck": deck}
    )


QUESTIONS = {
    "seen": {"city": "Bern", "deck": "B"},
    "unseen": {"city": "Paris", "deck": "A"},
    "unseen, of the other column": {"city": "A", "deck": "Oslo"},
    "missing": {"city": "Rome", "deck": np.nan},
    "missing where none was": {"city": np.nan, "deck": "C"},
    "unseen and missing": {"city": "~", "deck": np.nan},
}


@cache
def one_row(name):
    question = QUESTIONS[name]
    values = {"fare": [0.25], "city": [question["city"]], "class": [2], "deck": [question["deck"]]}
    return pd.DataFrame({name: pd.Series(each, dtype=object) for name, each in values.items()}).astype(
        {"fare": float, "class": int}
    )


def assert_all_answers_are_its_own(encoder, rows, answers=ANSWERS):
    """The sample, and each question alone, which the compiled one refuses where the encoder refuses an unseen text."""
    fitted = encoder.fit(rows, answers)
    made = compile_pipeline(fitted, rows)
    compiled = Pipeline(made.features("FP64"))
    kinds = {}
    for name in ("the sample", *QUESTIONS):
        asked = rows if name == "the sample" else one_row(name).copy()
        wire = {
            column.name: asked[column.name].to_numpy(float)
            if not column.is_text
            else ["" if pd.isna(value) else value for value in asked[column.name]]
            for column in made.sample.columns
        }
        try:
            expected = np.asarray(fitted.transform(asked), np.float64)
        except ValueError:
            kinds[name] = "refused"
            if name == "unseen":
                with pytest.raises(InvalidInputError):
                    compiled.transform(wire)
            continue
        np.testing.assert_array_equal(compiled.transform(wire), expected, err_msg=name)
        kinds[name] = "answered"
    return kinds


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(_TABLES & set(vars(ce)) | {"GLMMEncoder"}))
def test_encoders_as_they_come(name):
    pytest.importorskip("statsmodels") if name == "GLMMEncoder" else None
    assert set(assert_all_answers_are_its_own(getattr(ce, name)(), frame()).values()) == {"answered"}


HANDLED = ("value", "return_nan", "error")
WITH_INDICATOR = (*HANDLED, "indicator")
FAMILIES = {
    ce.OrdinalEncoder: HANDLED,
    ce.OneHotEncoder: WITH_INDICATOR,
    ce.TargetEncoder: HANDLED,
    ce.BinaryEncoder: WITH_INDICATOR,
    ce.CountEncoder: HANDLED,
    ce.LeaveOneOutEncoder: HANDLED,
    ce.WOEEncoder: HANDLED,
}
FAILING = {(ce.BinaryEncoder, "indicator", "return_nan"), (ce.CountEncoder, "error", "return_nan")}
"""What the package cannot fit, or refuses its own sample with."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "unknown", "missing"),
    [
        pytest.param(kind, *each, id=f"{kind.__name__}, {', '.join(each)}")
        for kind, handled in FAMILIES.items()
        for each in product(handled, handled)
        if (kind, *each) not in FAILING
    ],
)
def test_what_is_made_of_unknown_and_missing(kind, unknown, missing):
    rows = frame() if missing != "error" else frame("Z")
    kinds = assert_all_answers_are_its_own(kind(handle_unknown=unknown, handle_missing=missing), rows)
    assert kinds["the sample"] == kinds["seen"] == "answered"


OPTIONS = {
    "columns chosen, a number too": ce.OrdinalEncoder(cols=["class", "deck", "city"]),
    "all columns": ce.TargetEncoder(cols="all"),
    "names of categories": ce.OneHotEncoder(use_cat_names=True),
    "an array": ce.WOEEncoder(return_df=False),
    "a given mapping": ce.OrdinalEncoder(
        mapping=[
            {"col": "city", "mapping": {"Oslo": 7, "Rome": 3}},
            {"col": "deck", "mapping": {"A": 1, np.nan: 0, "B": 5}},
        ]
    ),
    "small groups": ce.CountEncoder(min_group_size=10, normalize=True),
    "small groups by name": ce.TargetEncoder(min_group_size=10, min_group_name="rest"),
    "base 3": ce.BaseNEncoder(base=3),
    "constant columns dropped": ce.OneHotEncoder(drop_invariant=True, handle_unknown="indicator"),
    "no smoothing": ce.MEstimateEncoder(m=0.0),
    "beta": ce.JamesSteinEncoder(model="beta"),
    "noise while it is fitted": ce.CatBoostEncoder(sigma=0.5, random_state=0),
    "a number for unknown": ce.OrdinalEncoder(handle_unknown=99, handle_missing=-9),
}


@pytest.mark.long
@pytest.mark.parametrize("encoder", OPTIONS.values(), ids=OPTIONS)
def test_options(encoder):
    assert_all_answers_are_its_own(encoder, frame())


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_after_set_output(output):
    assert_all_answers_are_its_own(ce.OneHotEncoder().set_output(transform=output), frame())


@pytest.mark.parametrize("missing", [None, ""], ids=["None", "empty"])
def test_missing_is_what_stood_for_it_in_the_sample(missing):
    rows = frame(missing)
    encoder = ce.OrdinalEncoder(handle_missing="return_nan").fit(rows)
    compiled = Pipeline(compile_pipeline(encoder, rows).features("FP64"))
    expected = np.asarray(encoder.transform(rows), np.float64)
    wire = {**{name: rows[name].to_numpy(float) for name in ("fare", "class")}, "city": list(rows["city"])}
    np.testing.assert_array_equal(
        compiled.transform({**wire, "deck": ["" if v is None else v for v in rows["deck"]]}), expected
    )


def test_columns_of_categories_and_of_strings():
    rows = frame().astype({"city": "str", "deck": "category"})
    assert_all_answers_are_its_own(ce.TargetEncoder(), rows)


REFUSED = {
    "hashes": (ce.HashingEncoder(max_process=1), "it hashes all columns into the same ones"),
    "takes apart": (ce.MultiHotEncoder(), "it takes texts apart"),
    "several columns": (ce.TargetEncoder(composite_cols=[("city", "deck")]), "of several columns"),
}


@pytest.mark.parametrize(("encoder", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_refused(encoder, message):
    rows = frame("Z")
    with pytest.raises(UnsupportedError, match=message):
        compile_pipeline(encoder.fit(rows, ANSWERS), rows)
