"""A hold-out: rows that the model did not train on, with the truth, by which a server tells the accuracy that it expects.

They are read, put in the order of time and brought in the form of requests as the sample is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features.table import Table
from penstock_tools.publish.time_order import TimeOrder, in_order, time_order, without_column
from penstock_tools.sklearn_compiler.sample import Sample, pipeline_sample


@dataclass(frozen=True, slots=True, eq=False)
class HeldRows:
    """The rows by raw column, as requests hold them, in the order of time, and the truth [rows]."""

    table: Table
    labels: ArrayLike


@dataclass(frozen=True, slots=True, eq=False)
class HoldOut:
    """The rows as their publisher has them, with the truth [rows], and the column of times among them, where there is one."""

    rows: Any
    labels: ArrayLike
    time: str | None = None

    def __post_init__(self) -> None:
        if len(np.asarray(self.labels)) != len(self.rows):
            raise InvalidInputError(
                f"there are {len(np.asarray(self.labels))} labels for {len(self.rows)} rows of the hold-out, expected as many"
            )

    @property
    def order(self) -> TimeOrder | None:
        """The order of the rows by their times."""
        return None if self.time is None else time_order(self.rows, self.time)

    def of(self, pipeline: Any, unused: Sequence[str] = ()) -> tuple[Sample, NDArray[Any]]:
        """The rows as a pipeline takes them, and the truth, in the order of time.

        Args:
            pipeline: fitted.
            unused: columns that it was fitted on and drops; the rows may lack them.

        Raises:
            InvalidInputError: they are not the pipeline's.
        """
        order = self.order
        given = self.rows if order is None else without_column(pipeline, self.rows, order.column)
        return self.sorted(pipeline_sample(pipeline, given, unused))

    def sorted(self, rows: Sample) -> tuple[Sample, NDArray[Any]]:
        """These rows, and the truth of each, in the order of time."""
        found = in_order(rows, self.order)
        return found, np.asarray(self.labels)[found.places]


SAME: Final = (
    "the hold-out is the sample itself, of which a model is surer than of other rows; give rows that it has not seen"
)


def holdout_of(
    given: tuple[Any, ArrayLike] | None, time: str | Sequence[Any] | ArrayLike | None, sample: Any = None
) -> HoldOut | None:
    """The hold-out that a caller gives as rows and labels; ordered by the same column as the sample, if it is there.

    Raises:
        InvalidInputError: it is the sample itself.
    """
    if given is None:
        return None
    rows, labels = given
    if rows is sample:
        raise InvalidInputError(SAME)
    has_time = isinstance(time, str) and time in [str(name) for name in getattr(rows, "columns", ())]
    return HoldOut(rows, labels, time if has_time and isinstance(time, str) else None)
