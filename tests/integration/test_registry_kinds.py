"""A server that follows MLflow servers of other kinds: with workspaces and a PostgreSQL, and of the major version before."""

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Final

import pytest

from bench.servers.mlflow_server import mlflow_server
from penstock_server.sources.mlflow_source import MlflowSource
from tests import packages
from tests.integration.test_registry import answering, roles
from tests.postgres import postgres_server

MLFLOW_2: Final = "2.22.5"
NEEDED_BY_2: Final = ("flask<4", "gunicorn<24", "sqlalchemy<2.1", "alembic<2", "graphene<4", "docker", "pandas<3")
"""What its server needs of what it depends on; the rest, as scikit-learn, takes most of the time to install."""


def publish_in(workspace: str, registry: Any, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> str:
    """As `penstock publish` does with the variable."""
    with monkeypatch.context() as environment:
        environment.setenv("MLFLOW_WORKSPACE", workspace)
        return str(registry.publish("flag", *arguments))


def settings_file(folder: Path, text: str) -> str:
    file = folder / "penstock.toml"
    file.write_text(f"poll_interval_s = 0.2\n{text}\n")
    return str(file)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_workspace_in_postgresql_is_followed_and_served_while_all_is_away(
    start: Any,
    registry: Any,
    flag_model: bytes,
    opposite_model: bytes,
    until: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspaces = {"MLFLOW_ENABLE_WORKSPACES": "true"}
    config = settings_file(tmp_path, 'workspace = "team-a"')
    with postgres_server() as database, mlflow_server(tmp_path, database, workspaces) as uri:
        for name in ("team-a", "team-b"):
            body = json.dumps({"name": name}).encode()
            address = f"{uri}/api/3.0/mlflow/workspaces"
            urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"})).close()
        there = type(registry)(uri, tmp_path)
        first = publish_in("team-a", there, monkeypatch, flag_model, "champion")
        publish_in("team-b", there, monkeypatch, opposite_model, "champion")
        server = start("--registry", uri, "--config", config).wait_ready()
        assert roles(server, "flag") == {"champion": first}
        second = publish_in("team-a", there, monkeypatch, opposite_model, "champion")
        until(lambda: answering(server.grpc, "flag") == second, "the workspace is followed")
        for workspace, version in (("team-a", second), ("team-b", "1"), ("default", None)):
            for address, more in ((uri, {}), (database, workspaces)):  # the server, and its database itself
                with monkeypatch.context() as environment:
                    for name, value in {"MLFLOW_WORKSPACE": workspace, **more}.items():
                        environment.setenv(name, value)
                    plan = MlflowSource(address, cache_dir=tmp_path).poll().models.get("flag")
                assert (None if plan is None else plan.champion) == version
    until(lambda: server.total("penstock_source_up") == 0, "it is away")
    assert answering(server.grpc, "flag") == second
    assert server.stop() == 0
    server = start("--registry", uri, "--config", config).wait_ready()
    assert answering(server.grpc, "flag") == second


WITH_CLIENT_OF_2: Final = """
import sys
from mlflow import MlflowClient, __version__, set_tracking_uri
uri, folder, alias = sys.argv[1:]
set_tracking_uri(uri)
client = MlflowClient()
run = client.create_run("0").info
client.log_artifacts(run.run_id, folder, "model")
version = client.create_model_version("flag", f"runs:/{run.run_id}/model", run.run_id).version
client.set_registered_model_alias("flag", alias, version)
print(version, __version__)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_of_mlflow_2_is_followed(
    start: Any, registry: Any, flag_model: bytes, opposite_model: bytes, until: Any, tmp_path: Path
) -> None:
    python = (
        packages.programs(
            f"mlflow-{MLFLOW_2}", f"mlflow-skinny=={MLFLOW_2}", *NEEDED_BY_2, alone=(f"mlflow=={MLFLOW_2}",)
        )
        / "python"
    )
    config = settings_file(tmp_path, "")
    with mlflow_server(tmp_path, python=python) as uri:
        there = type(registry)(uri, tmp_path)
        first = there.publish("flag", flag_model, alias="champion")
        server = start("--registry", uri, "--config", config).wait_ready()
        assert roles(server, "flag") == {"champion": first}
        folder = tmp_path / "by-hand"
        folder.mkdir()
        (folder / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}")
        (folder / "model.onnx").write_bytes(opposite_model)
        command = [python, "-c", WITH_CLIENT_OF_2, uri, folder, "champion"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        second, client = done.stdout.split()[-2:]
        assert client == MLFLOW_2
        until(lambda: answering(server.grpc, "flag") == second, "what its own client published is served")
        (folder / "model.onnx").write_bytes(opposite_model[:-20])
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        broken = done.stdout.split()[-2]
        until(lambda: tags(uri, broken).get("penstock.refused"), "why it is refused is written there")
        assert answering(server.grpc, "flag") == second


def tags(uri: str, version: str) -> dict[str, str]:
    from mlflow import MlflowClient

    return dict(MlflowClient(uri, uri).get_model_version("flag", version).tags)
