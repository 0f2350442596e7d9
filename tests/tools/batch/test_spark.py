import shutil

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from penstock_server.errors import InvalidInputError
from penstock_tools.batch.spark import map_in_arrow
from tests.tools.batch.conftest import table


def test_an_iterator_of_batches_becomes_one_of_answers(version):
    rows = table(500)
    score, schema = map_in_arrow(version, rows.schema, keep=("id",))
    found = pa.Table.from_batches(score(rows.to_batches(max_chunksize=200)))
    assert found["id"].to_pylist() == list(range(500))
    assert schema == "`id` bigint, `label` string, `probabilities_leaves` float, `probabilities_stays` float"


def test_a_frame_of_other_columns_is_refused_before_spark_runs(version):
    with pytest.raises(InvalidInputError, match="lacks column 'city'"):
        map_in_arrow(version, table(1).drop_columns("city").schema)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, which is not installed")
def test_spark_s_processes_answer_each_row_once(version, tmp_path, on_cluster):
    rows = table(5000)
    pq.write_table(rows, tmp_path / "rows.parquet")
    on_cluster("tests.tools.batch.on_spark", version, tmp_path / "rows.parquet", tmp_path / "scores")
    found = pyarrow.dataset.dataset(tmp_path / "scores", format="parquet").to_table().sort_by("id")
    score, _ = map_in_arrow(version, rows.schema, keep=("id",))
    expected = pa.Table.from_batches(score(rows.to_batches()))
    assert found.replace_schema_metadata(None).equals(expected.replace_schema_metadata(None))
