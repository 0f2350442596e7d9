"""Datasets in a store of objects: moto's server answers as S3 does."""

import gzip

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from penstock_tools import progress
from penstock_tools.batch.files import FilesOutput
from penstock_tools.batch.run import Request, run
from tests.s3 import s3_server
from tests.tools.batch.conftest import table

ROWS = 3000


@pytest.fixture(scope="module")
def store():
    with s3_server():
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("lake")
        yield files


def done(version, rows, scores, **options):
    with progress.bars() as bars:
        return run(Request(str(version), rows, scores, key=("id",), processes=1, **options), bars)


@pytest.mark.long
@pytest.mark.slow
def test_a_dataset_in_a_store_becomes_another(version, store):
    whole = table(ROWS)
    for at in range(2):
        with store.open(f"lake/rows/{at}.parquet", "wb") as file:
            pq.write_table(whole.slice(at * 1500, 1500), file, row_group_size=500)
    report = done(version, "s3://lake/rows/", "s3://lake/scores", part_rows=600)
    assert report.rows == ROWS
    store.invalidate_cache()
    names = sorted(name.removeprefix("lake/scores/") for name in store.find("lake/scores"))
    assert names == ["_SUCCESS", "_penstock.json", *(f"part-{at:06}.parquet" for at in range(6))]
    found = pyarrow.dataset.dataset("lake/scores", format="parquet", filesystem=store).to_table()
    assert found["id"].to_pylist() == list(range(ROWS))


@pytest.mark.slow
def test_csv_in_a_store_is_read_and_its_bad_rows_go_there(version, store):
    """The second of two compressed files has two rows without a fare."""
    whole = table(ROWS)
    for at in range(2):
        part = whole.slice(at * 1500, 1500)
        if at:
            fares = part["fare"].to_pylist()
            part = part.set_column(2, "fare", pa.array([None if row in (7, 70) else fares[row] for row in range(1500)]))
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(part, sink)
        store.pipe_file(f"lake/days/{at}.csv.gz", gzip.compress(sink.getvalue()))
    report = done(version, "s3://lake/days/*.csv.gz", "s3://lake/of-days", bad_rows="s3://lake/bad.csv", part_rows=1000)
    assert (report.rows, report.bad_rows, report.parts) == (ROWS - 2, 2, 3)
    store.invalidate_cache()
    found = pyarrow.dataset.dataset("lake/of-days", format="parquet", filesystem=store).to_table()
    assert found.num_rows == ROWS - 2
    bad = pa.csv.read_csv(pa.BufferReader(store.cat_file("lake/bad.csv")))
    assert bad["penstock_row"].to_pylist() == bad["id"].to_pylist() == [1507, 1570]


@pytest.mark.slow
def test_a_job_in_a_store_goes_on_with_the_parts_that_it_lacks(version, store, monkeypatch):
    pq.write_table(table(ROWS), sink := pa.BufferOutputStream(), row_group_size=500)
    store.pipe_file("lake/stopped/rows.parquet", sink.getvalue().to_pybytes())
    arguments = version, "s3://lake/stopped/rows.parquet", "s3://lake/resumed"
    monkeypatch.setattr(FilesOutput, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        done(*arguments, part_rows=500)
    monkeypatch.undo()
    assert not store.exists("lake/resumed/_SUCCESS")
    report = done(*arguments, part_rows=500)
    assert (report.rows, report.resumed_rows) == (ROWS, ROWS)
    store.invalidate_cache()
    assert store.exists("lake/resumed/_SUCCESS")
    assert not store.exists("lake/resumed/_penstock")
