"""Rules of the transformers that apply a function: FunctionTransformer, own classes, FeatureHasher.

Some functions are known by their identity, of numpy and of `penstock_tools.functions`. All others, and `transform` of own
classes, are traced (`tracing`): called once with tracers, and proven equal to what was recorded.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from sklearn.preprocessing import FunctionTransformer
from spox import Var

from penstock_server.features.spec import spec
from penstock_server.features.spec.limits import Real
from penstock_server.features.spec.spec import Hash
from penstock_server.features.spec.steps import Apply, Clip, Cyclic, Fill, Step
from penstock_server.features.spec.steps_value import FUNCTIONS
from penstock_tools import functions as own_functions
from penstock_tools.sklearn_compiler import in_graph
from penstock_tools.sklearn_compiler.columns import InGraph, Numbers, Parts, Strings, numbers, then
from penstock_tools.sklearn_compiler.graph import expression
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused
from penstock_tools.sklearn_compiler.rows import Rows
from penstock_tools.sklearn_compiler.sample import Missing
from penstock_tools.sklearn_compiler.tracing import assemble, functions
from penstock_tools.sklearn_compiler.tracing.compute import compute_of
from penstock_tools.sklearn_compiler.tracing.trace import NotTraced, Traced
from penstock_tools.sklearn_compiler.tracing.values import FromNumber, Number, Value

Arguments = Mapping[str, Any]
_LIBRARIES: Final = frozenset({"sklearn", "category_encoders"})
_LARGEST: Final = float(np.finfo(np.float64).max)


def function(transformer: Any, parts: Parts) -> Parts:
    """FunctionTransformer."""
    called: Any = transformer.func
    arguments = dict(transformer.kw_args or {})
    while isinstance(called, partial) and not called.args:
        called, arguments = called.func, {**called.keywords, **arguments}
    if called is None or (called in _IDENTITIES and not arguments):
        return parts
    steps = _KNOWN.get(called) if _is_hashable(called) else None
    if steps is None:
        name = getattr(called, "__name__", repr(called))
        raise NotCompiled(f"the function {name} is not one that Penstock knows")
    return (Numbers(then(numbers(parts), *steps(arguments))),)


def is_traceable(transformer: Any) -> bool:
    """Whether what it does is a function of people's own: a FunctionTransformer, or a class of no library that has rules."""
    package = type(transformer).__module__.partition(".")[0]
    return type(transformer) is FunctionTransformer or (package not in _LIBRARIES and hasattr(transformer, "transform"))


def traced(transformer: Any, parts: Parts, rows: Rows) -> Parts:
    """What the transformer makes of the parts, found by calling it with tracers.

    Args:
        transformer: fitted, or in no need of it.
        parts: what reaches it.
        rows: the sample's rows as they reach it.

    Raises:
        NotCompiled: it cannot be traced, or is not what was traced; says which line does what.
        Refused: as `columns.pick`.
        ValueError: it exceeds a limit of specifications.
    """
    given = rows.value
    if getattr(transformer, "validate", None) is True and hasattr(given, "to_numpy"):
        given = given.to_numpy()
    made = functions.traced(_function_of(transformer), given, parts)
    if any(isinstance(part, InGraph) for part in parts):
        return (_in_graph(made, parts),)
    is_all = len(made.columns) == sum(part.width for part in parts)
    return parts if is_all and not made.required and _is_identity(made.columns) else assemble.parts_of(made, parts)


def _in_graph(made: Traced, parts: Parts) -> InGraph:
    """The function behind what the graph computes: it is computed there too."""
    values = [value for value in made.columns if isinstance(value, Number)]
    if len(values) < len(made.columns) or not all(isinstance(part, Numbers | InGraph) for part in parts):
        raise NotTraced("its function gets columns that the graph makes, and text or times; choose columns before it")
    before = in_graph.stacked(parts)
    step = compute_of(values, [FromNumber(at) for at in range(before.width)])

    def emit(x: Var, context: Context) -> Var:
        return expression.emit(step, context.cast(before.emit(x, context)), context)

    return InGraph(before.block, emit, len(values))


def _function_of(transformer: Any) -> Callable[[Any], Any]:
    if type(transformer) is FunctionTransformer:
        return partial(transformer.func, **dict(transformer.kw_args or {}))
    # Without scikit-learn's wrapper, which makes the container that `set_output` asks for.
    return partial(inspect.unwrap(type(transformer).transform), transformer)


def _is_identity(columns: Sequence[Value]) -> bool:
    return all(isinstance(value, Number) and value.source == FromNumber(at) for at, value in enumerate(columns))


def hasher(transformer: Any, parts: Parts) -> Parts:
    """FeatureHasher of one text column."""
    if transformer.input_type != "string":
        raise Refused(f"input_type={transformer.input_type!r} does not come from columns; input_type='string' works")
    part = parts[0] if len(parts) == 1 else None
    if not isinstance(part, Strings):
        raise Refused("it hashes several columns, or numbers, into one; give each text column a FeatureHasher")
    changed = [text for text, stands_for in part.becomes.items() if isinstance(stands_for, str) and text != stands_for]
    if changed or part.otherwise is not None:
        raise Refused(f"column {part.column!r} was filled before; hash it as it is")
    is_hashed = part.becomes[""] == "" or Missing.EMPTY in part.becomes[""]
    encode = Hash(transformer.n_features, bool(transformer.alternate_sign), missing="hash" if is_hashed else "zeros")
    return (Numbers(spec.Text(part.column, encode, (), part.prepare)),)


def _is_hashable(called: Any) -> bool:
    return getattr(called, "__hash__", None) is not None


def _apply(name: Any, arguments: Arguments) -> list[Step]:
    _check_arguments(arguments, ())
    return [Apply(name)]


def _clip(arguments: Arguments) -> list[Step]:
    _check_arguments(arguments, ("a_min", "a_max", "min", "max"))
    low = _bounds(arguments.get("a_min", arguments.get("min")))
    high = _bounds(arguments.get("a_max", arguments.get("max")))
    return [] if low is None and high is None else [Clip(low, high)]


def _nan_to_num(arguments: Arguments) -> list[Step]:
    _check_arguments(arguments, ("nan",))
    return [Fill((float(arguments.get("nan", 0.0)),)), Clip((-_LARGEST,), (_LARGEST,))]


def _cyclical(arguments: Arguments) -> list[Step]:
    _check_arguments(arguments, ("period",))
    if "period" not in arguments:
        raise Refused("cyclical takes a period; give kw_args={'period': ...}")
    return [Cyclic(tuple(float(period) for period in np.atleast_1d(arguments["period"])))]


def _bounds(given: Any) -> tuple[Real, ...] | None:
    if given is None:
        return None
    values = [float(value) for value in np.atleast_1d(given)]
    return tuple(value if np.isfinite(value) else None for value in values)


def _check_arguments(arguments: Arguments, expected: tuple[str, ...]) -> None:
    others = sorted(set(arguments) - set(expected))
    if others:
        raise NotCompiled(f"the argument {others[0]!r} of its function is not one that Penstock knows")


_IDENTITIES: Final[tuple[Any, ...]] = (np.asarray, np.array, np.positive)
_KNOWN: Final[dict[Any, Callable[[Arguments], list[Step]]]] = {
    **{getattr(np, name): partial(_apply, name) for name in FUNCTIONS},
    np.clip: _clip,
    np.nan_to_num: _nan_to_num,
    own_functions.cyclical: _cyclical,
}
