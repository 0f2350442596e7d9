"""What the graph does to the features of a specification before the model gets them: it picks some, or makes sums of them.

The part of the graph in front of the model is run alone, on rows that tell. What is neither a choice nor affine is refused:
attributions would be of features that nobody knows.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import ModelFailedError, UnsupportedError
from penstock_server.models.onnx_model import OnnxModel
from penstock_tools.sklearn_compiler.graph.model import planned
from penstock_tools.sklearn_compiler.graph.plan import Plan

MAX_PROBED: Final = 2048
"""Features that are probed one by one, where the graph does not only pick."""
_NEAR: Final = 1e-6
_PROBES: Final = 4

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """What comes before a model.

    Attributes:
        through: what the model gets of features [rows, features].
        columns: the features that it gets, where it gets them as they are; else None.
        matrix, offset: it gets offset + features @ matrix, where it gets sums of them; else None.
    """

    through: Callable[[Reals], Reals]
    columns: NDArray[np.intp] | None = None
    matrix: Reals | None = None
    offset: Reals | None = None


def front_of(plan: Plan, width: int, rows: Reals) -> Front:
    """What the graph does before the model of a plan.

    Args:
        plan: the model's; its members have plans of their own.
        width: the features of the specification.
        rows: some rows of features, to prove it on.

    Raises:
        UnsupportedError: it is neither a choice nor affine.
    """
    through = _opened(planned(Plan(None, plan.source, {}, plan.columns), width, "FP64"))
    try:
        columns = _picked(through, width)
        if columns is not None:
            return Front(through, columns=columns)
        found = _affine(through, width) if width <= MAX_PROBED else None
        if found is not None and found.matrix is not None and found.offset is not None:
            got, expected = found.offset + rows @ found.matrix, through(rows)
            if np.allclose(got, expected, rtol=_NEAR, atol=_NEAR):
                return found
    except ModelFailedError as error:
        raise UnsupportedError("the part of the graph in front of the model does not run alone") from error
    raise UnsupportedError("the graph makes other features of the features before the model gets them")


def _opened(model: Any) -> Callable[[Reals], Reals]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        runtime = OnnxModel(path)
    name = runtime.signature.inputs[0].name
    return lambda values: np.asarray(runtime.run({name: values})[0], np.float64)


def _picked(through: Callable[[Reals], Reals], width: int) -> NDArray[np.intp] | None:
    """The columns that it passes on as they are; None where it does more."""
    probes = np.random.default_rng(0).normal(size=(_PROBES, width))
    probes[0] = np.arange(width)
    got = through(probes)
    columns = np.rint(got[0])
    if not ((columns >= 0) & (columns < width)).all():
        return None
    at = columns.astype(np.intp)
    return at if np.array_equal(got, probes[:, at]) else None


def _affine(through: Callable[[Reals], Reals], width: int) -> Front:
    offset = through(np.zeros((1, width)))[0]
    return Front(through, matrix=through(np.eye(width)) - offset, offset=offset)
