import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from penstock_tools.cli.app import app
from penstock_tools.cli.main import main

COMMANDS = ("serve", "models", "predict", "demo", "publish", "features", "promote")
OPTIONS = {
    "serve": (
        *("--registry", "--model", "--model-repository", "--host", "--port", "--http-port", "--workers"),
        *("--transport", "--config"),
    ),
    "models": ("--http", "--json"),
    "predict": ("NAME", "ROWS", "--server", "--version", "--key", "--timeout", "--json"),
    "demo": ("--rows", "--seconds", "--workers", "--port", "--keep", "--folder", "train"),
    "publish": (
        *("NAME", "FILE", "--sample", "--labels", "--features", "--alias", "--weight", "--registry", "--precision"),
        "--trust",
    ),
    "features": ("FILE", "--sample", "--precision", "--yaml", "--trust"),
    "promote": ("NAME", "VERSION", "--alias", "--weight", "--registry"),
}


def ran(*arguments):
    """The exit code of a command line run in this process."""
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    return exited.value.code or 0


@pytest.fixture(autouse=True)
def no_debug(monkeypatch):
    # --debug sets it for the process; monkeypatch puts back what was there.
    monkeypatch.setenv("PENSTOCK_DEBUG", "0")


def help_of(*arguments):
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    return result.output


def test_the_help_lists_every_command():
    text = help_of()
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_lists_its_options(command):
    text = help_of(command)
    assert [option for option in OPTIONS[command] if option not in text] == []


def test_a_release_from_the_command_line(registry, client, onnx_file, capsys):
    assert ran("publish", "fraud", str(onnx_file)) == 0
    assert ran("promote", "fraud", "1") == 0
    assert ran("publish", "fraud", str(onnx_file), "--alias", "canary", "--weight", "5", "--registry", registry) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fraud version 1 is registered; it is served once you run: penstock promote fraud 1",
        "fraud version 1 is now champion",
        "fraud version 2 is registered and is now canary with 5% of the traffic",
    ]
    assert client.get_registered_model("fraud").aliases == {"champion": 1, "canary": 2}


FAILING = {
    "no such file": (["publish", "fraud", "/nowhere.onnx"], "there is no file /nowhere.onnx"),
    "no such model": (["promote", "fraud", "1"], "there is no model 'fraud'"),
    "no such role": (["promote", "fraud", "1", "--alias", "king"], "there is no role 'king'"),
    "nobody listens": (["models", "--http", "http://127.0.0.1:9"], "no server answers at http://127.0.0.1:9"),
    "no server to ask": (
        ["predict", "fraud", "rows.csv", "--server", "127.0.0.1:9", "--timeout", "0.5"],
        "127.0.0.1:9",
    ),
    "no such settings": (["serve", "--config", "/nowhere.toml"], "/nowhere.toml"),
}


@pytest.mark.parametrize(("arguments", "message"), FAILING.values(), ids=FAILING)
def test_a_users_mistake_is_one_sentence_and_exit_code_1(registry, capsys, arguments, message):
    assert ran(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("penstock: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["promote"], ["promote", "fraud", "1", "--weight", "much"], ["serve", "--transport", "pigeon"]],
)
def test_a_wrong_command_line_is_exit_code_2(capsys, arguments):
    assert ran(*arguments) == 2
    assert "Usage: penstock" in capsys.readouterr().err


def test_debug_shows_the_traceback(registry, capsys):
    assert ran("--debug", "promote", "fraud", "1") == 1
    assert "Traceback" in capsys.readouterr().err
    assert os.environ["PENSTOCK_DEBUG"] == "1"


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert ran("demo", "train") == 1
    assert capsys.readouterr().err.endswith(
        "needs pandas, which is not installed; run: pip install 'penstock[tools]'\n"
    )


def test_serve_hands_its_options_on(monkeypatch):
    given = {}
    monkeypatch.setattr("penstock_server.cli.run", lambda **options: given.update(options))
    assert ran("serve", "--model", "a", "--model", "b", "--port", "0", "--transport", "aio") == 0
    assert given.pop("models") == ("a", "b")
    assert {name: value for name, value in given.items() if value is not None} == {"port": 0, "transport": "aio"}


def test_the_console_script_answers_without_heavy_imports():
    heavy = "{'mlflow', 'sklearn', 'pandas', 'onnx', 'onnxruntime', 'numpy', 'grpc', 'numba'}"
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('loaded:', sorted({heavy} & set(sys.modules))))\n"
        "from penstock_tools.cli.main import main\n"
        "main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["penstock 0.1.0", "loaded: []"]


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "penstock_tools.cli.main", "models", "--http", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "penstock: --http is 'nonsense'; expected an address such as http://127.0.0.1:8002\n"


def test_a_server_that_is_not_there_is_one_sentence(tmp_path, capsys):
    rows = tmp_path / "rows.json"
    rows.write_text('[{"x": 1}]')
    assert ran("predict", "fraud", str(rows), "--server", "127.0.0.1:9") == 1
    assert "no server answers at 127.0.0.1:9; start one with `penstock serve`" in capsys.readouterr().err
