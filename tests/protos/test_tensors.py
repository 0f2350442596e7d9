import doctest
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from penstock import inference_pb2 as pb
from penstock import tensors
from penstock.tensors import (
    NUMPY_TYPES,
    TYPED_FIELDS,
    datatype_of,
    from_raw,
    join_bytes,
    numpy_type,
    split_bytes,
    to_raw,
    typed_to_raw,
)

SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.sampled_from(sorted(NUMPY_TYPES)).flatmap(lambda name: npst.arrays(NUMPY_TYPES[name], SHAPES))
ELEMENTS = st.lists(st.binary(max_size=20), max_size=8)


def test_examples() -> None:
    found = doctest.testmod(tensors)
    assert found.attempted > 0
    assert found.failed == 0


@given(array=ARRAYS)
def test_numbers_come_back(array: np.ndarray[Any, Any]) -> None:
    datatype = datatype_of(array.dtype)
    back = from_raw(to_raw(array), datatype, array.shape)
    assert back.dtype == NUMPY_TYPES[datatype]
    np.testing.assert_array_equal(back, array)


@given(parts=st.lists(st.integers(0, 4), min_size=1, max_size=4), datatype=st.sampled_from([*NUMPY_TYPES, "BYTES"]))
def test_a_join_of_contents_is_the_contents_of_the_join(parts: list[int], datatype: str) -> None:
    arrays = [np.arange(rows * 2).reshape(rows, 2) for rows in parts]
    typed = [a.astype(str).astype(object) if datatype == "BYTES" else a.astype(NUMPY_TYPES[datatype]) for a in arrays]
    assert b"".join(map(to_raw, typed)) == to_raw(np.concatenate(typed))


@given(array=npst.arrays(npst.scalar_dtypes(), SHAPES))
def test_byte_order_in_memory_does_not_matter(array: np.ndarray[Any, Any]) -> None:
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        little = array.astype(array.dtype.newbyteorder("<"))
        assert to_raw(array) == little.tobytes()
        assert datatype_of(array.dtype) == datatype_of(little.dtype)


@given(array=npst.arrays(np.float32, SHAPES, elements=st.floats(width=32)))
@example(array=np.array([1.00390625, 1.01171875, 3.3961775e38, 3.4e38, -1e-45, np.nan, -np.inf], np.float32))
def test_bfloat16_is_the_nearest(array: np.ndarray[Any, Any]) -> None:
    raw = to_raw(array, "BF16")
    with np.errstate(over="ignore"):
        expected = array.astype(ml_dtypes.bfloat16)
    is_nan = np.isnan(array).ravel()
    assert (np.frombuffer(raw, "<u2") == expected.view("<u2").ravel())[~is_nan].all()
    back = from_raw(raw, "BF16", array.shape)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, expected.astype(np.float32))
    assert to_raw(back, "BF16") == raw
    with pytest.raises(ValueError, match=rf"BF16 of shape .* takes {2 * array.size} bytes, got {len(raw) + 1}"):
        from_raw(raw + b"a", "BF16", array.shape)


@given(elements=ELEMENTS)
def test_strings_come_back(elements: list[bytes]) -> None:
    raw = join_bytes(elements)
    assert split_bytes(raw, len(elements)) == elements
    assert from_raw(raw, "BYTES", [len(elements), 1]).ravel().tolist() == elements


@given(elements=ELEMENTS, cut=st.integers(1, 200), more=st.integers(-2, 2).filter(bool))
def test_torn_strings_are_refused(elements: list[bytes], cut: int, more: int) -> None:
    raw = join_bytes(elements)
    for broken, count in ((raw[:-cut], len(elements)), (raw, len(elements) + more), (raw + b"\1", len(elements))):
        if (broken, count) != (raw, len(elements)):
            with pytest.raises(ValueError, match=f"expected {count} elements"):
                split_bytes(broken, count)


@given(raw=st.binary(max_size=40), count=st.integers(0, 5))
def test_splitting_loses_nothing(raw: bytes, count: int) -> None:
    try:
        elements = split_bytes(raw, count)
    except ValueError:
        return
    assert join_bytes(elements) == raw


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["no", "é"]), [b"no", "é".encode()]),
        (np.array([b"a", b"bc"]), [b"a", b"bc"]),
        (np.array([None, "x", b"\xff", 5], object), [b"", b"x", b"\xff", b"5"]),
        (np.array([["a"], ["b"]], object), [b"a", b"b"]),
    ],
)
def test_text_of_any_kind_is_bytes(values: Any, expected: list[bytes]) -> None:
    assert datatype_of(values.dtype) == "BYTES"
    assert split_bytes(to_raw(values), len(expected)) == expected


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "longdouble"])
def test_numbers_that_the_protocol_lacks_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="has no datatype in the Open Inference Protocol"):
        datatype_of(np.dtype(dtype))


def test_unknown_datatypes_are_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown datatype 'FP8'; expected one of BOOL, .*, BYTES"):
        numpy_type("FP8")
    with pytest.raises(ValueError, match="unknown datatype"):
        from_raw(b"", "FP8", [0])


@pytest.mark.parametrize(("raw", "shape"), [(bytes(7), [2]), (bytes(8), [3]), (b"", [1])])
def test_contents_must_fill_the_shape(raw: bytes, shape: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"FP32 of shape \[{shape[0]}\] takes {4 * shape[0]} bytes, got {len(raw)}"):
        from_raw(raw, "FP32", shape)


def typed(datatype: str, shape: list[int], **contents: Any) -> Any:
    return pb.ModelInferRequest.InferInputTensor(
        name="t", datatype=datatype, shape=shape, contents=pb.InferTensorContents(**contents)
    )


@pytest.mark.parametrize("datatype", [name for name in TYPED_FIELDS if name != "BYTES"])
def test_typed_contents_are_the_raw_ones(datatype: str) -> None:
    dtype = NUMPY_TYPES[datatype]
    extremes = (
        [0, 1] if datatype == "BOOL" else [0, 1, np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max]
    )
    array = np.array(extremes, dtype)
    assert typed_to_raw(typed(datatype, [len(array)], **{TYPED_FIELDS[datatype]: array.tolist()})) == array.tobytes()


def test_typed_strings_are_the_raw_ones() -> None:
    assert typed_to_raw(typed("BYTES", [2], bytes_contents=[b"a", b""])) == join_bytes([b"a", b""])


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (typed("FP16", [1]), "datatype FP16 travels only in raw_input_contents"),
        (typed("FP8", [1]), "unknown datatype 'FP8'"),
        (typed("FP32", [1], fp64_contents=[1.0]), "FP32 is carried by fp32_contents, got fp64_contents"),
        (
            typed("FP32", [1], fp32_contents=[1.0], int_contents=[1]),
            "FP32 is carried by fp32_contents, got int_contents and fp32_contents",
        ),
        (typed("FP32", [2], fp32_contents=[1.0]), r"shape \[2\] takes 2 elements, got 1"),
        (typed("FP32", [2]), r"shape \[2\] takes 2 elements, got 0"),
        (typed("INT8", [1], int_contents=[128]), "a value is out of the range of INT8"),
        (typed("UINT16", [1], uint_contents=[2**16]), "a value is out of the range of UINT16"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(tensor: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        typed_to_raw(tensor)
