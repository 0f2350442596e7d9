"""The sample's rows as they reach each transformer, computed only when a rule asks.

A function sees rows and not parts: whether it gets a frame or an array, with which names and dtypes. Most rules need none of
that, so that a walk hands on how the rows would be made.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from penstock_tools.sklearn_compiler.refusals import NotCompiled

MAX_ROWS: Final = 200
"""Rows of the sample that go through the transformers."""


class Rows:
    """Rows that are made when they are first looked at.

    Args:
        make: makes them.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @classmethod
    def of(cls, given: Any) -> "Rows":
        """These rows."""
        return cls(lambda: given)

    @cached_property
    def value(self) -> Any:
        """The rows: a frame, a series, an array or a sparse matrix.

        Raises:
            NotCompiled: a transformer before refuses the sample.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self._make()
            except NotCompiled:
                raise
            except Exception as error:
                # Own classes may raise anything.
                raise NotCompiled(f"what is before it refuses the sample: {error}") from error

    def after(self, transformer: Any) -> "Rows":
        """What a fitted transformer makes of them."""
        if transformer is None or transformer == "passthrough":
            return self
        # A copy, because some transformers work in place.
        return Rows(lambda: transformer.transform(self.value.copy()))

    def picked(self, columns: Sequence[int], *, is_one: bool = False) -> "Rows":
        """These columns; `is_one` makes a series, or an array of one axis, of a single column."""
        chosen: Any = columns[0] if is_one else list(columns)

        def make() -> Any:
            given = self.value
            return given.iloc[:, chosen] if hasattr(given, "iloc") else given[:, chosen]

        return Rows(make)
