"""Tries cases one after another: chooses them, leaves out what the server says that it does not offer, and counts."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from penstock_conformance.case import Case, Outcome, Result


class Wire(Protocol):
    """A server that is asked over one wire."""

    def run(self, case: Case) -> Result:
        """Tries a case."""

    def extensions(self) -> frozenset[str]:
        """The extensions that the server names."""


DECLARED: frozenset[str] = frozenset(
    {"schedule_policy", "classification", "model_repository", "model_configuration", "statistics", "binary_tensor_data"}
)
"""The extensions that a server names in its metadata; others are looked for by trying."""


def chosen(cases: Iterable[Case], sections: Sequence[str], only: Sequence[str]) -> list[Case]:
    """The cases of these sections whose ids are like one of `only`; all where a list is empty.

    >>> from penstock_conformance.grpc_cases import cases
    >>> [case.id for case in chosen(cases(), ["health"], ["*.live", "*.ready"])]
    ['grpc.health.live', 'grpc.health.ready']
    """
    return [
        case
        for case in cases
        if (not sections or case.section in sections)
        and (not only or any(fnmatchcase(case.id, pattern) for pattern in only))
    ]


def tried(
    wire: Wire, cases: Sequence[Case], absent: frozenset[str], on_result: Callable[[Result], None]
) -> list[Result]:
    """The results, in the cases' order.

    Args:
        wire: the server.
        cases: what to try.
        absent: models that the server does not have.
        on_result: told of each result.
    """
    offered = wire.extensions()
    results = []
    for case in cases:
        if case.model in absent:
            result = Result(case, Outcome.NOT_OFFERED, f"the server does not have the model {case.model}")
        elif case.extension in DECLARED - offered:
            result = Result(case, Outcome.NOT_OFFERED, f"the server does not name the extension {case.extension}")
        else:
            result = wire.run(case)
        results.append(result)
        on_result(result)
    return results
