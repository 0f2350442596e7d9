"""Datasets in a store of objects: moto's server answers as S3 does."""

import fsspec
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from penstock_tools import progress
from penstock_tools.batch.run import Request, run
from tests.tools.batch.conftest import table

ROWS = 3000


@pytest.fixture
def store(monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("lake")
    yield files
    server.stop()


@pytest.mark.slow
def test_a_dataset_in_a_store_becomes_another(version, store):
    whole = table(ROWS)
    for at in range(2):
        with store.open(f"lake/rows/{at}.parquet", "wb") as file:
            pq.write_table(whole.slice(at * 1500, 1500), file, row_group_size=500)
    with progress.bars() as bars:
        report = run(
            Request(str(version), "s3://lake/rows/", "s3://lake/scores", key=("id",), processes=1, part_rows=600), bars
        )
    assert report.rows == ROWS
    store.invalidate_cache()
    names = sorted(name.removeprefix("lake/scores/") for name in store.find("lake/scores"))
    assert names == ["_SUCCESS", "_penstock.json", *(f"part-{at:06}.parquet" for at in range(6))]
    found = pyarrow.dataset.dataset("lake/scores", format="parquet", filesystem=store).to_table()
    assert found["id"].to_pylist() == list(range(ROWS))
