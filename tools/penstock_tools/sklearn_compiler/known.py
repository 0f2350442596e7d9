"""Which values of a column a fitted transformer knows: those that its fitted state holds under the column's name.

Libraries keep what they learned about a column in dicts by its name, or in lists of dicts with its name under "col";
deeper down are dicts, Series and frames whose keys are the categories. A value too many does no harm: `asking` asks what
the transformer makes of each.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator


def known_values(transformer: Any, column: Hashable) -> list[str | float]:
    """The texts and finite numbers under the column's name, each once. A missing value is neither, but "" is a text."""
    found: dict[str | float, None] = {}
    for value in _under(transformer, column, set()):
        if isinstance(value, str):
            found[value] = None
        elif isinstance(value, bool | int | float | np.number | np.bool_) and np.isfinite(value):
            found[float(value)] = None
    return list(found)


def _under(state: Any, column: Hashable, passed: set[int]) -> Iterator[Any]:
    """The values that the state holds for the column; what was `passed` before is not looked into again."""
    if id(state) in passed:
        return
    passed.add(id(state))
    if isinstance(state, Mapping):
        if _is(state.get("col"), column):
            yield from _within([inner for key, inner in state.items() if key != "col"], set())
        for key, inner in state.items():
            yield from _within(inner, set()) if _is(key, column) else _under(inner, column, passed)
    elif isinstance(state, list | tuple):
        for inner in state:
            yield from _under(inner, column, passed)
    elif isinstance(state, BaseEstimator):
        yield from _under(vars(state), column, passed)


def _within(state: Any, passed: set[int]) -> Iterator[Any]:
    """All values that could be categories: keys and members, no numbers that belong to keys of a Series or frame."""
    if isinstance(state, pd.Series | pd.DataFrame):
        yield from state.index.tolist()
    elif isinstance(state, pd.Index | np.ndarray | pd.Categorical):
        yield from np.ravel(state).tolist()
    elif isinstance(state, Mapping | list | tuple | set | frozenset | BaseEstimator):
        if id(state) in passed:
            return
        passed.add(id(state))
        held = vars(state) if isinstance(state, BaseEstimator) else state
        for inner in held:
            yield inner
            if isinstance(held, Mapping):
                yield from _within(held[inner], passed)
            elif not isinstance(inner, str):
                yield from _within(inner, passed)
    else:
        yield state


def _is(key: Any, column: Hashable) -> bool:
    return isinstance(key, Hashable) and type(key) is type(column) and key == column
