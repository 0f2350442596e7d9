"""The command line of the client alone: in this process for its options, in one of its own without the other libraries."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from penstock_tools.cli import client_only
from penstock_tools.cli.app import app

BASE = {"grpcio", "numpy", "protobuf"}
WITHOUT = """
import builtins, importlib.abc, sys
allowed = {allowed!r}
class OnlyTheClient(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.partition('.')[0]
        if root in allowed or root in sys.stdlib_module_names:
            return None
        raise ModuleNotFoundError(f'No module named {{root!r}}', name=root)
sys.meta_path.insert(0, OnlyTheClient())
from penstock_tools.cli.main import main
main(sys.argv[1:])
"""


def alone(*arguments):
    """Runs `penstock` in a process that can import nothing but what `pip install penstock` brings."""
    allowed = {"penstock", "penstock_client", "penstock_server", "penstock_tools", "grpc", "google", "numpy"}
    allowed |= {"typing_extensions"}
    code = WITHOUT.format(allowed=allowed)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def typer_options():
    predict = typer.main.get_command(app).commands["predict"]
    found = {name for parameter in predict.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in found if name.startswith("--") and name != "--help"}


def test_predict_has_the_same_options_with_and_without_typer():
    (commands,) = [action for action in client_only.parser()._actions if action.dest == "command"]
    predict = commands.choices["predict"]
    options = {name for action in predict._actions for name in action.option_strings if name.startswith("--")}
    assert options - {"--help"} == typer_options()
    variables = {p.envvar for p in typer.main.get_command(app).commands["predict"].params if p.envvar}
    assert variables == set(
        re.findall(r"\[(PENSTOCK_\w+)\]", " ".join(action.help or "" for action in predict._actions))
    )


def test_every_other_command_says_what_to_install():
    names = set(typer.main.get_command(app).commands) - {"predict"}
    assert names <= set(client_only.OTHERS)


def test_the_client_needs_no_other_library():
    requires = importlib.metadata.requires("penstock") or []
    assert {re.split(r"[<>=!~ \[;]", one)[0] for one in requires if "extra ==" not in one} == BASE


def test_help_and_version():
    shown = alone("--help")
    assert shown.returncode == 0
    assert "predict" in shown.stdout
    assert "penstock[server]" in shown.stdout
    assert alone("--version").stdout == f"penstock {importlib.metadata.version('penstock')}\n"
    assert "--cert-key" in alone("predict", "--help").stdout


@pytest.mark.parametrize(
    "command", [["serve", "--port", "0"], ["models"], ["publish", "a", "b.onnx"], ["--debug", "demo"]]
)
def test_a_command_that_is_not_there(command):
    done = alone(*command)
    assert done.returncode == 1
    assert re.fullmatch(r"penstock: \w+ needs more than the client; run: pip install 'penstock\[\w+\]'\n", done.stderr)


@pytest.mark.parametrize("command", [[], ["fly"], ["predict", "m"], ["predict", "m", "r.csv", "--extra", "drop"]])
def test_a_wrong_command_line(command):
    done = alone(*command)
    assert done.returncode == 2
    assert "usage: penstock" in done.stderr


def test_predict_ends_in_a_sentence(tmp_path: Path):
    done = alone("predict", "fraud", tmp_path / "rows.csv", "--server", "127.0.0.1:9", "--timeout", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("penstock: no server answers at 127.0.0.1:9; ")
    assert done.stderr.count("\n") == 1
