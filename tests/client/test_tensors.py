import numpy as np
import pytest

from penstock_client.errors import InvalidRequestError
from penstock_client.metadata import TensorSpec
from penstock_client.tensors import arrange

MATRIX = (TensorSpec("X", "FP32", (-1, 2)),)
ANY_MATRIX = (TensorSpec("X", "FP32", (-1, -1)),)
TEXT_MATRIX = (TensorSpec("X", "BYTES", (-1, 2), missing=""),)
COLUMNS = (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "INT64", (-1, 1)))
MIXED = (TensorSpec("a", "FP64", (-1,)), TensorSpec("t", "BYTES", (-1,)))
IMAGE = (TensorSpec("pixels", "UINT8", (-1, 2, 2)),)
PAIR = (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "BOOL", (-1, -1)))
LONE = (TensorSpec("a", "FP64", (-1, 1)),)
SILENT = (TensorSpec("x", "FP32", ()),)
IRIS = (TensorSpec("X", "FP32", (-1, 3), columns=("length", "width", "height")),)
TEXTS = (TensorSpec("X", "BYTES", (-1, 2), columns=("a", "b"), missing=""),)
LONE_NAMED = (TensorSpec("X", "FP32", (-1, 1), columns=("age",)),)


def laid_out(table, inputs):
    return [(t.name, t.datatype, t.values.shape, t.values.ravel().tolist()) for t in arrange(table, inputs).tensors]


@pytest.mark.parametrize(
    ("table", "inputs", "expected"),
    [
        (np.array([[1, 2]]), MATRIX, [("X", "FP32", (1, 2), [1, 2])]),
        ({"p": [1, 2], "q": [3, None]}, MATRIX, [("X", "FP32", (2, 2), [1, 3, 2, pytest.approx(np.nan, nan_ok=True)])]),
        ({"p": np.array([[1], [2]]), "q": [3, 4]}, MATRIX, [("X", "FP32", (2, 2), [1, 3, 2, 4])]),
        ({"X": [[1, 2], [3, 4]]}, MATRIX, [("X", "FP32", (2, 2), [1, 2, 3, 4])]),
        ({"p": [1], "q": [2], "r": [3]}, ANY_MATRIX, [("X", "FP32", (1, 3), [1, 2, 3])]),
        ({"p": ["x"], "q": [None]}, TEXT_MATRIX, [("X", "BYTES", (1, 2), [b"x", b""])]),
        ({"b": [3, 4], "a": [1, 2]}, COLUMNS, [("a", "FP64", (2,), [1, 2]), ("b", "INT64", (2, 1), [3, 4])]),
        ({"a": np.array([[1.0]]), "b": [2]}, COLUMNS, [("a", "FP64", (1,), [1]), ("b", "INT64", (1, 1), [2])]),
        ({"a": [], "b": []}, COLUMNS, [("a", "FP64", (0,), []), ("b", "INT64", (0, 1), [])]),
        (np.array([[1, 2]]), COLUMNS, [("features", "FP64", (1, 2), [1, 2])]),
        (np.array([[1, 2]], np.float32), COLUMNS, [("features", "FP32", (1, 2), [1, 2])]),
        (np.zeros((1, 2, 2)), IMAGE, [("pixels", "UINT8", (1, 2, 2), [0] * 4)]),
        ({"pixels": np.zeros((1, 2, 2))}, IMAGE, [("pixels", "UINT8", (1, 2, 2), [0] * 4)]),
        (
            {"ids": [[5, 6, 7]], "mask": [[1, 1, 0]]},
            PAIR,
            [("ids", "INT64", (1, 3), [5, 6, 7]), ("mask", "BOOL", (1, 3), [True, True, False])],
        ),
        ({"a": [1, 2]}, LONE, [("a", "FP64", (2, 1), [1, 2])]),
        (
            {"height": [3], "width": [2], "length": [1]},
            IRIS,
            [("length", "FP32", (1,), [1]), ("width", "FP32", (1,), [2]), ("height", "FP32", (1,), [3])],
        ),
        ({"X": [[1, 2, 3]]}, IRIS, [("X", "FP32", (1, 3), [1, 2, 3])]),
        (np.array([[1, 2, 3]]), IRIS, [("X", "FP32", (1, 3), [1, 2, 3])]),
        ([[1, 4], [2, 5], [3, 6]], IRIS, [("X", "FP32", (2, 3), [1, 2, 3, 4, 5, 6])]),
        ({"b": ["y"], "a": [None]}, TEXTS, [("a", "BYTES", (1,), [b""]), ("b", "BYTES", (1,), [b"y"])]),
        ({"age": [1, 2]}, LONE_NAMED, [("age", "FP32", (2,), [1, 2])]),
        ({"X": [1, 2]}, LONE_NAMED, [("X", "FP32", (2, 1), [1, 2])]),
        ([[1, 2]], LONE_NAMED, [("X", "FP32", (2, 1), [1, 2])]),
        ([[1], ["x"]], MIXED, [("a", "FP64", (1,), [1]), ("t", "BYTES", (1,), [b"x"])]),
        (np.array([1, 2]), LONE, [("a", "FP64", (2, 1), [1, 2])]),
        (np.array([[1, 2], [3, 4]]), SILENT, [("x", "FP32", (2, 2), [1, 2, 3, 4])]),
        (
            {"z": [1, 2], "t": ["x", "y"]},
            (),
            [("z", "INT64", (2,), [1, 2]), ("t", "BYTES", (2,), [b"x", b"y"])],
        ),
    ],
)
def test_rows_are_laid_out_as_declared(table, inputs, expected):
    assert laid_out(table, inputs) == expected


