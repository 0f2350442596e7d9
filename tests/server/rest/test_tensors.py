import json
from math import inf, nan, prod

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.tensors import BF16, NUMPY_TYPES, from_raw, to_raw, widened
from penstock_server.errors import InvalidInputError
from penstock_server.rest.tensors import finite_json, json_of_raw, raw_of_json

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
FIXED = sorted(NUMPY_TYPES)


@given(st.data(), st.sampled_from(FIXED), SHAPES, st.booleans())
def test_a_tensor_is_the_same_after_json(
    data: st.DataObject, datatype: str, shape: tuple[int, ...], is_nested: bool
) -> None:
    array = data.draw(hnp.arrays(NUMPY_TYPES[datatype], shape))
    raw = to_raw(array, datatype)
    flat = json_of_raw(raw, datatype, shape, "x")
    nested = np.array(flat, object).reshape(shape).tolist() if is_nested else flat
    again = raw_of_json(msgspec.Raw(json.dumps(nested, allow_nan=False).encode()), datatype, shape, "x")
    if datatype in {"FP16", BF16, "FP32", "FP64"}:
        # NaN has many forms, and JSON one.
        expected = widened(raw) if datatype == BF16 else from_raw(raw, datatype, (prod(shape),))
        read = widened(again) if datatype == BF16 else from_raw(again, datatype, (prod(shape),))
        np.testing.assert_array_equal(read, expected)
    else:
        assert again == raw


@given(st.lists(st.text(), max_size=5))
def test_texts_are_the_same_after_json(texts: list[str]) -> None:
    data = json.dumps(texts).encode()
    raw = raw_of_json(msgspec.Raw(data), "BYTES", [len(texts)], "x")
    assert json_of_raw(raw, "BYTES", [len(texts)], "x") == texts


@pytest.mark.parametrize(
    ("data", "datatype", "expected"),
    [
        ("[null]", "FP32", nan),
        ('["NaN"]', "FP64", nan),
        ('["Infinity"]', "FP16", inf),
        ('["-Infinity"]', "BF16", -inf),
        ("[3.0]", "INT8", 3),
        ("[18446744073709551615]", "UINT64", 18446744073709551615),
        ("[16777217]", "FP32", 16777216.0),
        ("[true]", "BOOL", True),
    ],
)
def test_what_json_says_in_other_ways_is_understood(data: str, datatype: str, expected: float) -> None:
    raw = raw_of_json(msgspec.Raw(data.encode()), datatype, [1], "x")
    (value,) = from_raw(raw, datatype, (1,)).tolist()
    assert value == expected or (value != value and expected != expected)


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "said"),
    [
        ("[1, 2]", "FP32", [3], r"tensor 'x' of shape \[3\] takes 3 elements, got 2"),
        ("[300]", "INT8", [1], "out of the range of INT8"),
        ("[-1]", "UINT64", [1], "out of the range of UINT64"),
        ("[1e39]", "FP32", [1], "out of the range of FP32"),
        ("[1e999]", "FP64", [1], "out of the range of FP64"),
        ("[-31e999]", "INT64", [1], "out of the range of INT64"),
        ("[70000]", "FP16", [1], "out of the range of FP16"),
        (f"[{10**400}]", "INT64", [1], "out of the range of INT64"),
        (f"[{10**400}]", "FP64", [1], "out of the range of FP64"),
        ("[1.5]", "INT32", [1], "takes whole numbers, got 1.5"),
        ("[null]", "INT32", [1], "takes whole numbers, got null"),
        ("[true]", "INT32", [1], "takes whole numbers, got true"),
        ('["a"]', "FP32", [1], "takes numbers, got 'a'"),
        ("[true]", "FP32", [1], "takes numbers, got true"),
        ("[1]", "BOOL", [1], "takes true or false, got 1"),
        ("[0]", "BYTES", [1], "takes texts, got 0"),
        ("[null]", "BYTES", [1], "takes texts, got null"),
        ("[{}]", "FP32", [1], "takes numbers, got an object"),
        ("[[1, 2], [3]]", "FP32", [2, 2], "of different lengths"),
        ("[[1], 2]", "FP32", [2, 1], "of different lengths"),
        ("[[1, 2, 3], [4, 5, 6]]", "FP32", [3, 2], r"nested as \[2, 3\], its shape is \[3, 2\]"),
        ("7", "FP32", [1], "takes a list as its data, got 7"),
        ('"a"', "BYTES", [1], "takes a list as its data, got 'a'"),
        ("[1]", "FLOAT", [1], "unknown datatype 'FLOAT'; expected one of BOOL"),
        ("[" * 40 + "]" * 40, "FP32", [0], "nested too deeply"),
    ],
)
def test_data_that_are_not_the_tensor_s_are_refused(data: str, datatype: str, shape: list[int], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        raw_of_json(msgspec.Raw(data.encode()), datatype, shape, "x")


def test_bytes_that_are_no_text_ask_for_the_binary_form() -> None:
    with pytest.raises(
        InvalidInputError, match=r"output 'x' holds bytes that are no UTF-8, .* ask for it with binary_data"
    ):
        json_of_raw(b"\x01\x00\x00\x00\xff", "BYTES", [1], "x")


def test_numbers_that_are_not_finite_are_texts() -> None:
    assert [finite_json(value) for value in (1.0, nan, inf, -inf)] == [1.0, "NaN", "Infinity", "-Infinity"]
