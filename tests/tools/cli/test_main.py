import json
import os
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from penstock_client import ModelMetadata, TensorSpec

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


def test_an_interrupt_is_exit_code_130(monkeypatch, capsys, run):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock_tools.client_commands.models.fetch", interrupted)
    assert run("models") == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("command", [["models", "--json"], ["models"], ["predict", "--help"]])
def test_a_reader_that_has_gone_is_no_error_to_read_about(serving, command):
    serving.body = json.dumps({"models": [], "sources": []}).encode()
    where = ["--http", serving.url] if command[0] == "models" else []
    code = f"from penstock_tools.cli.main import main; main({[*command, *where]!r})"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


BAD_FILES = {
    "missing": (None, "cannot be read: No such file or directory"),
    "a directory": ("directory", "cannot be read: Is a directory"),
    "binary": (b"\x89PNG\x00\x01\xff", "is not UTF-8, at byte 0"),
    "empty": (b"", "has 0 rows below its header"),
    "torn": (b"x,y\n1\n", "line 2 has 1 fields; the header has 2"),
    "an open quote": (b'x\n"1\n', "is not CSV"),
    "semicolons": (b"x;y\n1;2\n", "separates its fields by semicolons"),
    "a name twice": (b"x,x\n1,2\n", "has column 'x' twice"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_wrong_is_one_sentence(monkeypatch, tmp_path, capsys, run, content, sentence):
    @contextmanager
    def connected(*_args, **_options):
        yield SimpleNamespace(metadata=lambda *_: ModelMetadata("m", ("1",), "", (TensorSpec("x", "FP32", (-1,)),), ()))

    monkeypatch.setattr("penstock_tools.client_commands.predict.connected", connected)
    file = tmp_path / "rows.csv"
    if content == "directory":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    assert run("predict", "m", file) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"penstock: {file}")
    assert sentence in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