@pytest.mark.parametrize(
    ("table", "inputs", "words"),
    [
        ({"a": [1], "c": [1]}, COLUMNS, "missing 'b'; unexpected 'c'"),
        ({"a": [1]}, COLUMNS, "missing 'b'"),
        ({"length": [1], "Width": [1], "hight": [1]}, IRIS, "missing 'width' (did you mean 'Width'?), 'height' (did"),
        ({"length": [1], "width": [1]}, IRIS, "missing 'height'; the model takes 'length', 'width', 'height'"),
        ([[1], [2]], IRIS, "input 'X' takes 3 columns, got 2"),
        ([[1]], COLUMNS, "the model takes 2 columns, 'a', 'b', got 1"),
        ([[1]], (), "the columns have no names"),
        ([[1], [2]], PAIR, "the columns have no names"),
        ({"wrong": [1]}, LONE, "missing 'a'; unexpected 'wrong'"),
        ({"a": [1, 2], "b": [1]}, COLUMNS, "'b' has 1 rows, 'a' has 2"),
        ({"p": [1, 2], "q": [1]}, MATRIX, "'q' has 1 rows, 'p' has 2"),
        ({"p": [1], "q": [2], "r": [3]}, MATRIX, "input 'X' takes 2 columns, got 3: 'p', 'q', 'r'"),
        ({}, ANY_MATRIX, "got 0"),
        ({"p": [1], "q": ["x"]}, MATRIX, "column 'q' is FP32 and takes numbers, got 'x' at row 0"),
        ({"p": [1], "q": [[1, 2]]}, MATRIX, "column 'q' takes shape [-1], got [1, 2]"),
        ({"a": ["x"], "b": [1]}, COLUMNS, "column 'a' is FP64"),
        ({"a": [[1, 2]], "b": [1]}, COLUMNS, "column 'a' takes shape [-1], got [1, 2]"),
        (np.zeros((1, 3)), MATRIX, "input 'X' takes shape [-1, 2], got [1, 3]"),
        (np.zeros(2), MATRIX, "got [2]; pass one row as rows.reshape(1, -1)"),
        (np.zeros((1, 3)), COLUMNS, "expected an array of shape [-1, 2], a column each for ['a', 'b'], got [1, 3]"),
        (np.zeros(2), COLUMNS, "got [2]"),
        (np.array([["x", "y"]]), COLUMNS, "the array is FP64 and takes numbers, got 'x' at row 0"),
        (np.zeros((1, 2)), MIXED, "inputs are ['a', 't']; pass a dict of columns"),
        (np.zeros((1, 2)), PAIR, "pass a dict of columns"),
        (np.zeros((1, 2)), (), "pass a dict of columns"),
        (np.zeros((1, 2, 3)), IMAGE, "takes shape [-1, 2, 2], got [1, 2, 3]"),
        ({"z": np.array([1j])}, (), "column 'z' cannot be sent"),
    ],
)
def test_rows_that_do_not_fit_are_refused(table, inputs, words):
    with pytest.raises(InvalidRequestError) as refused:
        arrange(table, inputs)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("table", "inputs", "ignored"),
    [
        ({"c": ["x"], "a": [1], "b": [2]}, COLUMNS, ("c",)),
        ({"id": [1], "length": [1], "width": [1], "height": [1], "X": [1]}, IRIS, ("id", "X")),
        ({"X": [[1, 2]], "y": [1]}, MATRIX, ("y",)),
        ({"X": [[1, 2, 3]], "width": [1]}, IRIS, ("width",)),
        ({"a": [1], "b": [2]}, COLUMNS, ()),
    ],
)
def test_columns_that_the_model_does_not_take_are_left_out_or_refused(table, inputs, ignored):
    assert arrange(table, inputs).ignored == ignored
    assert ignored[:1] not in [(tensor.name,) for tensor in arrange(table, inputs).tensors]
    if ignored:
        with pytest.raises(InvalidRequestError, match=f"unexpected '{ignored[0]}'.*; the model takes '"):
            arrange(table, inputs, extra="refuse")
    else:
        assert arrange(table, inputs, extra="refuse").ignored == ()


