"""Models that somebody else keeps, each published from where it lies: W&B's own client, and S3 as moto's server speaks it."""

import os
import subprocess
import sys
import types
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import skops.io
from fsspec.registry import _registry
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_tools.publish import elsewhere, files, onnx, pipeline
from penstock_tools.publish.files import Request
from tests.s3 import s3_server
from tests.tools.publish.wandb_server import RELEASE, WandbServer

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
TRUTH = (ROWS.a > 0).astype(int)
FITTED = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, TRUTH)


@pytest.fixture
def model_file(tmp_path):
    skops.io.dump(FITTED, tmp_path / "model.skops")
    return tmp_path / "model.skops"


@pytest.fixture
def sample(tmp_path):
    ROWS.assign(truth=TRUTH).to_parquet(tmp_path / "sample.parquet")
    return tmp_path / "sample.parquet"


@pytest.fixture
def logged_folder(tmp_path):
    """A model as MLflow writes it, with its input example."""
    import mlflow.sklearn

    mlflow.sklearn.save_model(FITTED, str(tmp_path / "logged"), input_example=ROWS, pip_requirements=[])
    return tmp_path / "logged"


def publish(address, **options):
    version, _ = files.publish(Request("churn", Path(address), **options), lambda _: True, lambda _: None)
    return version


def recorded(client, version="1"):
    """Where a version says that it is from, and the page that it leads to."""
    found = client.get_model_version("churn", version)
    return client.get_run(found.run_id).data.params["published_from"], found.tags.get(onnx.LINK_TAG)


class Artifact:
    """An artifact as W&B's client gives one."""

    version = "v3"

    def __init__(self, files, run):
        self.files, self.run = files, run

    def download(self, root):
        for name, file in self.files.items():
            (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(root) / name).write_bytes(file.read_bytes())

    def logged_by(self):
        return self.run


@pytest.fixture
def fake_wandb(monkeypatch):
    """Puts an interface in the place of the client; what it is asked for it gives, or raises."""

    def put(found):
        module, errors = types.ModuleType("wandb"), types.ModuleType("wandb.errors")
        errors.Error = type("Error", (Exception,), {})
        errors.UsageError = type("UsageError", (errors.Error,), {})

        def artifact(name):
            module.asked = name
            if isinstance(found, str):
                raise errors.Error(found)
            return found

        module.Api = lambda: types.SimpleNamespace(artifact=artifact)
        module.errors = errors
        monkeypatch.setitem(sys.modules, "wandb", module)
        monkeypatch.setitem(sys.modules, "wandb.errors", errors)
        return module

    return put


def test_an_artifact_becomes_a_version_that_leads_to_its_run(fake_wandb, model_file, sample, client, registry):
    run = types.SimpleNamespace(url="https://wandb.example/team/churn/runs/abc")
    module = fake_wandb(Artifact({"model.skops": model_file}, run))
    assert publish("wandb:team/churn/model:latest", sample=sample, labels="truth") == "1"
    assert module.asked == "team/churn/model:latest"
    assert recorded(client) == ("wandb:team/churn/model:v3", run.url)


def test_a_link_that_is_given_goes_before_the_one_that_is_known(fake_wandb, model_file, sample, client, registry):
    fake_wandb(Artifact({"model.skops": model_file}, types.SimpleNamespace(url="https://wandb.example/1")))
    publish("wandb:team/churn/model:v3", sample=sample, labels="truth", link="https://example/2")
    assert recorded(client)[1] == "https://example/2"


def test_an_artifact_of_no_run_leads_nowhere(fake_wandb, onnx_model, tmp_path, client, registry):
    (tmp_path / "model.onnx").write_bytes(onnx_model.SerializeToString())
    fake_wandb(Artifact({"inside/model.onnx": tmp_path / "model.onnx"}, None))
    publish("wandb:team/churn/model:v3")
    assert recorded(client) == ("wandb:team/churn/model:v3", None)


@pytest.mark.parametrize(
    ("address", "found", "kind", "said"),
    [
        ("wandb:model:v3", None, InvalidInputError, "expected wandb:ENTITY/PROJECT/NAME:VERSION"),
        ("wandb:team/churn/model", None, InvalidInputError, "expected wandb:ENTITY/PROJECT/NAME:VERSION"),
        ("wandb:t/c/m:v9", "artifact 't/c/m:v9' not found in 't/c'", NotFoundError, "there is no wandb:t/c/m:v9: artifact"),
        ("wandb:t/c/m:v9", "No API key configured", UnavailableError, "cannot be fetched: No API key configured"),
        ("wandb:t/c/m:v9", Artifact({}, None), InvalidInputError, "holds nothing; expected one model"),
    ],
)  # fmt: skip
def test_what_is_no_artifact_is_told(fake_wandb, address, found, kind, said):
    fake_wandb(found)
    with pytest.raises(kind, match=said):
        publish(address)


