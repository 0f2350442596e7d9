import pyarrow as pa
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
