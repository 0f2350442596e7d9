import os
import subprocess
import sys

import pytest

FAILING = {
    "no such file": (["publish", "fraud", "/nowhere.onnx"], "there is no file /nowhere.onnx"),
    "no such model": (["promote", "fraud", "1"], "there is no model 'fraud'"),
    "no such role": (["promote", "fraud", "1", "--alias", "king"], "there is no role 'king'"),
    "no address": (
        ["models", "--http", "nonsense"],
        "--http is 'nonsense'; expected an address such as http://127.0.0.1:8002",
    ),
    "nobody listens": (["models", "--http", "http://127.0.0.1:9"], "no server answers at http://127.0.0.1:9"),
    "no server to ask": (
        ["predict", "fraud", "rows.csv", "--server", "127.0.0.1:9", "--timeout", "0.5"],
        "127.0.0.1:9",
    ),
    "no such settings": (["serve", "--config", "/nowhere.toml"], "/nowhere.toml"),
}


@pytest.mark.parametrize(("arguments", "message"), FAILING.values(), ids=FAILING)
def test_a_users_mistake_is_one_sentence_and_exit_code_1(registry, capsys, arguments, message, run):
    assert run(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("penstock: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["promote"], ["promote", "fraud", "1", "--weight", "much"], ["serve", "--transport", "pigeon"]],
)
def test_a_wrong_command_line_is_exit_code_2(capsys, arguments, run):
    assert run(*arguments) == 2
    assert "Usage: penstock" in capsys.readouterr().err


def test_debug_shows_the_traceback(registry, capsys, run):
    assert run("--debug", "promote", "fraud", "1") == 1
    assert "Traceback" in capsys.readouterr().err
    assert os.environ["PENSTOCK_DEBUG"] == "1"


def test_a_missing_extra_is_named(monkeypatch, capsys, run):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert run("demo", "train") == 1
    assert capsys.readouterr().err.endswith(
        "needs pandas, which is not installed; run: pip install 'penstock[tools]'\n"
    )


def test_the_console_script_answers_without_heavy_imports():
    heavy = "{'mlflow', 'sklearn', 'pandas', 'onnx', 'onnxruntime', 'numpy', 'grpc', 'numba'}"
    code = (
        "import runpy, sys, atexit\n"
        f"atexit.register(lambda: print('loaded:', sorted({heavy} & set(sys.modules))))\n"
        "sys.argv = ['penstock', '--version']\n"
        "runpy.run_module('penstock_tools.cli.main', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["penstock 0.1.0", "loaded: []"]
