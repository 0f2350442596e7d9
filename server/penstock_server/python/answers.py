"""Asks a pipeline for its outputs, as arrays of the types and shapes that were published."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import NUMPY_TYPES
from penstock_server.python.description import Output


def answers(pipeline: Any, outputs: Sequence[Output], given: Any, rows: int) -> list[NDArray[Any]]:
    """The outputs for these rows.

    Args:
        pipeline: fitted.
        outputs: those asked for; each of its methods is called once.
        given: the rows as it takes them.
        rows: how many there are.

    Returns:
        An array per output, [rows] or [rows, width]; BYTES are objects of type str.

    Raises:
        ValueError: the pipeline gives another number or another kind of answers than when it was published.
        Exception: whatever the pipeline raises.
    """
    found: dict[str, Any] = {}
    for output in outputs:
        if output.method not in found:
            found[output.method] = getattr(pipeline, output.method)(given)
    return [_array(output, found[output.method], rows) for output in outputs]


def values_of(given: Any, member: int | None) -> NDArray[Any]:
    """What a method gave, as a dense array."""
    if member is not None:
        given = given[member]
    return np.asarray(given.toarray() if hasattr(given, "toarray") else given)


def texts(values: NDArray[Any]) -> NDArray[Any]:
    """Labels of any kind as objects of type str, in the same shape."""
    found = np.empty(values.size, object)
    found[:] = [str(value) for value in values.ravel().tolist()]
    return found.reshape(values.shape)


def _array(output: Output, given: Any, rows: int) -> NDArray[Any]:
    values = values_of(given, output.member)
    width = 1 if output.width is None else output.width
    if len(values) != rows or values.size != rows * width:
        raise ValueError(
            f"{output.method} gave an array of shape {list(values.shape)}, expected {width} values for each of {rows} rows"
        )
    shaped = values.reshape((rows,) if output.width is None else (rows, width))
    if output.datatype == "BYTES":
        return texts(shaped)
    cast = np.ascontiguousarray(shaped, NUMPY_TYPES[output.datatype])
    if output.datatype in {"INT64", "BOOL"} and not np.array_equal(cast, shaped):
        # Labels that were whole numbers when it was published.
        raise ValueError(f"{output.method} gave {shaped[cast != shaped][0]}, which {output.datatype} cannot hold")
    return cast
