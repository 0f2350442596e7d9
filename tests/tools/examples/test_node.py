"""The example for Node, installed and run as its first lines say, against a server of this process."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from penstock_client.testing import FakeServer

ROOT = Path(__file__).parents[3]
PROTO = ROOT / "protos" / "penstock" / "inference.proto"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node and npm are not installed"),
]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(ROOT / "tools" / "examples" / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "install", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode and ("ENOTFOUND" in done.stderr or "ETIMEDOUT" in done.stderr or "EAI_AGAIN" in done.stderr):
        pytest.skip("npm's registry cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder


def predicted(example: Path, server: FakeServer, model: str, rows: object) -> subprocess.CompletedProcess[str]:
    command = ["node", "predict.js", server.address, model, json.dumps(rows), str(PROTO)]
    return subprocess.run(command, cwd=example, capture_output=True, text=True, timeout=60, check=False)


def test_columns_of_every_kind_go_there_and_back(example: Path) -> None:
    inputs = {"a": "INT64", "b": "FP32", "c": ("BYTES", (-1, 1)), "d": "BOOL", "e": "FP64", "f": "INT32"}
    rows = {"a": [2**40, -7], "b": [0.5, 2], "c": ["Åre", ""], "d": [True, False], "e": [1e300, 0], "f": [-1, 2]}
    with FakeServer() as server:
        server.add("echo", dict, inputs=inputs, version="3")
        done = predicted(example, server, "echo", rows)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"version": "3", "outputs": rows}


def test_an_error_is_told_with_its_status(example: Path) -> None:
    with FakeServer() as server:
        done = predicted(example, server, "none", {"a": [1]})
    assert done.returncode == 1
    assert done.stderr == "NOT_FOUND: no model 'none' is served\n"
