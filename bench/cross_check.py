"""`python -m bench.cross_check`: the running server asked by a foreign load generator too, h2load, beside our own.

Decides nothing about servers; says whether our generator measures what another one does. h2load (nghttp2) counts HTTP
status and not grpc-status, so the answers are checked before. Source: h2load(1).
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
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool
from bench.protocols import GRPC
from bench.servers.measured import CONTESTANTS, ServerProcess
from bench.servers.roles import ServerError

_MODEL: Final = "tabular"
_CONNECTIONS, _STREAMS = 8, 8
_ROUNDS: Final = 3
_WARMUP_S: Final = 1
_SPARE_S: Final = 30.0
_FIRST_ANSWER_S: Final = 60.0
_FINISHED: Final = re.compile(r"^finished in \S+, ([0-9.]+) req/s", re.MULTILINE)
_COUNTS: Final = re.compile(r"(\d+) failed, (\d+) errored, (\d+) timeout")


class WitnessError(Exception):
    """The other generator is not there, or said nothing that can be read."""


def command(address: str, path: str, body: Path, *, seconds: int) -> list[str]:
    """The command line of h2load for a unary gRPC call, its body with gRPC's prefix in a file."""
    headers = ("-H", "te: trailers", "-H", "content-type: application/grpc")
    load = ("-c", str(_CONNECTIONS), "-m", str(_STREAMS), "-D", str(seconds), "--warm-up-time", str(_WARMUP_S))
    return ["h2load", *load, *headers, "-d", str(body), f"http://{address}{path}"]


def requests_per_s(output: str) -> float:
    """What h2load's output says.

    Raises:
        WitnessError: it says nothing, or that requests failed.
    """
    rate, counts = _FINISHED.search(output), _COUNTS.search(output)
    if not rate or not counts:
        raise WitnessError(f"h2load's output cannot be read: {output[-500:]}")
    if any(map(int, counts.groups())):
        raise WitnessError(f"h2load says: {counts.group()}")
    return float(rate.group(1))


def witness(address: str, message: bytes, *, seconds: int) -> float:
    """Requests per second as h2load counts them, sending one message again and again.

    Raises:
        WitnessError: it is not installed, or failed.
    """
    with tempfile.NamedTemporaryFile(prefix="penstock-witness-") as file:
        file.write(b"\x00" + len(message).to_bytes(4, "big") + message)
        file.flush()
        order = command(address, inference.METHOD, Path(file.name), seconds=seconds)
        try:
            done = subprocess.run(order, check=True, capture_output=True, text=True, timeout=seconds + _SPARE_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise WitnessError(f"h2load cannot be run: {error}") from error
    return requests_per_s(done.stdout)


def compare(server: str, *, seconds: int, on_round: Callable[[float, float], None]) -> tuple[float, float]:
    """Requests per second by our generator and by h2load, medians of rounds in turn, each sending one same message.

    Args:
        server: which contestant, one that speaks gRPC.
        seconds: of each measurement.
        on_round: told both numbers of each round.

    Raises:
        ServerError, TimeoutError, WrongAnswerError, LoadError, WitnessError: there is nothing to compare.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, LoadPool() as pool:
        repository = Path(folder) / "models"
        files = models.write(repository, {_MODEL})
        sent = GRPC.messages(_MODEL, rows=1, copies=1)
        rounds = []
        with ServerProcess(CONTESTANTS[server].command(repository, files)) as process:
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
                rounds.append((pool.run(plan).requests_per_s, witness(process.grpc, sent[0], seconds=seconds)))
                on_round(*rounds[-1])
    ours, theirs = zip(*rounds, strict=True)
    return median(ours), median(theirs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both and returns the exit status: 0, 2 when nothing could be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cross_check",
        description=f"Asks a server under the load {_MODEL} {_CONNECTIONS}x{_STREAMS} by our generator and by h2load.",
    )
    servers = [name for name, each in CONTESTANTS.items() if each.wire is GRPC]
    parser.add_argument("--server", choices=servers, default="penstock", help="whom to ask (default: penstock)")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default: 3)")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        ours, theirs = compare(
            options.server,
            seconds=max(1, options.seconds),
            on_round=lambda ours, theirs: console.print(f"round: ours {ours:,.0f}, h2load {theirs:,.0f} requests/s"),
        )
    except (LoadError, ServerError, TimeoutError, WitnessError, inference.WrongAnswerError) as error:
        Console(stderr=True).print(f"bench.cross_check: {error}", style="red", markup=False)
        return 2
    console.print(
        f"{options.server}: ours {ours:,.0f}, h2load {theirs:,.0f} requests/s; h2load's is × {theirs / ours:.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