def test_files_that_are_no_one_model_are_named(fake_wandb, model_file, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    fake_wandb(Artifact({"a.skops": model_file, "b.onnx": model_file, "notes.txt": tmp_path / "notes.txt"}, None))
    with pytest.raises(InvalidInputError, match=r"holds a\.skops, b\.onnx, notes\.txt; expected one model"):
        publish("wandb:t/c/m:v1")


FETCH = """
from penstock_tools.publish import elsewhere
with elsewhere.fetched("wandb:team/churn/model:latest") as found:
    print(found.address, found.link, found.model().read_bytes().decode())
"""


@pytest.mark.long
@pytest.mark.slow  # W&B's client starts a process of its own
@pytest.mark.timeout(300)
def test_wandbs_own_client_fetches_an_artifact(tmp_path):
    wandb = pytest.importorskip("wandb")
    if not wandb.__version__.startswith(RELEASE):
        pytest.skip(f"the server of this test answers the client's {RELEASE}x, and this is {wandb.__version__}")
    (tmp_path / "model.skops").write_text("content")
    with WandbServer({"model.skops": tmp_path / "model.skops"}) as server:
        told = without_a_network(FETCH, tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY="x" * 40)
    assert told.split() == ["wandb:team/churn/model:v3", f"{server.url}/team/churn/runs/abc", "content"]


def without_a_network(script, folder, **own):
    """What a script prints that uses W&B's client, which keeps what it keeps in the folder and tells nobody."""
    places = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **places, **quiet, **own},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


OFFLINE = """
import wandb
from penstock_tools.publish.onnx import Record
with wandb.init(project="churn", mode="offline") as run:
    run.log({"auc": 0.8})
    print(Record(params={"run": run.id}, link=run.url).link)
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_without_a_network_has_no_page_to_link_to(tmp_path):
    pytest.importorskip("wandb")
    assert without_a_network(OFFLINE, tmp_path).split()[-1] == "None"
    assert len([*(tmp_path / "wandb").glob("offline-run-*")]) == 1


def test_a_link_from_python_is_the_versions_tag(client, registry):
    published = pipeline.publish_pipeline(
        "churn", FITTED, ROWS, record=onnx.Record(link="https://wandb.example/runs/1")
    )
    assert client.get_model_version("churn", published.version).tags == {onnx.LINK_TAG: "https://wandb.example/runs/1"}


@pytest.fixture(scope="module")
def store():
    """A store that answers as S3 does, and as the gateways of LakeFS do: repository, branch, path."""
    with s3_server():
        found = fsspec.filesystem("s3", skip_instance_cache=True)
        found.mkdir("lake")
        yield found


@pytest.mark.long
@pytest.mark.slow
def test_a_file_in_a_store_is_published_with_rows_in_it(store, model_file, sample, client, registry):
    store.put_file(str(model_file), "lake/main/models/model.skops")
    store.put_file(str(sample), "lake/main/rows/sample.parquet")
    publish("s3://lake/main/models/model.skops", sample=Path("s3://lake/main/rows/sample.parquet"), labels="truth")
    assert recorded(client) == ("s3://lake/main/models/model.skops", None)


@pytest.mark.slow
def test_a_folder_that_mlflow_wrote_is_published_with_its_example(store, logged_folder, client, registry):
    store.put(str(logged_folder), "lake/main/logged", recursive=True)
    publish("s3://lake/main/logged", link="https://lakefs.example/repositories/lake/objects?ref=main")
    assert recorded(client) == ("s3://lake/main/logged", "https://lakefs.example/repositories/lake/objects?ref=main")


@pytest.mark.slow
def test_what_is_not_in_a_store_is_told(store, monkeypatch):
    with pytest.raises(NotFoundError, match=r"there is no s3://lake/main/nothing\.onnx"):
        publish("s3://lake/main/nothing.onnx")
    with pytest.raises(InvalidInputError, match="s4://lake/x cannot be reached: Protocol not known: s4"):
        publish("s4://lake/x")


class Bucket(fsspec.get_filesystem_class("memory")):
    """Stands for Google Cloud Storage, where Vertex AI keeps what was trained: the files of a process, by its protocol."""

    protocol = "gs"
    store: dict = {}  # noqa: RUF012 - as its base has it
    pseudo_dirs: list = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("gs://", "memory://", 1))


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setitem(_registry, "gs", Bucket)
    return Bucket(skip_instance_cache=True)


def test_what_vertex_trained_is_published_from_its_bucket(bucket, model_file, sample, client, registry):
    bucket.pipe("/company/aiplatform-custom-training/model/model.skops", model_file.read_bytes())
    publish("gs://company/aiplatform-custom-training/model/", sample=sample, labels="truth")
    assert recorded(client)[0] == "gs://company/aiplatform-custom-training/model"


def test_a_name_that_leads_out_of_its_folder_is_refused(bucket, monkeypatch):
    monkeypatch.setattr(Bucket, "isdir", lambda *_: True)
    monkeypatch.setattr(Bucket, "find", lambda *_: ["/company/x/../../evil"])
    with pytest.raises(InvalidInputError, match="no name of a file in it"), elsewhere.fetched("gs://company/x"):
        pass


def test_a_store_that_does_not_answer_is_told(bucket, monkeypatch):
    def broken(*_):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(Bucket, "isdir", broken)
    with pytest.raises(UnavailableError, match="gs://company/x cannot be fetched: no credentials"):
        publish("gs://company/x")
