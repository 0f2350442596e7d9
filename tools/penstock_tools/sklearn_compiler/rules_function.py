"""Rules of the transformers that apply a function: FunctionTransformer of functions that Penstock knows, FeatureHasher.

A function is known by its identity, since what a lambda does cannot be read. `penstock_tools.functions` has what numpy has
no single function for.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from penstock_server.features.spec import spec
from penstock_server.features.spec.limits import Real
from penstock_server.features.spec.spec import Hash
from penstock_server.features.spec.steps import Apply, Clip, Cyclic, Fill, Step
from penstock_server.features.spec.steps_value import FUNCTIONS
from penstock_tools import functions
from penstock_tools.sklearn_compiler.columns import Numbers, Parts, Strings, numbers, then
from penstock_tools.sklearn_compiler.refusals import Refused
from penstock_tools.sklearn_compiler.sample import Missing

Arguments = Mapping[str, Any]
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
        raise Refused(f"the function {name} is not one that Penstock knows")
    return (Numbers(then(numbers(parts), *steps(arguments))),)


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
        raise Refused(f"the argument {others[0]!r} of its function is not one that Penstock knows")


_IDENTITIES: Final[tuple[Any, ...]] = (np.asarray, np.array, np.positive)
_KNOWN: Final[dict[Any, Callable[[Arguments], list[Step]]]] = {
    **{getattr(np, name): partial(_apply, name) for name in FUNCTIONS},
    np.clip: _clip,
    np.nan_to_num: _nan_to_num,
    functions.cyclical: _cyclical,
}
