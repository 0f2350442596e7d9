"""The rows of a batch that a specification refuses: which they are, and why.

`pipeline` finds them; whoever answers requests asks for the error of each request's own rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """What is refused.

    Attributes:
        found: int64 [rows], for each row the first reason among `columns`, or -1.
        columns: for each reason the raw columns that it is about.
    """

    found: NDArray[np.int64]
    columns: tuple[str, ...]

    def error(self, first: int, count: int) -> InvalidInputError:
        """The error of the rows from `first` on, of which one at least is refused."""
        at = int(np.argmax(self.found[first : first + count] >= 0))
        about = self.columns[self.found[first + at]]
        return InvalidInputError(
            f"row {at} holds a value of {about} that the training data did not have, expected one that it had"
        )

    def touches(self, first: int, count: int) -> bool:
        """Whether any of the rows from `first` on is refused."""
        return bool((self.found[first : first + count] >= 0).any())
