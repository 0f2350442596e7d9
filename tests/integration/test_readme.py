"""The how-tos, followed word by word: their commands and Python, in their order, in an empty folder against a real server.

The README shows the first of them, and is followed with them.

Only what is not the reader's is changed: free ports, which the environment and the server's options name. Each command of
`penstock` runs as a process the first time, which proves that it imports what it needs, and in this process later.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_tools.server_process import PENSTOCK
from tests.integration.conftest import Server, _until

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "tools" / "docs" / f"{name}.md" for name in ("publish", "serve", "devices", "predict", "route", "watch")
]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = ("make", "pip")
"""What sets an environment up: `make demo` and the installation have tests of their own."""
NOT_HERE = "fitted_pipeline"
"""The name of a pipeline that only the reader has."""


def blocks(page):
    """A page's commands, each line one, and its Python, in its order."""
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            if NOT_HERE not in text:
                yield kind, text
        else:
            for line in text.splitlines():
                command = shlex.split(line, comments=True)
                if command and command[0] not in ELSEWHERE:
                    yield kind, command


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def reader(tmp_path, environment, empty_registry, penstock, monkeypatch):
    """Runs what a reader types, and gives what it prints."""
    (tmp_path / "data").mkdir()
    # Its tables are there already: making them takes longer than all the rest.
    shutil.copy(empty_registry, tmp_path / "data" / "registry.db")
    own = {
        **os.environ,
        **environment,
        "PENSTOCK_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "COLUMNS": "100",
    }
    own.pop("MLFLOW_TRACKING_URI", None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ports = {"PENSTOCK_SERVER": free_port(), "PENSTOCK_HTTP": free_port()}
    own["PENSTOCK_SERVER"] = f"127.0.0.1:{ports['PENSTOCK_SERVER']}"
    own["PENSTOCK_HTTP"] = f"http://127.0.0.1:{ports['PENSTOCK_HTTP']}"
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    servers, typed_before = [], set()

    def ran(command):
        if command[:2] == ["penstock", "serve"]:
            options = ["--port", str(ports["PENSTOCK_SERVER"]), "--http-port", str(ports["PENSTOCK_HTTP"])]
            servers.append(Server([*options, *command[2:]], own, tmp_path / "server.log").wait_ready())
            _until(lambda: {row["state"] for row in servers[-1].models()} == {"READY"}, "every model is served")
            return ""
        if command[0] == "penstock":
            if command[1] in typed_before:
                code, out, error = penstock(*command[1:])
                assert code == 0, (command, out, error)
                return out
            typed_before.add(command[1])
        whole = [sys.executable, str(ROOT / command[1])] if command[0] == "python" else [*PENSTOCK, *command[1:]]
        done = subprocess.run(whole, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def typed(text):
        text = text.replace("127.0.0.1:8001", own["PENSTOCK_SERVER"])
        done = subprocess.run(
            [sys.executable, "-c", text], env=own, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (text, done.stderr)
        return done.stdout

    yield lambda kind, what: typed(what) if kind == "python" else ran(what)
    for server in servers:
        server.kill()


@pytest.mark.slow
@pytest.mark.long  # it trains, publishes and serves what readers would, in a dozen processes
@pytest.mark.timeout(900)
def test_the_pages_can_be_followed_word_by_word(reader):
    shown = list(blocks(ROOT / "README.md"))
    told = [block for page in PAGES for block in blocks(page)]
    of_pages = iter(told)
    assert all(block in of_pages for block in shown if block[0] == "console")  # the same commands in the same order
    answers = [(what, reader(kind, what)) for kind, what in told + [block for block in shown if block[0] == "python"]]

    def answer(*words):
        found = [out for what, out in answers if all(word in what for word in words)]
        assert found, words
        return found[0]

    assert answer("publish", "fraud.skops").endswith("fraud version 1 is registered and is now champion\n")
    assert "steps" in answer("features", "--yaml") or "columns" in answer("features", "--yaml")
    models = [
        line.split()[:5] for line in answer("models").splitlines()
    ]  # the last column, the engine, is the faster one
    assert ["amount", "1", "champion", "champion", "READY"] in models
    assert ["fraud", "1", "champion", "champion", "READY"] in models
    assert re.search(r"fraud version 1 \(champion\), 3 rows in", answer("predict", "new.csv"))
    assert "champion Timing(" in answer("with Client(")
    assert "is now canary with 5% of the traffic" in answer("publish", "better.skops")
    shadow, champion = [out for what, out in answers if what[:4] == ["penstock", "promote", "fraud", "2"]]
    assert "fraud version 2 is now shadow\n" in shadow
    assert "the server serves version 2 as shadow, after" in shadow
    assert "it is no longer canary and shadow\n" in champion
    assert "the server serves version 2 as champion, after" in champion
    assert "the server serves version 1 as champion, after" in answer("promote", "1", "--wait")
    assert "amount version 1 is no longer champion" in answer("promote", "--remove")
    assert "fraud version 1 (champion)" in answer("drift")


def test_no_page_names_an_option_that_is_not_there():
    import typer

    from penstock_tools.cli.app import app

    commands = typer.main.get_command(app).commands
    text = "".join(page.read_text() for page in (ROOT / "README.md", *PAGES))
    for line in re.findall(r"penstock [a-z]+ [^`\n]*", text):
        words = line.partition("#")[0].split()
        command = commands.get(words[1])
        if command is not None and not hasattr(command, "commands"):
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line
