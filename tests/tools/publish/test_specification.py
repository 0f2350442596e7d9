import subprocess
import sys
from pathlib import Path

from penstock_server.features.spec import spec
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take

SPEC = FeatureSpec((NumberColumn("age"),), Take(("age",), ()), "FP32")

SHOW = """
import sys
for absent in ("scipy", "sklearn", "pandas", "onnx", "mlflow", "numba", "llvmlite"):
    sys.modules[absent] = None
from penstock_tools.cli.main import main
main(["features", sys.argv[1]])
"""


def test_a_specification_is_shown_with_nothing_but_the_server(tmp_path: Path) -> None:
    for name, data in (("spec.yaml", spec.encode_yaml(SPEC)), ("spec.json", spec.encode(SPEC))):
        (tmp_path / name).write_bytes(data)
        command = [sys.executable, "-c", SHOW, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "1 columns in" in done.stdout
