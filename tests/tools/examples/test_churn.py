"""The example of a whole repository, copied out and worked with as its README and its workflow say."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from penstock_tools.server_process import PENSTOCK, ServerProcess
from tests.integration.conftest import _until
from tests.tools.examples import dvc
from tests.tools.examples.workflow import Workflow

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "tools" / "examples" / "churn"
WORKFLOW = EXAMPLE / ".github" / "workflows" / "mlops-pipeline.yml"
KEPT = ("mlflow.db", "mlruns", "artifacts", ".venv", "log", "labels", ".remote", "cache", "*.csv", "*.parquet")
"""What working with the example leaves in it."""
SETTINGS = (
    "--set image.repository=ghcr.io/company/churn",
    "--set image.tag=abc123",
    "--set registry={registry}",
    "--set-file config=production.toml",
)


def test_actionlint_finds_nothing_in_the_workflow():
    done = subprocess.run(
        [Path(sys.executable).with_name("actionlint"), "-no-color", WORKFLOW],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_commands_to_a_watched_model_are_five_at_most():
    commands = readme_commands()
    assert commands[0][:2] == ["git", "clone"]
    assert len(commands) <= 5


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("file", ["penstock.toml", "production.toml"])
def test_the_settings_are_those_of_a_server(file):
    done = subprocess.run([*PENSTOCK, "config", "check", EXAMPLE / file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def readme_commands():
    """What the README says is typed, from the clone on."""
    text = (EXAMPLE / "README.md").read_text()
    (block,) = re.findall(r"^```sh\n(git clone .*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


class Project:
    """A copy of the example in a repository of its own, whose origin is beside it."""

    def __init__(self, place, empty_registry):
        self.folder = place / "churn"
        shutil.copytree(EXAMPLE, self.folder, ignore=shutil.ignore_patterns(*KEPT))
        shutil.copy(empty_registry, self.folder / "mlflow.db")
        self.registry = f"sqlite:///{self.folder}/mlflow.db"
        self.called = place / "called"
        programs = place / "programs"
        programs.mkdir()
        for name in ("docker", "helm"):
            (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {self.called}\n')
            (programs / name).chmod(0o755)
        self.path = os.pathsep.join(map(str, (programs, Path(sys.executable).parent, dvc.folder())))
        self.environment = {
            **os.environ,
            "BIN": self.path,
            "PATH": self.path + os.pathsep + os.environ["PATH"],
            "PENSTOCK_DATA_DIR": str(place / "data"),
            "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b",
        }  # fmt: skip
        self.environment.pop("MLFLOW_TRACKING_URI", None)
        (place / "data").mkdir()
        subprocess.run(["git", "init", "--quiet", "--bare", str(place / "origin")], check=True)
        for command in (
            "init -b main",
            "add .",
            "commit -m First",
            f"remote add origin {place / 'origin'}",
            "push -u origin main",
        ):
            self.run("git", *command.split())

    def run(self, *command, code=0):
        environment = self.environment | {"MLFLOW_TRACKING_URI": self.registry}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == code, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def json(self, name):
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory, empty_registry):
    return Project(tmp_path_factory.mktemp("example"), empty_registry)


@pytest.fixture(scope="module")
def workflow(project):
    """The workflow, run once: a push to main."""
    context = {
        "github.event_name": "push",
        "github.ref": "refs/heads/main",
        "github.repository": "company/churn",
        "github.actor": "somebody",
        "vars.PENSTOCK_CHART": "chart",
        "vars.MLFLOW_TRACKING_URI": project.registry,
        "vars.DVC_REMOTE": str(project.folder.parent / "store"),
    }
    runner = {"GITHUB_SHA": "abc123", "GITHUB_ACTOR": "somebody"}
    # The environment is there: what `make setup` installs is looked at below.
    (project.folder / "Makefile").write_text(
        (project.folder / "Makefile")
        .read_text()
        .replace("\tpython3 -m venv .venv\n", "")
        .replace("\t$(BIN)/python -m pip", "\t: pip")
    )
    found = Workflow(WORKFLOW, project.folder, context, project.environment | runner)
    return found, found.run()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
class TestTheWholeRepository:
    """In their order: each goes on with what the one before left."""

    def test_what_make_setup_installs_can_be_had(self, project):
        uv = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--quiet", "--python", sys.executable]
        subprocess.run([*uv, "-r", str(EXAMPLE / "requirements.txt")], check=True, cwd=EXAMPLE)

    def test_the_workflow_goes_from_data_to_a_deployed_version(self, workflow, project):
        found, steps = workflow
        assert steps == [
            "model/Set up", "model/Use the shared store of data", "model/Test", "model/Data", "model/Train", "model/Evaluate",
            "model/Compare with what is in git", "model/Register", "model/Keep",
            "image/Image", "deploy/Set up", "deploy/Servers", "deploy/Canary",
        ]  # fmt: skip
        assert "metrics.json" in found.summary
        assert project.json("models/version.json") == {"name": "churn", "version": "1"}
        assert project.json("metrics.json")["auc"] > 0.8
        assert project.called.read_text().splitlines() == [
            "docker build --build-arg BASE=penstock -t ghcr.io/company/churn:abc123 .",
            "docker push ghcr.io/company/churn:abc123",
            f"helm upgrade --install churn chart --wait {' '.join(SETTINGS).format(registry=project.registry)}",
        ]

    def test_what_was_trained_is_kept_in_git_and_in_the_store(self, workflow, project):
        assert "Train on the customers of today" in project.run("git", "log", "--oneline", "origin/main")
        committed = project.run("git", "ls-tree", "-r", "--name-only", "origin/main").split()
        assert {"dvc.lock", "data/customers.csv.dvc", "metrics.json"} <= set(committed)
        assert not {"data/customers.csv", "models/pipeline.skops"} & set(committed)
        (project.folder / "models" / "pipeline.skops").unlink()
        shutil.rmtree(project.folder / ".dvc" / "cache")
        project.run("dvc", "pull", "--quiet")
        assert (project.folder / "models" / "pipeline.skops").exists()

    def test_mlflow_has_the_run_with_all_that_belongs_to_it(self, workflow, project, client_of):
        client = client_of(project.folder / "mlflow.db")
        run = client.get_run(project.json("models/run.json")["run_id"])
        assert run.data.params["model"] == "boosted_trees"
        assert run.data.metrics["test_auc"] == pytest.approx(project.json("metrics.json")["auc"], abs=1e-4)
        assert {(one.dataset.name, one.tags[0].value) for one in run.inputs.dataset_inputs} == {
            ("customers", "training"), ("customers", "test"),
        }  # fmt: skip
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["roc.png"]
        assert len(run.outputs.model_outputs) == 1
        assert client.get_registered_model("churn").aliases == {"champion": 1}

    def test_a_model_that_is_not_good_enough_ends_the_evaluation(self, workflow, project):
        said = project.run("python", "src/evaluate.py", "--threshold", "0.99", code=1)
        assert re.search(r"the AUC on 2,000 held-out rows is 0\.8\d\d, expected at least 0\.99", said)

    def test_an_experiment_is_compared_with_what_is_in_git(self, workflow, project):
        params = project.folder / "params.yaml"
        before = params.read_text()
        params.write_text(before.replace("model: boosted_trees ", "model: logistic_regression "))
        try:
            project.run("make", "repro", "STAGE=evaluate")
            shown = project.run("make", "--silent", "compare")
        finally:
            # An experiment that nobody wants is undone: DVC has put its lock into the index already.
            project.run("git", "checkout", "--quiet", "HEAD", "--", "params.yaml", "dvc.lock", "metrics.json", "plots")
            project.run("dvc", "checkout", "--quiet")
        assert re.search(r"\| metrics\.json +\| auc +\| 0\.8\d+ +\| 0\.8\d+ +\|", shown)
        assert re.search(r"\| params\.yaml +\| train\.model +\| boosted_trees +\| logistic_regression +\|", shown)

    def test_the_readmes_commands_end_in_a_model_that_was_trained_anew(self, workflow, project):
        """Served, watched, and trained anew by the server when the prices have risen."""
        _clone, setup, pipeline, serve, traffic = readme_commands()
        assert (setup[-2:], serve) == (["make", "setup"], ["make", "serve"])
        # Nothing has changed since the workflow, so that the version is the one that it registered.
        project.run(*pipeline)
        assert project.json("models/version.json")["version"] == "1"
        with ServerProcess(
            [*serve, "OPTIONS=--port 0 --http-port 0"],
            cwd=project.folder,
            env=project.environment,
            log=project.called.with_name("log"),
        ) as server:
            server.wait_ready()
            said = project.run(*traffic, f"SERVER={server.grpc}")
            assert "month 7: version 1: 2,000 rows" in said

            def asked(path):
                with urllib.request.urlopen(f"http://{server.http}{path}", timeout=30) as reply:
                    return json.load(reply)

            def ended():
                calls = asked("/v1/retraining")["models"][0]["calls"]
                return calls[0] if calls and calls[0]["ended_s"] is not None else None

            call = _until(ended, "the training that the server called for", 700)
            assert "has drifted for" in call["reason"]
            assert call["outcome"] == "done", call
            # As a shadow first, as its rollout says.
            (new,) = _until(
                lambda: {row["version"] for row in asked("/v1/models")["models"]} - {"1"},
                "the new version is served",
                120,
            )
        assert project.json("models/version.json")["version"] == new == "2"
        assert len((project.folder / "data" / "customers.csv").read_text().splitlines()) == 1 + 7 * 2000


@pytest.fixture
def client_of():
    from mlflow import MlflowClient

    return lambda path: MlflowClient(f"sqlite:///{path}")
