"""Where MLflow 3 keeps a version's files: the artifacts of a logged model, and a store of objects, which moto's server is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.settings import FetchSettings
from tests.s3 import s3_server
from tests.server.sources.fake_registry import FakeRegistry, Query
from tests.server.sources.test_store_faults import FILES as PUBLISHED
from tests.server.sources.test_store_faults import GRAPH, found

FILES = {"MLmodel": b"flavors: {onnx: {data: model.onnx}}\n"}


def register(publisher: Any, source: str, **more: Any) -> None:
    if not publisher.client.search_registered_models("name = 'm'"):
        publisher.client.create_registered_model("m")
    publisher.client.create_model_version("m", source=source, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_logged_model_of_mlflow_3_is_fetched_by_its_id(
    publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where MLflow's registry looks the id up; what an earlier test has it follow would come before the environment.
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", publisher.uri)
    folder = tmp_path / "logged"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(publisher.onnx)
    (folder / "MLmodel").write_bytes(FILES["MLmodel"])
    client = publisher.client
    logged = client.create_logged_model(publisher._experiment(), name="m")
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    register(publisher, f"models:/{logged.model_id}", model_id=logged.model_id)
    source = MlflowSource(publisher.uri, cache_dir=tmp_path / "cache")
    assert files(source.fetch("m", "1"))["model.onnx"] == publisher.onnx


class Bucket:
    """A bucket, and the client that fills it."""

    def __init__(self, address: str) -> None:
        import boto3

        self.client = boto3.client("s3", endpoint_url=address)
        self.client.create_bucket(Bucket="models")

    def put(self, **objects: bytes) -> None:
        for name, body in objects.items():
            self.client.put_object(Bucket="models", Key=f"m/1/{name.replace('_onnx', '.onnx')}", Body=body)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with s3_server() as address:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", address)
        yield Bucket(address)


@pytest.mark.long
@pytest.mark.slow
def test_a_version_in_s3_is_fetched_and_again_when_its_copy_is_damaged(
    publisher: Any, bucket: Bucket, tmp_path: Path
) -> None:
    register(publisher, "s3://models/m/1")
    source = MlflowSource(publisher.uri, cache_dir=tmp_path / "cache")
    with pytest.raises(InvalidInputError, match="holds no files"):
        source.fetch("m", "1")
    bucket.put(**FILES, model_onnx=publisher.onnx)
    folder = source.fetch("m", "1")
    assert files(folder) == {**FILES, "model.onnx": publisher.onnx}
    (folder / "model.onnx").write_bytes(publisher.onnx[:-5])  # cut short, as by a full disk
    again = source.fetch("m", "1")
    assert files(again) == {**FILES, "model.onnx": publisher.onnx}
    bucket.client.delete_object(Bucket="models", Key="m/1/model.onnx")
    assert source.fetch("m", "1") == again  # a whole copy needs no store


@pytest.mark.slow
def test_a_store_that_is_away_is_told_and_leaves_nothing(
    publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    register(publisher, "s3://models/m/1")
    with pytest.raises(UnavailableError, match="version 1 of model 'm' cannot be fetched"):
        MlflowSource(publisher.uri, cache_dir=tmp_path / "cache").fetch("m", "1")
    assert files(tmp_path / "cache") == {}


class Objects:
    """A bucket that gets things wrong, which moto's server cannot: it lists what it has, and answers as it is told."""

    def __init__(self, fake: FakeRegistry) -> None:
        self.fake = fake
        fake.answers["/models"] = self._listed
        fake.pages = {f"/models/m/1/{name}": content for name, content in PUBLISHED.items()}

    def _listed(self, query: Query) -> bytes:
        prefix = query.get("prefix", "")
        names = [name.removeprefix("/models/") for name in self.fake.pages]
        below = {name.removeprefix(prefix).partition("/")[:2] for name in names if name.startswith(prefix)}
        return (
            "<ListBucketResult><IsTruncated>false</IsTruncated>"
            + "".join(
                f"<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>"
                if slash
                else f"<Contents><Key>{prefix}{name}</Key><Size>{len(self.fake.pages[f'/models/{prefix}{name}'])}</Size>"
                "</Contents>"
                for name, slash in sorted(below)
            )
            + "</ListBucketResult>"
        ).encode()


@pytest.fixture
def objects(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Objects:
    address = fake.uri.replace("user:hunter2@", "")
    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fake.register("m", "1", source="s3://models/m/1", champion="1")
    return Objects(fake)


@pytest.mark.long
@pytest.mark.slow
def test_faults_of_a_bucket_are_told_and_what_they_left_is_fetched_again(
    objects: Objects, fake: FakeRegistry, tmp_path: Path
) -> None:
    source = MlflowSource(fake.uri, cache_dir=tmp_path, fetch=FetchSettings(max_mib=0.1, max_files=20))
    graph = "/models/m/1/model.onnx"

    def fails(kind: type[Exception], said: str) -> None:
        with pytest.raises(kind, match=f"version 1 of model 'm' cannot be fetched: .*{said}"):
            source.fetch("m", "1")
        assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]

    fake.cut_paths.add(graph)
    fails(UnavailableError, "does not give its files")
    fake.cut_paths.clear()
    for answer, kind, said in (
        (GRAPH[:-1] + b"x", InvalidInputError, "'model.onnx' came as another than was published"),
        ((404, b""), UnavailableError, "Not Found"),
        ((403, b""), UnavailableError, "Forbidden"),
        ((302, b""), UnavailableError, "does not give its files"),
        (bytes(200_000), (InvalidInputError, UnavailableError), ""),  # more than was listed
    ):
        fake.answers[graph] = lambda _, answer=answer: answer
        fails(kind, said)  # type: ignore[arg-type]
        del fake.answers[graph]
    whole = dict(fake.pages)
    for name, said in (("../x", "a file named '..'"), ("a\\b", "expected a plain name")):
        fake.pages[f"/models/m/1/{name}"] = b"x"
        fails(InvalidInputError, said)
        fake.pages = dict(whole)
    fake.pages |= {f"/models/m/1/many/{n}": b"" for n in range(1000)}
    fails(InvalidInputError, "more than 20 files")
    fake.pages = whole
    assert found(source.fetch("m", "1")) == PUBLISHED
