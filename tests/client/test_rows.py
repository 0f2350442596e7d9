from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
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
        ({0: [1], 1: [2]}, [[1], [2]]),
        ({1: [1], 0: [2]}, {"1": [1], "0": [2]}),
        ({"a": [bytearray(b"xy")]}, {"a": [bytearray(b"xy")]}),
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
    pd.DataFrame({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}).convert_dtypes(dtype_backend="pyarrow"),
    pl.DataFrame({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}),
    pa.table({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}),
    pa.RecordBatch.from_pydict({"n": [1, 2], "t": ["x", None], "f": [0.5, None]}),
    pa.table({"n": [1, 2], "t": pa.array(["x", None]).dictionary_encode(), "f": [0.5, None]}),
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


def test_repeated_names_are_refused_in_every_form():
    for rows in (pa.table([[1], [2]], names=["a", "a"]), {"1": [1], 1: [2]}):
        with pytest.raises(InvalidRequestError, match="more than one column"):
            table_of(rows)


MORE = 2**53 + 1
WITH_A_GAP = [
    pd.Series([MORE, None], dtype="Int64"),
    pd.Series([MORE, None], dtype="int64[pyarrow]"),
    pd.Series(pd.Categorical([MORE, None])),
    pl.Series([MORE, None]),
    pa.array([MORE, None]),
    pa.chunked_array([[MORE], [None]]),
    np.ma.array([MORE, 5], mask=[False, True]),
]


@pytest.mark.parametrize(
    "column",
    WITH_A_GAP,
    ids=lambda column: (
        f"{type(column).__module__}-{column.dtype}" if hasattr(column, "dtype") else type(column).__name__
    ),
)
def test_whole_numbers_beside_a_gap_are_not_rounded(column):
    values = table_of({"a": column})["a"]
    assert [None if value is None else int(value) for value in values] == [MORE, None]


def test_a_mask_hides_its_values():
    assert table_of(np.ma.array([[1.5, 2.5]], mask=[[True, False]])).tolist() == [[None, 2.5]]
    assert table_of(np.ma.array([[1.5, 2.5]])).tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    "rows", [[[MORE, 0.5]], [(MORE, None)], [np.array([MORE]), np.array([0.5])], [[MORE], [2**63]]]
)
def test_lists_of_lists_keep_every_digit(rows):
    assert int(table_of(rows)[0][0]) == MORE


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame([[1, "x"], [2, "y"]]),
        pd.DataFrame([[1, "x"], [2, "y"]]).to_dict("list"),
        pd.DataFrame([[1, "x"], [2, "y"]]).to_dict("records"),
    ],
)
def test_columns_that_are_only_counted_have_no_names(rows):
    assert [list(column) for column in table_of(rows)] == [[1, 2], ["x", "y"]]


def test_counted_columns_in_another_order_have_names():
    frame = pd.DataFrame([[1, 2]])
    assert list(table_of(frame[[1, 0]])) == ["1", "0"]


def test_named_tuples_and_structured_arrays_have_names():
    frame = pd.DataFrame({"b": [1, 2], "a": [3.5, 4.5]})
    named = table_of(list(frame.itertuples(index=False)))
    structured = table_of(frame.to_records(index=False))
    for table in (named, structured):
        assert {name: list(values) for name, values in table.items()} == {"b": [1, 2], "a": [3.5, 4.5]}
