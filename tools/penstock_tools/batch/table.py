"""What a job did, in lines for people."""

from collections.abc import Iterator
from typing import Final

from penstock_tools.batch.run import Report
from penstock_tools.drift import sentences
from penstock_tools.formatting import safe

MOST_CLASSES: Final = 10
_LONGEST: Final = 1000


def lines(report: Report, run_id: str | None = None) -> Iterator[str]:
    """The lines.

    Args:
        report: of the job.
        run_id: MLflow's run of it, if there is one.
    """
    name = f"{safe(report.model)} version {safe(report.version)}"
    if report.was_finished:
        yield f"a job of this name has scored with {safe(report.model)} already, and nothing is left to do"
        return
    rate = report.rows / report.scored_s if report.scored_s else 0.0
    yield f"{name} scored {report.rows:,} rows in {report.took_s:.1f} s ({rate:,.0f} rows/s per core, without files)"
    if report.resumed_rows:
        yield f"{report.resumed_rows:,} of them had been scored when the job was stopped"
    if report.bad_rows:
        yield f"{report.bad_rows:,} rows could not be answered and were set aside"
    if report.classes:
        told = sorted(report.classes.items(), key=lambda each: -each[1])[:MOST_CLASSES]
        yield "predicted: " + ", ".join(f"{safe(label)} {rows / max(report.rows, 1):.1%}" for label, rows in told)
    if report.drift is not None:
        yield sentences.verdict(report.drift)
    yield f"the answers are in {safe(report.output, _LONGEST)}"
    if run_id is not None:
        yield f"MLflow's run is {run_id}"
