"""What the suite prints: a table by section, each failure with what was expected and got, and a record for machines."""

from collections.abc import Iterable, Sequence
from typing import Any

from penstock_conformance.case import Outcome, Result, described

_WIDTH = 24


def table(results: Sequence[Result]) -> str:
    """How many cases of each section passed.

    >>> print(table([]).splitlines()[0])
    section                   passed  failed  not offered
    """
    sections = dict.fromkeys(result.case.section for result in results)
    lines = [f"{'section':{_WIDTH}}  {'passed':>6}  {'failed':>6}  {'not offered':>11}"]
    for name in (*sections, "all"):
        own = [result for result in results if name in (result.case.section, "all")]
        counts = [sum(result.outcome is outcome for result in own) for outcome in Outcome]
        lines.append(f"{name:{_WIDTH}}  {counts[0]:6}  {counts[1]:6}  {counts[2]:11}")
    return "\n".join(lines)


def failure(result: Result) -> str:
    """One failure, in five lines."""
    case = result.case
    parts = {"rule": case.rule, "source": case.source, "expected": described(case.expected), "got": result.got}
    return "\n".join((case.id, *(f"  {name + ':':9} {text}" for name, text in parts.items())))


def failures(results: Iterable[Result]) -> str:
    """Every failure."""
    return "\n".join(failure(result) for result in results if result.outcome is Outcome.FAILED)


def record(results: Sequence[Result], about: dict[str, Any]) -> dict[str, Any]:
    """All results as JSON's types."""
    counts = {outcome.value: sum(result.outcome is outcome for result in results) for outcome in Outcome}
    return {
        **about,
        "counts": counts,
        "cases": [
            {
                "id": result.case.id,
                "section": result.case.section,
                "rule": result.case.rule,
                "source": result.case.source,
                "expected": described(result.case.expected),
                "outcome": result.outcome.value,
                "got": result.got,
                "seconds": round(result.seconds, 6),
            }
            for result in results
        ],
    }
