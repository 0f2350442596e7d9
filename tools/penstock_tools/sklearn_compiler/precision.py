"""Whether a graph must compute in double precision, so that no row goes another way than in the library.

Most libraries compare trees in single precision, and linear models differ by a rounding error alone. Those here compare
doubles: a value that is rounded to single precision may lie on the other side of a threshold, or no longer tie.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import KNNImputer
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)

from penstock_server.features.spec.spec import Datatype

_IN_DOUBLES: Final = (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    KNNImputer,
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)


def datatypes(fitted: Any) -> tuple[Datatype, ...]:
    """The datatypes in which a graph of a fitted pipeline may compute; the first that answers alike is taken."""
    return ("FP64",) if any(map(_compares_doubles, _within(fitted, set()))) else ("FP32", "FP64")


def _compares_doubles(fitted: Any) -> bool:
    return isinstance(fitted, _IN_DOUBLES) or type(fitted).__module__.partition(".")[0] == "lightgbm"


def _within(value: Any, seen: set[int]) -> Iterator[Any]:
    """The estimators in a value: itself, and those in its attributes, lists and dictionaries."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, BaseEstimator):
        yield value
        inner = list(vars(value).values())
    elif isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        inner = list(value)
    else:
        return
    for each in inner:
        yield from _within(each, seen)
