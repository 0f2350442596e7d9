"""How a server starts: HTTP first, models before kernels, and one sentence for what cannot work."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.models import artifact
from penstock_tools.server_process import PENSTOCK, ServerProcess

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: Path, flag_model: bytes, put_version: Callable[..., Path]) -> Path:
    """A model that needs the kernels, and one that does not."""
    folder = tmp_path / "models"
    put_version(folder, "plain", "1", flag_model)
    artifact.write(
        put_version(folder, "featured", "1", flag_model),
        features=FeatureSpec((NumberColumn("a"), NumberColumn("b")), Take(("a", "b"), ()), "FP32"),
    )
    return folder


@pytest.fixture
def without_kernels(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A machine that has never run Penstock, with a checkout of it: no kernels in its cache, and none shipped."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "import penstock_server.kernels.compiled as compiled\n"
        f"compiled.SHIPPED = Path({str(tmp_path / 'none')!r})\n"
    )
    paths = [str(folder), environment.get("PYTHONPATH", "")]
    return environment | {
        "PENSTOCK_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def compilers(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if f"--parent={pid}" in command:
            found.append(int(process.name))
    return found


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),  # the compiler goes on until the server has stopped
        signal.SIGKILL,
    ],
)
def test_other_models_are_served_while_kernels_compile_and_the_compiler_ends_with_the_server(
    repository: Path, without_kernels: dict[str, str], logs: Path, until: Callable[..., Any], how: signal.Signals
) -> None:
    command = [*PENSTOCK, "serve", "--port", "0", "--http-port", "0", "--model-repository", str(repository)]
    with ServerProcess(command, env=without_kernels, log=logs / f"{how.name}.log") as server:
        server.wait_ready()
        with urllib.request.urlopen(f"http://{server.http}/v1/models", timeout=10) as reply:
            states = {row["name"]: (row["state"], row["reason"]) for row in json.load(reply)["models"]}
        assert states["plain"] == ("READY", "")
        assert states["featured"][0] == "LOADING"
        assert states["featured"][1].startswith("the feature kernels are being compiled")
        until(lambda: compilers(server.pid), "the compiler's start")
        os.kill(server.pid, how)
        until(lambda: not compilers(server.pid), "the compiler's end")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model-repository", "/no/such/folder"], "the model repository /no/such/folder cannot be read"),
        (["--model-repository", ".", "--port", "8123", "--http-port", "8123"], "port and http_port are both 8123"),
        (["--model-repository", ".", "--config", "typo.toml"], "did you mean workers?"),
        (["--model-repository", ".", "--config", "log.toml"], "request_log.directory is typo.toml/log"),
        (["--model-repository", ".", "--config", "tls.toml"], "cannot read the TLS file none.pem"),
    ],
)
def test_what_cannot_work_ends_at_once_with_one_sentence(
    environment: dict[str, str],
    penstock: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "typo.toml").write_text("worker = 2\n")
    (tmp_path / "log.toml").write_text('[request_log]\ndirectory = "typo.toml/log"\n')
    (tmp_path / "tls.toml").write_text('[grpc]\ntls_certificate = "none.pem"\ntls_key = "none.pem"\n')
    free = [] if "--port" in arguments else ["--port", "0", "--http-port", "0"]
    command = [sys.executable, "-m", "penstock_tools.cli.main", "serve", *free, *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    monkeypatch.chdir(tmp_path)
    code, _, error = penstock("serve", *free, *arguments, "--check")
    assert (done.returncode, code) == (1, 1)
    assert done.stderr.count("\n") == error.count("\n") == 1, done.stderr + error
    assert said in done.stderr
    assert said in error


def test_settings_that_work_are_said_to(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock_tools.cli.main", "serve", "--check", "--model-repository", str(tmp_path)]
    done = subprocess.run(
        [*command, "--port", "0", "--http-port", "0"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("a server can start with these settings\n")


def test_an_unknown_path_names_those_that_are_there(repository_server: Any) -> None:
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.urlopen(f"http://{repository_server.http}/nothing", timeout=10)
    assert b"this port has / for people, /healthz, /readyz, /metrics" in failure.value.read()
