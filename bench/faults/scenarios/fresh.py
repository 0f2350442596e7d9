"""A machine that has never run the server, without cache and kernels: seconds until it is live, and until it is ready."""

import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.faults import graphs
from bench.faults.mix import questions
from bench.faults.number import Number
from bench.faults.scenario import Run
from bench.faults.served import command_of, log_of
from penstock_server.control import port
from penstock_tools.server_process import ServerProcess

_LIMIT_S: Final = 180.0
_POLL_S: Final = 0.01


def play(run: Run) -> Iterator[Number]:
    """Starts a server for a plain model, then one for a model behind a feature pipeline."""
    plain, features = run.folder / "plain", run.folder / "features"
    graphs.put(plain, "promoted", 1, graphs.answering(1))
    questions.write(features)
    for each in features.iterdir():
        if each.name != "features":
            shutil.rmtree(each)
    for name, repository in (("plain model", plain), ("feature pipeline", features)):
        run.say(f"starts without a cache: {name}")
        live_s, ready_s, note = start(run.folder / f"server {name}", repository)
        yield Number(f"{name}: s to /healthz", live_s)
        yield Number(f"{name}: s to /readyz", ready_s, note)


def start(folder: Path, repository: Path) -> tuple[float | None, float | None, str]:
    """Seconds until /healthz and /readyz answer 200, and what /readyz said first; None for what did not come in time."""
    with port.reserve("127.0.0.1", 0) as reserved:
        http = reserved.getsockname()[1]
    command, env = command_of(
        folder,
        *("--model-repository", str(repository)),
        has_kernels=False,
        ports=("--host", "127.0.0.1", "--port", "0", "--http-port", str(http)),
    )
    live_s, reason = None, ""
    started = time.monotonic()
    with ServerProcess(command, env=env, cwd=folder, log=log_of(folder)) as server:
        while time.monotonic() - started < _LIMIT_S and server.returncode is None:
            if live_s is None and _get(http, "/healthz")[0] == 200:
                live_s = time.monotonic() - started
            if live_s is not None:
                status, text = _get(http, "/readyz")
                if status == 200:
                    return live_s, time.monotonic() - started, reason
                reason = reason or text.strip()[:200]
            time.sleep(_POLL_S)
    return live_s, None, reason


def _get(port_number: int, path: str) -> tuple[int, str]:
    """The status and text of a page; 0 if there is none yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port_number}{path}", timeout=2) as reply:
            return reply.status, reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""
