"""Golden requests: a few rows with the answers that the publisher got, which a loaded version must give again.

Decides their form and when two answers agree; pure. The publisher makes them, the loader runs the model on them and
asks `compare`. Numbers that are not a number are null in JSON, and agree with each other.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.models import strict_json
from penstock_server.models.nested import to_array, to_lists

MAX_VALUES = 1_000_000


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows and their answers, as lists nested like the arrays' shapes; null stands for NaN.

    An answer `got` agrees with `expected` when |got - expected| <= atol + rtol * |expected|; integers, booleans and
    strings must be equal. The defaults leave room for what float32 sums differ by between processors.

    Attributes:
        inputs: The values of each raw column, or of each model input where there are no features.
        outputs: The expected values of each output that is to be compared; others are not looked at.
        rtol: The relative tolerance.
        atol: The absolute tolerance.
        format: The version of this form.
    """

    inputs: Mapping[str, list[Any]]
    outputs: Mapping[str, list[Any]]
    rtol: float = 1e-3
    atol: float = 1e-5
    format: int = strict_json.FORMAT

    def __post_init__(self) -> None:
        for name, tolerance in (("rtol", self.rtol), ("atol", self.atol)):
            if not (math.isfinite(tolerance) and tolerance >= 0):
                raise InvalidInputError(f"{name} is {tolerance}; expected a number from 0 up")
        inputs = _arrays("input", self.inputs)
        _arrays("output", self.outputs)
        lengths = {len(array) for array in inputs.values()}
        if len(lengths) != 1:
            raise InvalidInputError(f"the inputs have {sorted(lengths)} rows; expected the same number in each")

    @property
    def rows(self) -> int:
        """The number of rows of each input."""
        return len(next(iter(self.inputs.values())))

    def input_arrays(self) -> dict[str, NDArray[Any]]:
        """The inputs as arrays: float64, int64, bool, or object arrays of str where null is the empty string."""
        return _arrays("input", self.inputs)


def make(
    inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], *, rtol: float = 1e-3, atol: float = 1e-5
) -> Golden:
    """Golden requests from what a model was asked and what it answered.

    Raises:
        InvalidInputError: A value is infinite, or the arrays have no rows or not the same number.
    """
    asked = {name: to_lists(array, f"input {name!r}") for name, array in inputs.items()}
    answered = {name: to_lists(array, f"output {name!r}") for name, array in outputs.items()}
    return Golden(inputs=asked, outputs=answered, rtol=rtol, atol=atol)


def decode(raw: bytes) -> Golden:
    """The golden requests that these bytes hold.

    Raises:
        InvalidInputError: They hold none of this form, or lists that are no arrays.
    """
    return strict_json.decode(raw, Golden)


def encode(golden: Golden) -> bytes:
    """The golden requests as JSON."""
    return msgspec.json.encode(golden)


def compare(expected: Golden, got: Mapping[str, NDArray[Any]]) -> str | None:
    """None if the answers agree; else one sentence that says the output, the row and the difference.

    Args:
        expected: The golden requests.
        got: The model's outputs on `expected.inputs`, by name; further ones are not looked at.
    """
    for name, array in _arrays("output", expected.outputs).items():
        if name not in got:
            return f"output {name!r} is missing; the model gives {', '.join(map(repr, sorted(got))) or 'none'}"
        difference = _difference(array, np.asarray(got[name]), expected)
        if difference is not None:
            return f"output {name!r}{difference}"
    return None


def _arrays(what: str, values: Mapping[str, list[Any]]) -> dict[str, NDArray[Any]]:
    if not values:
        raise InvalidInputError(f"there are no {what}s; expected at least one")
    arrays = {name: to_array(nested, f"{what} {name!r}") for name, nested in values.items()}
    if sum(array.size for array in arrays.values()) > MAX_VALUES:
        raise InvalidInputError(f"the {what}s hold more than {MAX_VALUES:,} values; a few rows are enough")
    return arrays


def _difference(expected: NDArray[Any], got: NDArray[Any], golden: Golden) -> str | None:
    if expected.shape != got.shape:
        return f" has shape {list(got.shape)}; expected {list(expected.shape)}"
    if (expected.dtype.kind == "O") != (got.dtype.kind in "OUS"):
        return f" holds {_kind(got)}; expected {_kind(expected)}"
    agrees = _agreement(expected, got, golden)
    if agrees.all():
        return None
    row, *position = (int(index) for index in np.argwhere(~agrees)[0])
    place = f", row {row}" + (f", position {position}" if position else "")
    return f"{place}: {_gap(expected[row, *position], got[row, *position])}"


def _agreement(expected: NDArray[Any], got: NDArray[Any], golden: Golden) -> NDArray[np.bool_]:
    # A whole number that was published as one is a class or a count, and a tolerance would let class 5001 pass as 5000.
    if expected.dtype.kind in "biO" and got.dtype.kind not in "fc":
        return np.asarray(expected == got, dtype=np.bool_)
    wanted = expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        allowed = golden.atol + golden.rtol * np.abs(wanted)
        is_near = np.abs(got.astype(np.float64) - wanted) <= allowed
    return np.asarray(is_near | (np.isnan(wanted) & np.isnan(got)), dtype=np.bool_)


def _gap(expected: Any, got: Any) -> str:
    if isinstance(expected, str):
        return f"expected {expected!r}, got {got!r}"
    return f"expected {expected:.6g}, got {got:.6g}, which differ by {abs(float(got) - float(expected)):.3g}"


def _kind(array: NDArray[Any]) -> str:
    return "strings" if array.dtype.kind in "OUS" else f"numbers ({array.dtype})"
