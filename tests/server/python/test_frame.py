from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from penstock.tensors import join_bytes
from penstock_server.python.description import Column
from penstock_server.python.frame import rows_of
from tests.server.python.conftest import described

NAN = float("nan")
NUMBERS = {
    "floats": (Column("c"), [1.5, NAN], pd.Series([1.5, NAN])),
    "narrow floats": (Column("c", dtype="float32"), [1.5, NAN], pd.Series([1.5, NAN], dtype="float32")),
    "whole": (Column("c", dtype="int64"), [1, 2], pd.Series([1, 2])),
    "whole, one missing": (Column("c", dtype="int64"), [1, NAN], pd.Series([1, NAN])),
    "whole, a fraction": (Column("c", dtype="int8"), [1, 2.5], pd.Series([1, 2.5])),
    "whole, too large": (Column("c", dtype="uint8"), [1, 300], pd.Series([1.0, 300.0])),
    "booleans": (Column("c", dtype="bool"), [1, 0], pd.Series([True, False])),
    "booleans, one missing": (Column("c", dtype="bool"), [1, NAN], pd.Series([1, NAN])),
    "nullable whole": (Column("c", dtype="Int64"), [1, NAN], pd.Series([1, None], dtype="Int64")),
    "nullable whole, a fraction": (Column("c", dtype="Int64"), [1.5, NAN], pd.Series([1.5, None], dtype="Float64")),
    "nullable floats": (Column("c", dtype="Float64"), [1.5, NAN], pd.Series([1.5, None], dtype="Float64")),
    "nullable booleans": (Column("c", dtype="boolean"), [1, NAN], pd.Series([True, None], dtype="boolean")),
    "objects": (
        Column("c", dtype="object", values="bool", missing="None"), [1, NAN], pd.Series([True, None], dtype=object),
    ),
    "whole objects": (Column("c", dtype="object", values="int"), [7, NAN], pd.Series([7, NAN], dtype=object)),
    "whole objects, a fraction": (Column("c", dtype="object", values="int"), [7.5], pd.Series([7.5], dtype=object)),
    "decimals": (Column("c", dtype="object", values="Decimal"), [1.1], pd.Series([Decimal("1.1")], dtype=object)),
    "categories": (
        Column("c", dtype="category", values="int", categories=(3, 1)), [1, NAN, 2],
        pd.Series(pd.Categorical([1, NAN, 2], categories=[3, 1, 2])),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("column", "values", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_become_what_the_pipeline_knew(column, values, expected):
    description = described(columns=(column,))
    found = rows_of(description, [np.array(values, np.float64).tobytes()], len(values))
    pd.testing.assert_frame_equal(found, pd.DataFrame({"c": expected}))
    if expected.dtype == object:
        assert [type(value) for value in found["c"]] == [type(value) for value in expected]


TEXTS = {
    "objects": (Column("c", "text", "object"), ["a", ""], pd.Series(["a", NAN], dtype=object)),
    "objects, None": (Column("c", "text", "object", "None"), ["a", ""], pd.Series(["a", None], dtype=object)),
    "objects, empty": (Column("c", "text", "object", "empty"), ["a", ""], pd.Series(["a", ""], dtype=object)),
    "strings": (Column("c", "text", "string", "NA"), ["ß", ""], pd.Series(["ß", None], dtype="string")),
    "categories": (
        Column("c", "text", "category", categories=("b", "a"), is_ordered=True), ["a", "", "new"],
        pd.Series(pd.Categorical(["a", None, "new"], categories=["b", "a", "new"], ordered=True)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("column", "values", "expected"), TEXTS.values(), ids=TEXTS)
def test_text_becomes_what_the_pipeline_knew(column, values, expected):
    description = described(columns=(column,))
    found = rows_of(description, [b"", join_bytes(values)], len(values))
    pd.testing.assert_frame_equal(found, pd.DataFrame({"c": expected}))
    if column.dtype == "object":
        assert [type(value) for value in found["c"]] == [type(value) for value in expected]


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "datetime64[us]", "datetime64[ns, Europe/Berlin]"])
def test_times_become_what_the_pipeline_knew(dtype):
    given = pd.Series(["2024-03-31T01:30:00", None], dtype="datetime64[ns]").dt.tz_localize("UTC")
    expected = given.astype(dtype) if "," in dtype else given.dt.tz_localize(None).astype(dtype)
    nanoseconds = given.dt.tz_localize(None).to_numpy().view(np.int64)
    description = described(columns=(Column("c", "time", dtype),))
    found = rows_of(description, [b"", nanoseconds.tobytes()], 2)
    pd.testing.assert_frame_equal(found, pd.DataFrame({"c": expected}))


def test_columns_keep_their_order_and_their_blocks():
    columns = (
        Column("t", "text", "object"),
        Column("a"),
        Column("when", "time", "datetime64[ns]"),
        Column("b", dtype="int64"),
    )
    blocks = [np.array([[1.0, 2.0], [3.0, 4.0]]).tobytes(), np.array([0, 1]).tobytes(), join_bytes(["x", "y"])]
    found = rows_of(described(columns=columns), blocks, 2)
    assert list(found.columns) == ["t", "a", "when", "b"]
    assert found["t"].tolist() == ["x", "y"]
    assert found[["a", "b"]].to_numpy().tolist() == [[1, 2], [3, 4]]


def test_a_series_and_arrays():
    series = rows_of(
        described(columns=(Column("text", "text", "object"),), container="series"), [b"", join_bytes(["a", "b"])], 2
    )
    assert (series.name, series.tolist()) == ("text", ["a", "b"])
    numbers = described(columns=(Column("0", dtype="float32"), Column("1", dtype="float32")), container="array")
    matrix = rows_of(numbers, [np.array([[1.0, 2.0]]).tobytes()], 1)
    assert (matrix.dtype, matrix.tolist()) == (np.float32, [[1, 2]])
    mixed = described(columns=(Column("0"), Column("1", "text", "object")), container="array")
    assert rows_of(mixed, [np.array([1.0]).tobytes(), join_bytes(["a"])], 1).tolist() == [[1.0, "a"]]
