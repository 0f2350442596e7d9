from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from penstock_client.errors import InvalidRequestError
from penstock_client.rows import table_of


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"a": [1, 2], "b": ["x", None]}, {"a": [1, 2], "b": ["x", None]}),
        ({"a": 1, "b": None, "c": "xy", "d": b"z"}, {"a": [1], "b": [None], "c": ["xy"], "d": [b"z"]}),
        ({"a": np.float64(1)}, {"a": [1.0]}),
        ([{"a": 1, "b": "x"}, {"b": "y", "a": 2}], {"a": [1, 2], "b": ["x", "y"]}),
        ({0: [1], 1: [2]}, {"0": [1], "1": [2]}),
        (({"a": 1},), {"a": [1]}),
        ({}, {}),
    ],
)
def test_columns_come_out_by_name(rows, expected):
    assert table_of(rows) == expected


def test_an_array_is_left_as_it_is():
    rows = np.zeros((2, 3))
    assert table_of(rows) is rows


@pytest.mark.parametrize("rows", [[[1, 2], [3, 4]], ((1, 2), (3, 4)), [np.array([1, 2]), np.array([3, 4])]])
def test_lists_of_lists_are_an_array(rows):
    assert table_of(rows).tolist() == [[1, 2], [3, 4]]


def test_lists_of_lists_keep_what_is_missing():
    assert table_of([[1, None], [2, 3]]).tolist() == [[1, None], [2, 3]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "rows is an empty list"),
        ([1, 2], "rows is a list of int"),
        ([[1], [2, 3]], "unlike lengths"),
        ([{"a": 1}, {"b": 1}], "row 1 has the columns ['b'], row 0 has ['a']"),
        ([{"a": 1}, 7], "row 1 has the columns int"),
        ({"a": [1], "b": 2}, "column 'b' is one value"),
        ("abc", "got str"),
        (None, "got NoneType"),
        ({1, 2}, "got set"),
        (SimpleNamespace(columns=[]), "got SimpleNamespace"),
        (pl.LazyFrame({"a": [1]}), "got LazyFrame"),
    ],
)
def test_other_forms_are_refused(rows, words):
    with pytest.raises(InvalidRequestError, match=r".") as refused:
        table_of(rows)
    assert words in str(refused.value)


FRAMES = [
    pd.DataFrame({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}),
    pd.DataFrame({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}).convert_dtypes(),
    pd.DataFrame({"n": [1, 2], "t": pd.Categorical(["x", None]), "f": np.array([0.5, np.nan], np.float32)}),
    pd.DataFrame({"n": [1, 2], "t": np.array(["x", np.nan], object), "f": [0.5, None]}, index=[7, 9]),
    pl.DataFrame({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}),
    pl.DataFrame({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}).with_columns(pl.col("t").cast(pl.Categorical)),
]


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_frames_give_their_columns(frame):
    table = table_of(frame)
    assert list(table) == ["n", "t", "f"]
    assert list(table["n"]) == [1, 2]
    assert list(table["t"]) == ["x", None]
    assert table["f"][0] == 0.5
    assert table["f"][1] is None or np.isnan(table["f"][1])


@pytest.mark.parametrize("series", [pd.Series(["x", None]), pl.Series(["x", None])])
def test_a_dict_of_series_is_taken_too(series):
    assert list(table_of({"t": series})["t"]) == ["x", None]


def test_a_frame_is_not_changed():
    frame = pd.DataFrame({"t": np.array(["x", np.nan], object)})
    table_of(frame)
    assert isinstance(frame["t"].iloc[1], float)


def test_repeated_columns_are_refused():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(InvalidRequestError, match="more than one column 'a'"):
        table_of(frame)
