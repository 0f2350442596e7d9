"""Rules of feature_engine's creators of columns: arithmetic between columns, distances, and what small trees predict.

Each becomes one step of expressions. `rules_feature_engine` puts its columns behind those that the creator keeps.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock_server.features.spec.steps import Compute, Operation
from penstock_tools.sklearn_compiler.refusals import Refused

EARTH_RADIUS: Final = {"km": 6371.0, "miles": 3958.8, "meters": 6371000.0, "feet": 20902231.0}
_KM_PER_DEGREE: Final = 111.0


class Expressions:
    """Operations over columns, one added after another; each is named by the place of its value."""

    def __init__(self, names: Sequence[Hashable]) -> None:
        self._names = list(names)
        self._operations: list[Operation] = []
        self._required: list[int] = []

    def column(self, name: Hashable) -> int:
        """The value of a column."""
        return self._names.index(name)

    def constant(self, value: float) -> int:
        """A number."""
        return self._added(Operation("constant", value=float(value)))

    def of(self, function: str, *values: int | float) -> int:  # noqa: PYI041 - a place is no number
        """A function of values; a float is a constant."""
        taken = tuple(self.constant(value) if isinstance(value, float) else value for value in values)
        return self._added(Operation(function, taken))

    def require(self, value: int) -> None:
        """Refuses a row where the value is 0."""
        self._required.append(value)

    def step(self, outputs: Sequence[int], labels: Sequence[str] = ()) -> Compute:
        """The step that gives these values."""
        return Compute(tuple(self._operations), tuple(outputs), tuple(labels), tuple(self._required))

    def _added(self, operation: Operation) -> int:
        self._operations.append(operation)
        return len(self._names) + len(self._operations) - 1


def math_features(transformer: Any, names: Sequence[Hashable]) -> Compute:
    """MathFeatures. As pandas does, a missing value is left out.

    Raises:
        Refused: a function is not one that is known.
    """
    functions = transformer.func if isinstance(transformer.func, list) else [transformer.func]
    made = Expressions(names)
    columns = [made.column(name) for name in transformer.variables]
    outputs = []
    for function in functions:
        known = _AGGREGATES.get(function) if isinstance(function, str) or callable(function) else None
        if known is None:
            name = getattr(function, "__name__", function)
            raise Refused(f"the function {name} is not one that Penstock knows; {', '.join(_NAMED)} work")
        outputs.append(known(made, columns))
    return made.step(outputs)


def _there(made: Expressions, columns: Sequence[int], otherwise: float) -> list[int]:
    """The columns with a number where they are missing."""
    return [made.of("where", made.of("isnan", column), otherwise, column) for column in columns]


def _folded(made: Expressions, function: str, values: Sequence[int]) -> int:
    first, *others = values
    for value in others:
        first = made.of(function, first, value)
    return first


def _sum(made: Expressions, columns: Sequence[int]) -> int:
    return _folded(made, "add", _there(made, columns, 0.0))


def _product(made: Expressions, columns: Sequence[int]) -> int:
    return _folded(made, "multiply", _there(made, columns, 1.0))


def _count(made: Expressions, columns: Sequence[int]) -> int:
    missing = _folded(made, "add", [made.of("isnan", column) for column in columns])
    return made.of("subtract", float(len(columns)), missing)


def _mean(made: Expressions, columns: Sequence[int]) -> int:
    return made.of("divide", _sum(made, columns), _count(made, columns))


def _variance(made: Expressions, columns: Sequence[int], fewer: float) -> int:
    """The squares around the mean by their count, less `fewer`; NaN where that is not above 0."""
    mean = _mean(made, columns)
    squares = [made.of("square", made.of("subtract", column, mean)) for column in columns]
    count = made.of("subtract", _count(made, columns), fewer)
    ratio = made.of("divide", _sum(made, squares), count)
    return made.of("where", made.of("greater", count, 0.0), ratio, float("nan"))


def _fold_of(function: str) -> Callable[[Expressions, Sequence[int]], int]:
    return lambda made, columns: _folded(made, function, columns)


def _variance_of(fewer: float) -> Callable[[Expressions, Sequence[int]], int]:
    return lambda made, columns: _variance(made, columns, fewer)


def _deviation_of(fewer: float) -> Callable[[Expressions, Sequence[int]], int]:
    return lambda made, columns: made.of("sqrt", _variance(made, columns, fewer))


_NAMED: Final[dict[str, Callable[[Expressions, Sequence[int]], int]]] = {
    "sum": _sum,
    "mean": _mean,
    "min": _fold_of("fmin"),
    "max": _fold_of("fmax"),
    "prod": _product,
    "product": _product,
    "count": _count,
    "var": _variance_of(1.0),
    "std": _deviation_of(1.0),
}
_AGGREGATES: Final[Mapping[Any, Callable[[Expressions, Sequence[int]], int]]] = {
    **_NAMED,
    **{getattr(np, name): _NAMED[name] for name in ("sum", "mean", "min", "max", "prod")},
    # pandas hands the row to numpy's function, whose degrees of freedom are its own.
    np.var: _variance_of(0.0),
    np.std: _deviation_of(0.0),
}

_RELATIVE: Final = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power",
}  # fmt: skip
_DIVIDING: Final = ("div", "truediv", "floordiv", "mod")


def relative_features(transformer: Any, names: Sequence[Hashable]) -> Compute:
    """RelativeFeatures: a reference of 0 gives the fill value where it divides, or is refused."""
    made = Expressions(names)
    outputs = []
    for function in transformer.func:
        for reference in map(made.column, transformer.reference):
            is_zero = made.of("equal", reference, 0.0) if function in _DIVIDING else None
            if is_zero is not None and transformer.fill_value is None:
                made.require(made.of("not_equal", reference, 0.0))
            for variable in map(made.column, transformer.variables):
                value = made.of(_RELATIVE[function], variable, reference)
                if is_zero is not None and transformer.fill_value is not None:
                    value = made.of("where", is_zero, float(transformer.fill_value), value)
                outputs.append(value)
    return made.step(outputs)


def geo_distance(transformer: Any, names: Sequence[Hashable]) -> Compute:
    """GeoDistanceFeatures."""
    made = Expressions(names)
    lat1, lon1, lat2, lon2 = map(made.column, transformer.variables_)
    if transformer.method == "haversine":
        outputs = made.of("multiply", _angle(made, (lat1, lon1), (lat2, lon2)), EARTH_RADIUS[transformer.output_unit])
    else:
        north, east = made.of("subtract", lat2, lat1), made.of("subtract", lon2, lon1)
        if transformer.method == "euclidean":
            degrees = made.of("sqrt", made.of("add", made.of("square", north), made.of("square", east)))
        else:
            degrees = made.of("add", made.of("abs", north), made.of("abs", east))
        kilometres = made.of("multiply", degrees, _KM_PER_DEGREE)
        ratio = EARTH_RADIUS[transformer.output_unit] / EARTH_RADIUS["km"]
        outputs = made.of("multiply", kilometres, ratio)
    return made.step([outputs], [transformer.output_col])


def _angle(made: Expressions, first: tuple[int, int], second: tuple[int, int]) -> int:
    """The angle between two places on a sphere, each a latitude and a longitude in degrees, by the haversine formula."""
    (lat1, lon1), (lat2, lon2) = (
        tuple(made.of("multiply", degrees, np.pi / 180.0) for degrees in place) for place in (first, second)
    )

    def half_square(left: int, right: int) -> int:
        half = made.of("divide", made.of("subtract", right, left), 2.0)
        return made.of("square", made.of("sin", half))

    cosines = made.of("multiply", made.of("cos", lat1), made.of("cos", lat2))
    chord = made.of("add", half_square(lat1, lat2), made.of("multiply", cosines, half_square(lon1, lon2)))
    return made.of("multiply", made.of("arcsin", made.of("sqrt", chord)), 2.0)


def tree_features(transformer: Any, names: Sequence[Hashable]) -> Compute:
    """DecisionTreeFeatures: small trees, each of some columns."""
    made = Expressions(names)
    outputs = []
    for features, search in zip(transformer.input_features_, transformer.estimators_, strict=True):
        columns = [made.column(name) for name in ([features] if isinstance(features, str | int) else features)]
        leaves = _leaf_values(search.best_estimator_, transformer)
        outputs.append(_branch(made, search.best_estimator_.tree_, 0, columns, leaves))
    return made.step(outputs)


def _leaf_values(tree: Any, transformer: Any) -> list[float]:
    """What the transformer makes of each node, if it is a leaf."""
    values = tree.tree_.value[:, 0, :]
    if transformer.regression:
        found = values[:, 0]
    elif transformer._is_binary == "binary":  # noqa: SLF001 - what it decides by
        found = values[:, 1] / values.sum(axis=1)
    else:
        return [float(each) for each in tree.classes_[values.argmax(axis=1)]]
    return [
        float(each) for each in (found if transformer.precision is None else np.round(found, transformer.precision))
    ]


def _branch(made: Expressions, tree: Any, node: int, columns: Sequence[int], leaves: Sequence[float]) -> int:
    if tree.children_left[node] == -1:
        return made.constant(leaves[node])
    is_right = made.of("greater_equal", columns[tree.feature[node]], first_above(tree.threshold[node]))
    right = _branch(made, tree, tree.children_right[node], columns, leaves)
    return made.of("where", is_right, right, _branch(made, tree, tree.children_left[node], columns, leaves))


def first_above(threshold: float) -> float:
    """The smallest number x whose nearest float32, which scikit-learn's trees compare, is above the threshold."""
    near = np.float32(threshold)
    above = near if float(near) > threshold else np.nextafter(near, np.float32(np.inf))
    between = (float(np.nextafter(above, np.float32(-np.inf))) + float(above)) / 2
    return between if np.float32(between) == above else float(np.nextafter(between, np.inf))
