"""A cluster of Ray on this machine, of which a process is killed."""

import logging
import os
import signal

import psutil
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from penstock_tools import progress
from penstock_tools.batch.run import Request, run
from tests.tools.batch.conftest import table

ROWS = 8000


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_process_that_is_killed_loses_no_row_and_doubles_none(version, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    pq.write_table(table(ROWS), tmp_path / "rows.parquet", row_group_size=250)
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    killed = []

    def kill_one(_done):
        # An actor of Ray shows its class and what it does.
        own = psutil.Process().children(recursive=True)
        actors = [each for each in own if "ray::" in each.name() or any("ray::" in part for part in each.cmdline())]
        scoring = [each for each in actors if "MapWorker" in " ".join((each.name(), *each.cmdline()))]
        if scoring and not killed:
            os.kill(scoring[0].pid, signal.SIGKILL)
            killed.append(scoring[0].pid)

    try:
        with progress.bars() as bars:
            monkeypatch.setattr(
                bars, "begin", lambda text, _total: kill_one if text == "scoring" else lambda _done: None
            )
            report = run(
                Request(
                    str(version),
                    str(tmp_path / "rows.parquet"),
                    str(tmp_path / "scores"),
                    key=("id",),
                    ray="auto",
                    processes=2,
                    part_rows=250,
                ),
                bars,
            )
    finally:
        ray.shutdown()
    assert killed
    assert report.rows == ROWS
    found = pyarrow.dataset.dataset(tmp_path / "scores", format="parquet").to_table()
    assert found["id"].to_pylist() == list(range(ROWS))
