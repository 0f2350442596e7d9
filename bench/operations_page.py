"""`python -m bench.operations_page`: what the operations page costs, and how soon it shows a server with many models.

One server has copies of one small model, of which one is asked by h2load in a closed loop. Nobody looks at its page, one, and
as many as may, in turn: what is answered per second, what the supervisor takes of a core, and how long its port takes for
/healthz meanwhile. Then a Chromium opens the page some times: how long it takes from the navigation to the first paint and to
the models, and how many bytes.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from playwright.sync_api import Error, sync_playwright
from rich.console import Console
from rich.table import Table

from bench import inference, models
from bench.load.connection import prefixed
from bench.overload import counts
from bench.protocols import GRPC
from bench.servers.measured import SERVERS
from penstock_server.errors import UnavailableError
from penstock_server.page.feed import VIEWERS
from penstock_tools.server_process import ServerProcess

_MODEL: Final = "tabular"
_LOADED_S: Final = 900.0
"""The airlock tries one model after another."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PROBE_S: Final = 0.02
_ANSWER_S: Final = 60.0
_PAINTED: Final = """() => {
  const shown = performance.getEntriesByName("models-shown")[0];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return shown && paint ? [paint.startTime, shown.startTime] : null;
}"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One round with so many who look.

    Attributes:
        answered_per_s: requests.
        supervisor: how much of a core it took, 0 to 1.
        health_s: the 99th percentile of what /healthz took.
    """

    answered_per_s: float
    supervisor: float
    health_s: float


@dataclass(frozen=True, slots=True)
class Paint:
    """One opening of the page: seconds from the navigation, and bytes of the document."""

    first_s: float
    models_s: float
    document_bytes: int


def cpu_s(pid: int) -> float:
    """What a process has used of the CPU, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@contextmanager
def viewers(address: str, count: int) -> Iterator[None]:
    """So many streams are read meanwhile."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(count):
            stream = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            stream.sendall(b"GET /v1/live HTTP/1.1\r\n\r\n")
            status = stream.recv(64).partition(b"\r\n")[0].decode()
            if " 200 " not in status:
                raise UnavailableError(f"/v1/live answers {status}")
            reading = threading.Thread(target=_read, args=(stream,), daemon=True)
            reading.start()
            stack.callback(reading.join, 10)
            stack.callback(stream.shutdown, socket.SHUT_RDWR)
        yield


def _read(stream: socket.socket) -> None:
    with suppress(OSError):
        while stream.recv(65536):
            pass


def look(process: ServerProcess, body: Path, count: int, seconds: float) -> Outcome:
    """One round."""
    line = ["h2load", "-c", "4", "-m", "32", "-D", str(int(seconds + _ANSWER_S)), "-H", "te: trailers"]
    line += ["-H", "content-type: application/grpc", "-d", str(body), f"http://{process.grpc}{inference.METHOD}"]
    with viewers(process.http, count):
        sending = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            # Of many models a scrape takes long, so it is outside of what is measured of the supervisor.
            before, before_s = _answered(process), time.monotonic()
            began_s, used_s = time.monotonic(), cpu_s(process.pid)
            took = []
            while time.monotonic() - began_s < seconds:
                asked_s = time.monotonic()
                urllib.request.urlopen(f"http://{process.http}/healthz", timeout=_ANSWER_S).close()
                took.append(time.monotonic() - asked_s)
                time.sleep(_PROBE_S)
            lasted_s = time.monotonic() - began_s
            used_s = cpu_s(process.pid) - used_s
            if sending.poll() is not None:
                raise UnavailableError(f"h2load ended with exit code {sending.returncode}")
            answered, now_s = _answered(process) - before, time.monotonic()
            return Outcome(answered / (now_s - before_s), used_s / lasted_s, quantiles(took, n=100)[-1])
        finally:
            sending.kill()
            sending.wait()


def _answered(process: ServerProcess) -> int:
    with urllib.request.urlopen(f"http://{process.http}/metrics", timeout=_ANSWER_S) as answer:
        return counts(answer.read().decode()).get("answered", 0)


def paints(address: str, chromium: str, rounds: int) -> list[Paint]:
    """Opens the page so often, each time as a browser that has not seen it."""
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for _ in range(rounds):
            context = browser.new_context()
            page = context.new_page()
            answer = page.goto(f"http://{address}/")
            assert answer is not None
            first_ms, models_ms = page.wait_for_function(_PAINTED).json_value()
            found.append(Paint(first_ms / 1e3, models_ms / 1e3, len(answer.body())))
            context.close()
        browser.close()
    return found


def costs(found: dict[int, list[Outcome]]) -> Table:
    """A row for each number of viewers, medians over the rounds."""
    shown = Table("who look", "answered/s", "of none", "supervisor, of a core", "/healthz, 99 % within")
    none = median(each.answered_per_s for each in found[0])
    for count, outcomes in found.items():
        answered = median(each.answered_per_s for each in outcomes)
        shown.add_row(
            str(count),
            f"{answered:,.0f}",
            f"{answered / none:.3f}",
            f"{median(each.supervisor for each in outcomes):.1%}",
            f"{median(each.health_s for each in outcomes) * 1e3:.1f} ms",
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both tables, and returns the exit status: 0, or 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.operations_page", description="What the page costs and how soon it shows."
    )
    parser.add_argument("--models", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--seconds", type=float, default=5, help="of each round (default: 5)")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    options = parser.parse_args(arguments)
    names = models.copies(_MODEL, options.models)
    found: dict[int, list[Outcome]] = {0: [], 1: [], VIEWERS: []}
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
            folder = Path(name)
            files = models.write(folder / "models", set(names))
            (folder / "body").write_bytes(prefixed(GRPC.messages(_MODEL, rows=1, copies=options.models)[0]))
            with ServerProcess(SERVERS["penstock"].command(folder / "models", files), log=folder / "log") as process:
                process.wait_ready(_LOADED_S)
                _wait_for_all(process, len(names))
                for _ in range(options.rounds):
                    for count, outcomes in found.items():
                        outcomes.append(look(process, folder / "body", count, options.seconds))
                painted = paints(process.http, options.chromium, options.rounds)
    except (UnavailableError, TimeoutError, OSError, Error) as error:
        Console(stderr=True).print(f"bench.operations_page: {error}", style="red", markup=False)
        return 2
    shown_ms = sorted(each.models_s * 1e3 for each in painted)
    console = Console()
    console.print(costs(found))
    console.print(
        f"{len(names)} models: first paint {median(each.first_s for each in painted) * 1e3:.0f} ms after the navigation, the "
        f"models at {median(shown_ms):.0f} ms (slowest {shown_ms[-1]:.0f}), {painted[0].document_bytes:,} bytes"
    )
    return 0


def _wait_for_all(process: ServerProcess, count: int) -> None:
    """Returns when all models answer; raises `TimeoutError`."""
    deadline_s = time.monotonic() + _LOADED_S
    while True:
        with urllib.request.urlopen(f"http://{process.http}/v1/models", timeout=_ANSWER_S) as answer:
            if answer.read().count(b'"state":"READY"') >= count:
                return
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{count} models are not ready within {_LOADED_S:g} s")
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
