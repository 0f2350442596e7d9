"""What a model runs: values that nobody changes, so that any thread may run them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import ModelFailedError
from penstock_server.models.servable import Given, Outputs, Servable, Shapes


class Work(NamedTuple):
    """The rows of a batch, joined, with the version that runs them.

    It holds no request and no call. It is a tuple, since one is made per batch on the request path.

    Attributes:
        cells: where the pipeline counts the rows; nobody else writes there while it runs.
        is_repeat: the rows are those of recent requests; drift counts neither them nor what is predicted for them.
        given: what stands in place of the defaults of inputs, for all of the rows: they are one request's.
    """

    servable: Servable
    blocks: Sequence[bytes]
    rows: int
    shapes: Shapes | None
    cells: NDArray[np.int64] | None
    is_repeat: bool = False
    given: Given = ()


def computed(work: Work) -> Outputs | Exception:
    """The outputs, or the error that the version raised; raises nothing itself."""
    servable = work.servable
    try:
        outputs = servable.predict(work.blocks, work.rows, work.shapes, work.cells, work.given)
        if servable.is_batched:
            for array in outputs.arrays:
                if len(array) != work.rows:
                    return ModelFailedError("the model gave another number of rows than it got")
    except Exception as error:  # noqa: BLE001 - whatever a model raises fails its batch and nothing else
        return error
    return outputs
