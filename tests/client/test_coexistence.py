import subprocess
import sys

import pytest

PROGRAM = """
import {first}, {second}
from penstock_client import Client
from tritonclient.grpc import InferenceServerClient
with Client("{address}") as ours:
    print(ours.predict("fares", {{"age": 41, "city": "Oslo"}})["fare"].tolist())
theirs = InferenceServerClient("{address}")
print(theirs.is_server_live())
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("first", "second"), [("tritonclient.grpc", "penstock_client"), ("penstock_client", "tritonclient.grpc")]
)
def test_both_clients_live_in_one_process(server, first, second):
    program = PROGRAM.format(first=first, second=second, address=server.address)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[82.0]\nTrue\n"), done.stderr


def test_the_client_imports_no_frames_and_no_server():
    program = "import sys, penstock_client; print([n for n in {heavy} if n in sys.modules])"
    heavy = ("pandas", "polars", "pyarrow", "penstock_server", "mlflow", "onnxruntime", "msgspec", "numba")
    command = [sys.executable, "-c", program.format(heavy=heavy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
