import re
import subprocess
import sys

import pytest

from penstock_tools.demo.plan import MODEL

DEMO = [sys.executable, "-m", "penstock_tools.cli.main", "demo"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_demo(tmp_path):
    done = subprocess.run(
        [*DEMO, "--rows", "15000", "--seconds", "6", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"failures +│ 0 ", done.stdout)
    assert re.search(r"│ [\d.]+% before the promotion, 100\.0% after", done.stdout)
    assert "flights version 2 is now champion, in place of version 1" in done.stdout
    assert "temp: first over 0.2 in" in done.stdout
    assert "the same class in" in done.stdout
    assert 'data_drift_score{feature_name="temp"' in done.stdout
    assert "the server stopped with exit code 0" in done.stdout
    assert f"penstock serve --registry sqlite:///{tmp_path}/registry.db" in done.stdout
    assert not done.stderr
    assert not (tmp_path / "mlruns").exists()
    assert (tmp_path / "rows.json").read_text().count(MODEL) == 0


@pytest.mark.parametrize(("option", "value"), [("--rows", "5"), ("--workers", "0"), ("--port", "70000")])
def test_a_wrong_option_is_a_sentence(option, value):
    done = subprocess.run([*DEMO, option, value], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"penstock: {option} is {value}; expected")


def test_the_help_names_the_options():
    done = subprocess.run([*DEMO, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    for option in ("--rows", "--seconds", "--workers", "--port", "--keep", "--folder"):
        assert option in done.stdout
