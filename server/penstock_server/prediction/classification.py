"""Triton's classification extension: of an output, the largest values with their places and labels, as texts.

Source: Triton Inference Server, "Classification Extension"; the form of numbers is that of its `std::to_string`.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DATATYPE: Final = "BYTES"
"""What the output becomes."""


@dataclass(frozen=True, slots=True)
class TopClasses:
    """An output of which the largest values are asked for.

    Attributes:
        output: its place.
        count: how many of them; all where there are fewer.
        is_by_row: those of each row; else those of the whole output.
    """

    output: int
    count: int
    is_by_row: bool

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the texts for an output of this shape."""
        if self.is_by_row:
            return shape[0], min(self.count, prod(shape[1:]))
        return (min(self.count, prod(shape)),)

    def texts(self, array: NDArray[Any], labels: tuple[str, ...]) -> NDArray[Any]:
        """`value:index`, and `:label` where it has one, the largest first and of equal ones the first; NaN is the largest.

        Args:
            array: the output, numbers.
            labels: of a row's values; may be fewer.
        """
        shape = self.shape(array.shape)
        rows = array.reshape(
            len(array) if self.is_by_row else 1, prod(array.shape[1:] if self.is_by_row else array.shape)
        )
        # Sorted from behind, so that of equal ones the first comes last; then turned round.
        order = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, : shape[-1]]
        form = "{:.6f}:{}" if rows.dtype.kind == "f" else "{:d}:{}"
        found = np.empty(order.shape, object)
        for row, places in enumerate(order.tolist()):
            values = rows[row].tolist()
            for at, place in enumerate(places):
                label = f":{labels[place]}" if place < len(labels) else ""
                found[row, at] = form.format(values[place], place) + label
        return found.reshape(shape)


def output_of(place: int | TopClasses) -> int:
    """The output that is asked for."""
    return place if isinstance(place, int) else place.output
