"""A job as a run of MLflow: what was scored by which version, how fast, what was predicted, and what drifted."""

from typing import Final

from penstock_tools import output
from penstock_tools.batch.run import Report
from penstock_tools.drift import page
from penstock_tools.publish.registry import experiment_id, opened

MOST_METRICS: Final = 500


def track(report: Report, registry: str | None) -> str:
    """Keeps a job as a run, and gives its id.

    Raises:
        UnavailableError: the registry does not answer.
    """
    from mlflow.entities import Metric, Param, RunTag

    with opened(registry) as client:
        run = client.create_run(
            experiment_id(client), run_name=f"batch {report.model} {report.version}", tags={"penstock.kind": "batch"}
        )
        run_id: str = run.info.run_id
        told = {
            "model": report.model,
            "version": report.version,
            "input": report.input,
            "output": report.output,
            "parts": report.parts,
        }
        numbers = {
            "rows": report.rows,
            "bad_rows": report.bad_rows,
            "resumed_rows": report.resumed_rows,
            "took_s": report.took_s,
            "scored_s": report.scored_s,
        }
        numbers |= {f"rows_of_class_{_named(name)}": rows for name, rows in report.classes.items()}
        if report.drift is not None:
            numbers["drifted_columns"] = report.drift.drifted or 0
            for column in (*report.drift.columns, *report.drift.answered):
                if column.jensen_shannon is not None:
                    numbers[f"drift_{_named(column.name)}"] = column.jensen_shannon
            client.log_text(run_id, page.page(report.drift), "drift.html")
            client.log_text(run_id, output.as_json(report.drift), "drift.json")
        at_ms = run.info.start_time
        metrics = [Metric(name, float(value), at_ms, 0) for name, value in list(numbers.items())[:MOST_METRICS]]
        params = [Param(name, str(value)[:6000]) for name, value in told.items()]
        client.log_batch(run_id, metrics, params, [RunTag("penstock.version", report.version)])
        client.set_terminated(run_id)
    return run_id


def _named(text: str) -> str:
    """A name as MLflow takes it."""
    return "".join(each if each.isalnum() or each in "_-. /" else "_" for each in text)[:200] or "_"
