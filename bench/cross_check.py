"""`python -m bench.cross_check`: measures one server with our load generator and with h2load, to check the former.

h2load (nghttp2) looks at the HTTP status and not at grpc-status, so the answers are checked before. Source: h2load(1).
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console

from bench import inference, models
from bench.load.connection import prefixed
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running
from penstock_server.errors import UnavailableError

_MODEL: Final = "tabular"
_CONNECTIONS, _STREAMS = 8, 8
_ROUNDS: Final = 3
_WARMUP_S: Final = 1
_SPARE_S: Final = 30.0
_FIRST_ANSWER_S: Final = 60.0
_FINISHED: Final = re.compile(r"^finished in \S+, ([0-9.]+) req/s", re.MULTILINE)
_COUNTS: Final = re.compile(r"(\d+) failed, (\d+) errored, (\d+) timeout")


class CrossCheckError(Exception):
    """h2load is not installed, failed, or printed something that cannot be read."""


def command(address: str, path: str, body: Path, *, seconds: int) -> list[str]:
    """The command line of h2load for a unary gRPC call, its body with gRPC's prefix in a file."""
    headers = ("-H", "te: trailers", "-H", "content-type: application/grpc")
    load = ("-c", str(_CONNECTIONS), "-m", str(_STREAMS), "-D", str(seconds), "--warm-up-time", str(_WARMUP_S))
    return ["h2load", *load, *headers, "-d", str(body), f"http://{address}{path}"]


def requests_per_s(output: str) -> float:
    """The rate in h2load's output.

    Raises:
        CrossCheckError: there is none, or requests failed.
    """
    rate, counts = _FINISHED.search(output), _COUNTS.search(output)
    if not rate or not counts:
        raise CrossCheckError(f"h2load's output cannot be read: {output[-500:]}")
    if any(map(int, counts.groups())):
        raise CrossCheckError(f"h2load reports failures: {counts.group()}")
    return float(rate.group(1))


def h2load(address: str, message: bytes, *, seconds: int) -> float:
    """Requests per second by h2load's count, with one message sent again and again.

    Raises:
        CrossCheckError: it is not installed, or failed.
    """
    with tempfile.NamedTemporaryFile(prefix="penstock-h2load-") as file:
        file.write(prefixed(message))
        file.flush()
        line = command(address, inference.METHOD, Path(file.name), seconds=seconds)
        try:
            done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=seconds + _SPARE_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise CrossCheckError(f"h2load cannot be run: {error}") from error
    return requests_per_s(done.stdout)


def compare(server: str, *, seconds: int, on_round: Callable[[float, float], None]) -> tuple[float, float]:
    """Requests per second by our generator and by h2load: medians of rounds in turn, all with the same message.

    Args:
        server: the name of a server that speaks gRPC.
        seconds: of each measurement.
        on_round: called with both numbers of each round.

    Raises:
        UnavailableError, TimeoutError, WrongAnswerError, LoadError, CrossCheckError: one of the two could not be measured.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, LoadPool() as pool:
        repository = Path(folder) / "models"
        files = models.write(repository, {_MODEL})
        sent = GRPC.messages(_MODEL, rows=1, copies=1)
        rounds = []
        with running(SERVERS[server].command(repository, files)) as process:
            GRPC.check(process.grpc, sent, inference.expected(files[_MODEL], _MODEL, rows=1), _FIRST_ANSWER_S)
            plan = LoadPlan(
                process.grpc,
                inference.METHOD,
                sent[:1],
                connections=_CONNECTIONS,
                streams=_STREAMS,
                warmup_s=_WARMUP_S,
                duration_s=seconds,
            )
            for _ in range(_ROUNDS):
                rounds.append((pool.run(plan).requests_per_s, h2load(process.grpc, sent[0], seconds=seconds)))
                on_round(*rounds[-1])
    ours, theirs = zip(*rounds, strict=True)
    return median(ours), median(theirs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both and returns the exit status: 0, or 2 if nothing could be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cross_check",
        description=f"Measures a server under the load {_MODEL} {_CONNECTIONS}x{_STREAMS} with our generator and with h2load.",
    )
    servers = [name for name, each in SERVERS.items() if each.protocol is GRPC]
    parser.add_argument(
        "--server", choices=servers, default="penstock", help="the server to measure (default: penstock)"
    )
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default: 3)")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        ours, theirs = compare(
            options.server,
            seconds=max(1, options.seconds),
            on_round=lambda ours, theirs: console.print(f"round: ours {ours:,.0f}, h2load {theirs:,.0f} requests/s"),
        )
    except (LoadError, UnavailableError, TimeoutError, CrossCheckError, inference.WrongAnswerError) as error:
        Console(stderr=True).print(f"bench.cross_check: {error}", style="red", markup=False)
        return 2
    console.print(
        f"{options.server}: ours {ours:,.0f}, h2load {theirs:,.0f} requests/s; h2load's is × {theirs / ours:.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
