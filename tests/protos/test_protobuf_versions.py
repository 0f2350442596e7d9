"""The light client beside tritonclient, on every protobuf that is supported, in environments of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long]  # they make two environments

CHECKOUT = Path(__file__).parents[2]
SCRIPT = """
import google.protobuf
import {first}
import {second}
from penstock import inference_pb2 as ours
from tritonclient.grpc import service_pb2 as theirs
assert google.protobuf.__version__.split(".")[0] == "{major}", google.protobuf.__version__
request = ours.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"abc"])
request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
request.parameters["priority"].uint64_param = 3
read = theirs.ModelInferRequest.FromString(request.SerializeToString())
assert ours.ModelInferRequest.FromString(read.SerializeToString()) == request
print("same bytes")
"""


@pytest.fixture(scope="module", params=["6", "7"])
def interpreter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A Python with this protobuf; tritonclient asks for less than 7, and works with it."""
    major: str = request.param
    folder = tmp_path_factory.mktemp(f"protobuf-{major}")
    python = folder / "venv" / "bin" / "python"
    overrides = folder / "overrides.txt"
    overrides.write_text(f"protobuf=={major}.*\n")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder / "venv")], check=True)
    install = [*uv, "pip", "install", "--python", str(python), "--override", str(overrides)]
    subprocess.run([*install, str(CHECKOUT), "tritonclient[grpc]"], check=True)
    return major, python


@pytest.mark.parametrize("order", [("penstock_client", "tritonclient.grpc"), ("tritonclient.grpc", "penstock_client")])
def test_both_clients_in_one_process(interpreter: tuple[str, Path], order: tuple[str, str]) -> None:
    major, python = interpreter
    script = SCRIPT.format(first=order[0], second=order[1], major=major)
    found = subprocess.run([str(python), "-c", script], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "same bytes\n"), found.stderr


def test_the_light_client_is_light(interpreter: tuple[str, Path]) -> None:
    _, python = interpreter
    script = "import sys, penstock_client; print([m for m in ('pandas', 'onnxruntime', 'numba', 'mlflow') if m in sys.modules])"
    found = subprocess.run([str(python), "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
