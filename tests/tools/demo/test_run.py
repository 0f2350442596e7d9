import re
import shutil
import subprocess
import sys

import pytest

from penstock_tools.demo.plan import MODEL

DEMO = [sys.executable, "-m", "penstock_tools.cli.main", "demo"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_demo(tmp_path, empty_registry):
    # Its tables are there already: making them takes as long as the stream.
    shutil.copy(empty_registry, tmp_path / "registry.db")
    done = subprocess.run(
        [*DEMO, "--rows", "15000", "--seconds", "6", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Both were trained on the real flights, and passed the gate.
    first, second = map(float, re.findall(r"AUC ([\d.]+) on April to June", done.stdout))
    assert 0.65 < first < second < 0.8
    assert re.search(r"failures +│ 0 ", done.stdout)
    assert re.search(r"│ [\d.]+% before the promotion, (100\.0|99\.\d)% after", done.stdout)
    assert "flights version 2 is now champion, in place of version 1" in done.stdout
    assert "temp: first over 0.2 in" in done.stdout
    assert "the same class in" in done.stdout
    assert 'data_drift_score{feature_name="temp"' in done.stdout
    assert "the server stopped with exit code 0" in done.stdout
    assert f"penstock serve --registry sqlite:///{tmp_path}/registry.db" in done.stdout
    assert not done.stderr
    assert not (tmp_path / "mlruns").exists()
    assert (tmp_path / "rows.json").read_text().count(MODEL) == 0
