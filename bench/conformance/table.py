"""How several servers did in the suite, as a table in Markdown: what each passed of what it offers, by section."""

from collections.abc import Mapping, Sequence

from penstock_conformance.case import Outcome, Result


def markdown(results: Mapping[str, Sequence[Result]], versions: Mapping[str, str]) -> str:
    """A row for each section, a column for each server: passed of tried, and how many were not offered."""
    sections = dict.fromkeys(result.case.section for own in results.values() for result in own)
    heads = [f"{name} {versions[name]}".strip() for name in results]
    lines = [f"| section | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for section in (*sections, "all"):
        cells = [_cell([each for each in own if section in (each.case.section, "all")]) for own in results.values()]
        lines.append(f"| {section} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(results: Sequence[Result]) -> str:
    passed, failed, absent = (sum(result.outcome is outcome for result in results) for outcome in Outcome)
    if not passed + failed:
        return "not offered" if absent else ""
    return f"{passed} of {passed + failed}" + (f" ({absent} not offered)" if absent else "")
