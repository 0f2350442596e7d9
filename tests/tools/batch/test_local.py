"""Processes of this machine that are killed while they score."""

import functools

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from penstock_server.errors import UnavailableError
from penstock_tools import progress
from penstock_tools.batch import local
from penstock_tools.batch import run as command
from penstock_tools.batch.run import Request, run
from tests.tools.batch.conftest import table
from tests.tools.batch.killed import DeadlyOutput

ROWS = 3000


@pytest.fixture
def job(version, tmp_path, monkeypatch):
    """Runs a job of which so many processes are killed."""
    pq.write_table(table(ROWS), tmp_path / "rows.parquet", row_group_size=250)
    (tmp_path / "marks").mkdir()

    def ran(deaths):
        output = functools.partial(DeadlyOutput, tmp_path / "marks", deaths=deaths)
        monkeypatch.setattr(command, "FilesOutput", output)
        addresses = (str(tmp_path / "rows.parquet"), str(tmp_path / "scores"))
        with progress.bars() as bars:
            return run(Request(str(version), *addresses, key=("id",), processes=2, part_rows=250), bars)

    return ran


@pytest.mark.long
@pytest.mark.slow
def test_processes_that_are_killed_lose_no_row_and_double_none(job, tmp_path):
    report = job(2)
    assert (report.rows, report.parts) == (ROWS, 12)
    found = pyarrow.dataset.dataset(tmp_path / "scores", format="parquet").to_table()
    assert found["id"].to_pylist() == list(range(ROWS))
    assert len(list((tmp_path / "marks").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.long
def test_a_job_whose_processes_are_killed_again_and_again_ends(job, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "MOST_DEATHS", 0)
    with pytest.raises(UnavailableError, match="were killed 1 times, perhaps for want of memory; --processes"):
        job(1)
    assert not (tmp_path / "scores").exists()
