from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tensors import join_bytes
from penstock_server.errors import InvalidInputError
from penstock_server.features.compiler.layout import MISSING_TIME
from penstock_server.prediction.decode import Block
from penstock_tools.batch.columns import Faults, Taken, check, taken

TEXTS = Block(("t",), "BYTES")


def filled(each, columns, rows):
    faults = Faults(rows)
    prepared = {name: each.prepared(column) for name, column in columns.items()}
    return each.raw(prepared, rows, faults), faults


@given(
    st.lists(st.none() | st.text())
    | st.lists(st.sampled_from([None, "", "Oslo", "Rom"]), min_size=100, max_size=200)
    | st.lists(st.sampled_from(["LHR", "OSL"]), max_size=9)
    | st.lists(st.just(""), max_size=3),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]),
)
def test_texts_are_bytes_elements(values, kind):
    """Also where few different ones repeat, which become elements once each."""
    array = pa.array(values, kind)
    raw, faults = filled(Taken(TEXTS, ("t",)), {"t": array}, len(values))
    assert raw == join_bytes(values)
    assert not faults
    part = array.slice(len(values) // 2)
    assert filled(Taken(TEXTS, ("t",)), {"t": part}, len(part))[0] == join_bytes(part.to_pylist())


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_texts_side_by_side_are_row_by_row(values):
    columns = {"a": pa.array([a for a, _ in values]), "b": pa.array([b for _, b in values]).dictionary_encode()}
    raw, _ = filled(Taken(Block(("a", "b"), "BYTES"), ("a", "b")), columns, len(values))
    assert raw == join_bytes(text for pair in values for text in pair)


@pytest.mark.parametrize("times", [1, 50])
def test_a_missing_text_is_a_fault_where_the_empty_one_means_itself(times):
    each = Taken(TEXTS, ("t",), takes_missing=False)
    _, faults = filled(each, {"t": pa.array(["a", None, ""] * times)}, 3 * times)
    assert np.flatnonzero(faults.at >= 0).tolist() == list(range(1, 3 * times, 3))
    raw, faults = filled(each, {"t": pa.array(["a", ""] * times)}, 2 * times)
    assert (raw, bool(faults)) == (join_bytes(["a", ""] * times), False)


@given(st.lists(st.none() | st.floats(width=64)))
def test_floats_are_the_same_floats(values):
    raw, faults = filled(Taken(Block(("x",), "FP64"), ("x",)), {"x": pa.array(values, pa.float64())}, len(values))
    np.testing.assert_array_equal(np.frombuffer(raw), np.array(values, np.float64))
    assert not faults


@pytest.mark.parametrize(
    ("kind", "array", "expected", "bad"),
    [
        ("FP64", pa.array([2**53, 2**53 + 1, 2**53 + 2]), [2.0**53, None, 2.0**53 + 2], "cannot hold"),
        ("FP64", pa.array([None, Decimal("1.5")], pa.decimal128(4, 2)), [np.nan, 1.5], ""),
        ("FP64", pa.array([True, None, False]), [1.0, np.nan, 0.0], ""),
        ("FP64", pa.nulls(2), [np.nan, np.nan], ""),
        ("FP32", pa.array([1e39, 0.1, np.inf]), [None, np.float32(0.1), np.inf], "cannot hold"),
        ("FP32", pa.array([2**24 + 1, 7]), [None, 7], "cannot hold"),
        ("INT64", pa.array([1.0, 1.5, np.nan]), [1, None, None], "cannot hold"),
        ("INT64", pa.array([1, None]), [1, None], "is missing"),
        ("UINT8", pa.array([-1, 255, 256]), [None, 255, None], "cannot hold"),
        ("INT8", pa.array([200, 100], pa.uint8()), [None, 100], "cannot hold"),
        ("BOOL", pa.array([0, 1, 2]), [False, True, None], "cannot hold"),
    ],
)
def test_a_number_that_the_type_cannot_hold_is_its_rows_fault(kind, array, expected, bad):
    each = Taken(Block(("x",), kind), ("x",))
    raw, faults = filled(each, {"x": array}, len(array))
    values = np.frombuffer(
        raw, {"FP64": "f8", "FP32": "f4", "INT64": "i8", "UINT8": "u1", "INT8": "i1", "BOOL": "?"}[kind]
    )
    fine = np.array([value is not None for value in expected])
    assert (faults.at < 0).tolist() == fine.tolist()
    np.testing.assert_array_equal(
        values[fine], np.array([value for value in expected if value is not None], values.dtype)
    )
    assert all(column == "x" and bad in reason for column, reason in faults.told)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_are_nanoseconds(unit):
    moment = datetime(2027, 1, 15, 8)  # noqa: DTZ001 - one without a zone is UTC
    array = pa.array([moment, None], pa.timestamp(unit))
    raw, faults = filled(Taken(Block(("t",), "INT64"), ("t",), is_time=True), {"t": array}, 2)
    assert np.frombuffer(raw, np.int64).tolist() == [1_800_000_000 * 10**9, MISSING_TIME]
    assert not faults


def test_a_time_beyond_nanoseconds_is_its_rows_fault():
    array = pa.array([10**11, 0], pa.int64()).cast(pa.timestamp("s"))
    _, faults = filled(Taken(Block(("t",), "INT64"), ("t",), is_time=True), {"t": array}, 2)
    assert faults.at.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("array", "bad"),
    [
        (pa.array([[1.0, 2.0], [3.0, 4.0]]), []),
        (pa.array([[1.0, 2.0], None, [3.0]]), [1, 2]),
        (pa.array([[1, 2], [2**53 + 1, 1]]), [1]),
        (pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)), []),
    ],
)
def test_lists_are_rows_of_a_tensor(array, bad):
    each = Taken(Block(("x",), "FP64", (2,)), ("x",), 2)
    _, faults = filled(each, {"x": array}, len(array))
    assert np.flatnonzero(faults.at >= 0).tolist() == bad


def test_names_of_a_matrix_make_it_one_of_columns():
    matrix = Block(("X",), "FP32", (2,))
    (each,) = taken([matrix], columns=("b", "a"))
    raw, _ = filled(each, {"a": pa.array([1.0, 2.0]), "b": pa.array([3, 4])}, 2)
    assert np.frombuffer(raw, np.float32).tolist() == [3, 1, 4, 2]
    with pytest.raises(InvalidInputError, match="3 columns are named, and the version takes 2 in 'X'"):
        taken([matrix], columns=("a", "b", "c"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"age": pa.string()}, "column 'age' holds string, expected numbers"),
        ({"ages": pa.int64()}, "lacks column 'age'; did you mean 'ages'"),
        ({"age": pa.list_(pa.int64())}, "expected numbers"),
    ],
)
def test_a_table_of_another_kind_is_refused_before_it_is_read(fields, sentence):
    with pytest.raises(InvalidInputError, match=sentence.replace("?", r"\?")):
        check(pa.schema(fields.items()), [Taken(Block(("age",), "FP64"), ("age",))])
