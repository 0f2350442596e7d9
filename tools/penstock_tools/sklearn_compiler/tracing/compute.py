"""Traced values as steps of a specification: one `Compute` over the sources that they need."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

from penstock_server.features.spec import limits
from penstock_server.features.spec.steps import Compute, Operation
from penstock_tools.sklearn_compiler.tracing.values import Number, Source


@dataclass(slots=True)
class _Draft:
    """The operations so far; equal ones are made once."""

    width: int
    sources: dict[Source, int]
    operations: list[Operation] = field(default_factory=list)
    known: dict[Any, int] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)

    def place(self, number: Number) -> int:
        """Where the number is among the values; what it needs is appended before it."""
        pending = [number]
        while pending:
            last = pending[-1]
            if id(last) in self.places:
                pending.pop()
                continue
            if last.source is not None:
                self.places[id(last)] = self.sources[last.source]
                continue
            waiting = [each for each in last.of if id(each) not in self.places]
            if waiting:
                pending += waiting
                continue
            self.places[id(last)] = self._append(last)
        return self.places[id(number)]

    def _append(self, number: Number) -> int:
        of = tuple(self.places[id(each)] for each in number.of)
        value = None if number.value is None or isnan(number.value) else number.value
        key = (number.function, of, value)
        if key not in self.known:
            self.known[key] = self.width + len(self.operations)
            self.operations.append(Operation(number.function, of, value))
        return self.known[key]


def sources_of(numbers: Sequence[Number]) -> list[Source]:
    """What the numbers need, each once."""
    found: dict[Source, None] = {}
    seen: set[int] = set()
    pending = list(reversed(numbers))
    while pending:
        number = pending.pop()
        if id(number) in seen:
            continue
        seen.add(id(number))
        if number.source is not None:
            found[number.source] = None
        pending += reversed(number.of)
    return list(found)


def compute_of(
    numbers: Sequence[Number], sources: Sequence[Source], names: Sequence[str] = (), required: Sequence[Number] = ()
) -> Compute:
    """The step that makes the numbers of the sources side by side.

    Raises:
        ValueError: it exceeds a limit of specifications.
    """
    draft = _Draft(len(sources), {source: at for at, source in enumerate(sources)})
    outputs = tuple(draft.place(number) for number in numbers)
    conditions = tuple(dict.fromkeys(draft.place(number) for number in required))
    labels = tuple(names) if names and all(_is_name(name) for name in names) else ()
    return Compute(tuple(draft.operations), outputs, labels, conditions)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= limits.MAX_NAME and name.isprintable()
