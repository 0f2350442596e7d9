import json

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from penstock_server.errors import InvalidInputError
from penstock_tools import progress
from penstock_tools.batch.run import Request, run
from tests.tools.batch.conftest import table

ROWS = 8000


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_process_that_is_killed_loses_no_row_and_doubles_none(version, tmp_path, on_cluster):
    pq.write_table(table(ROWS), tmp_path / "rows.parquet", row_group_size=250)
    done = on_cluster("tests.tools.batch.on_ray", version, tmp_path / "rows.parquet", tmp_path / "scores")
    assert json.loads(done.splitlines()[-1]) == {"rows": ROWS, "killed": 1}
    found = pyarrow.dataset.dataset(tmp_path / "scores", format="parquet").to_table()
    assert found["id"].to_pylist() == list(range(ROWS))


def test_a_cluster_reads_no_csv(version, tmp_path):
    (tmp_path / "rows.csv").write_text("id,age,fare,city\n1,2,3,Oslo\n")
    request = Request(str(version), str(tmp_path / "rows.csv"), str(tmp_path / "scores"), ray="auto")
    with progress.bars() as bars, pytest.raises(InvalidInputError, match="which takes Parquet; convert it"):
        run(request, bars)
