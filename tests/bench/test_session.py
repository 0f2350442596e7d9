"""One whole run, with the baseline alone."""

import json

import pytest
from rich.console import Console

from bench import models, report, session
from bench.scenarios import Rounds, Scenario
from bench.servers.measured import BASELINE, SERVERS, ServerThere, running


@pytest.mark.long
@pytest.mark.slow
def test_a_whole_run_measures_each_round_and_is_shown_and_recorded(tmp_path) -> None:
    rounds = Rounds(count=2, warmup_s=0.05, duration_s=0.1, promotions=1)
    spec = session.RunSpec((BASELINE,), (Scenario("mlp", 2, 2),), rounds, measures_startup=True)
    said, steps = [], []
    run = session.run(spec, on_start=said.append, on_measured=lambda: steps.append(1))
    assert len(steps) == spec.measurements == len(run.measurements) == 2
    assert "mlp 2x2, baseline" in said
    (summary,) = run.summaries
    assert summary.requests_per_s > 0
    assert summary.failed == 0
    assert run.startups[0].answered_s >= run.startups[0].listening_s > 0
    assert run.startups[0].largest_rss_bytes > 2**20
    console = Console(record=True, width=80)
    report.show(console, run)
    shown = console.export_text()
    assert "mlp 2x2" in shown
    assert "…" not in shown
    report.write(run, tmp_path / "new" / "run.json")
    recorded = json.loads((tmp_path / "new" / "run.json").read_text())
    assert recorded.keys() == {"machine", "commit", "summaries", "measurements", "memory", "readiness", "growth"}
    assert [each["round"] for each in recorded["measurements"]] == [0, 1]
    assert recorded["machine"]["cpus"] > 0


@pytest.mark.slow
@pytest.mark.long  # a second session of load
def test_a_server_that_runs_already_is_measured_beside_those_of_the_bench(tmp_path) -> None:
    rounds = Rounds(count=1, warmup_s=0.05, duration_s=0.1, promotions=1)
    files = models.write(tmp_path, {"mlp"})
    with running(SERVERS[BASELINE].command(tmp_path, files)) as server:
        there = {"known": ServerThere(server.grpc, server.pid), "other": ServerThere(server.grpc)}
        spec = session.RunSpec((BASELINE,), (Scenario("mlp", 2, 2),), rounds, there=there)
        run = session.run(spec, on_start=lambda _: None, on_measured=lambda: None)
    cpu_us = {summary.server: summary.cpu_us for summary in run.summaries}
    assert cpu_us.keys() == {BASELINE, "known", "other"}
    assert cpu_us["known"] is not None
    assert cpu_us["other"] is None
    assert run.memory.keys() == {BASELINE, "known"}
    report.show(Console(record=True, width=80), run)
