"""Traced and proven: a function of rows that reach it as parts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from penstock_tools.sklearn_compiler.columns import Parts, Strings, Times
from penstock_tools.sklearn_compiler.tracing import elementwise, prove, trace
from penstock_tools.sklearn_compiler.tracing.values import FromNumber, Number, Text, Value


def traced(function: Callable[[Any], Any], given: Any, parts: Parts) -> trace.Traced:
    """What a function makes of the columns of its parts.

    Args:
        function: takes rows and gives rows.
        given: sample rows as they reach it.
        parts: what they are made of.

    Raises:
        NotTraced: it does what its record cannot express, or is not what was traced.
    """
    own = prove.local_parts(parts)
    further = prove.prove(function, given, trace.trace(function, given, _values(given, own)), own)
    made = trace.trace(function, given, _values(given, parts))
    return replace(made, required=(*made.required, *further))


def _values(given: Any, parts: Parts) -> list[Value]:
    """A traced value for each column that reaches a function."""
    values: list[Value] = []
    for part in parts:
        if isinstance(part, Strings):
            values.append(Text(len(values), part.becomes))
        elif isinstance(part, Times):
            values.append(elementwise.raw_time(len(values)))
        else:
            for _ in range(part.width):
                kind = trace.kind_of(_dtype_of(given, len(values)))
                values.append(Number("source", kind=kind, source=FromNumber(len(values))))
    return values


def _dtype_of(given: Any, at: int) -> Any:
    if hasattr(given, "dtypes") and hasattr(given, "iloc"):
        return given.dtypes.iloc[at] if given.ndim == 2 else given.dtype
    return given.dtype