def test_an_unexpected_column_names_the_one_that_may_be_meant():
    with pytest.raises(InvalidRequestError, match=r"unexpected 'widht' \(did you mean 'width'\?\)"):
        arrange({"length": [1], "width": [1], "height": [1], "widht": [1]}, IRIS, extra="refuse")


@pytest.mark.parametrize(
    ("table", "inputs", "is_guessed"),
    [
        ({"p": [1], "q": [2]}, MATRIX, True),
        ({"X": [[1, 2]]}, MATRIX, False),
        ([[1], [2]], MATRIX, False),
        (np.zeros((1, 2)), MATRIX, False),
        ({"length": [1], "width": [1], "height": [1]}, IRIS, False),
        ({"a": [1], "b": [2]}, COLUMNS, False),
    ],
)
def test_named_columns_in_a_nameless_matrix_are_a_guess(table, inputs, is_guessed):
    assert arrange(table, inputs).is_guessed == is_guessed


@pytest.mark.parametrize("order", [("length", "width", "height"), ("height", "length", "width")])
def test_the_order_of_the_callers_columns_does_not_matter(order):
    values = {"length": [1.0], "width": [2.0], "height": [3.0]}
    expected = laid_out(values, IRIS)
    assert laid_out({name: values[name] for name in order}, IRIS) == expected


DEFAULTS = (*MATRIX, TensorSpec("scale", "FP32", (1,), is_optional=True))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"X": [[1, 2]]}, [("X", "FP32", (1, 2), [1, 2])]),
        (np.array([[1, 2]]), [("X", "FP32", (1, 2), [1, 2])]),
        ({"p": [1, 4], "q": [2, 5], "scale": [3]}, [("X", "FP32", (2, 2), [1, 2, 4, 5]), ("scale", "FP32", (1,), [3])]),
    ],
)
def test_what_has_a_default_is_sent_if_it_is_named(table, expected):
    assert laid_out(table, DEFAULTS) == expected
