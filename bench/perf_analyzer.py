"""`python -m bench.perf_analyzer`: measures Penstock with NVIDIA's perf_analyzer and with our load generator, side by side.

perf_analyzer is the tool that users of Triton measure with. Besides its own latencies it tells where the server's time went,
by ModelStatistics before and after. Its program comes from PyPI and needs two libraries, of which one is in Debian alone; all
three are kept in the user's cache, like the peers' environments (`bench.peers`).

Source: perf_analyzer's `docs/cli.md` and `docs/measurements_metrics.md`.
"""

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import inference, models
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan, LoadResult
from bench.load.process import LoadPool
from bench.peers import environments
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running
from penstock_server.errors import UnavailableError

_MODEL: Final = "tabular"
_STREAMS: Final = 8
_ROUNDS: Final = 3
_WARMUP_S: Final = 1.0
_SPARE_S: Final = 60.0
_FIRST_ANSWER_S: Final = 60.0
_STEADY_PERCENT: Final = 1000
"""How far windows may be apart: a run ends after three, however busy the machine is."""
_PACKAGE: Final = "libb64-0d"
_LIBRARY: Final = "libb64.so.0d"
_COUNTS: Final = re.compile(r"^ +(Inference|Execution|Successful request) count: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Environment:
    """Where perf_analyzer is; the last tritonclient with the program in it, and the CUDA runtime that it is linked with."""

    name: str = "perf-analyzer"
    packages: tuple[str, ...] = ("tritonclient==2.49.0", "nvidia-cuda-runtime-cu12==12.9.79")
    python: str | None = None

    @property
    def program(self) -> Path:
        """perf_analyzer itself."""
        return environments.folder(self) / "bin" / "perf_analyzer"

    @property
    def libraries(self) -> tuple[Path, ...]:
        """The folders of what it is linked with."""
        lib = environments.folder(self) / "lib"
        return lib, *lib.glob("python*/site-packages/nvidia/cuda_runtime/lib")


ENVIRONMENT: Final = Environment()


class PerfAnalyzerError(Exception):
    """perf_analyzer failed, or printed something that cannot be read."""


@dataclass(frozen=True, slots=True)
class Found:
    """What perf_analyzer measured; the server's parts are means per request, in microseconds.

    Attributes:
        requests_per_s, latency_us, p50_us, p99_us: as the client saw them.
        network_us: what is neither the client's nor the server's.
        queue_us, input_us, infer_us, output_us: the server's parts.
        rows, batches, requests: by the server's count.
    """

    requests_per_s: float
    latency_us: float
    p50_us: float
    p99_us: float
    network_us: float
    queue_us: float
    input_us: float
    infer_us: float
    output_us: float
    rows: int
    batches: int
    requests: int

    @property
    def server_us(self) -> float:
        """The server's parts together."""
        return self.queue_us + self.input_us + self.infer_us + self.output_us


def make() -> None:
    """Makes the environment, unless it is there.

    Raises:
        InstallError: it cannot be made, as where there is no network, no Debian, or another processor.
    """
    environments.make(ENVIRONMENT)
    target = ENVIRONMENT.libraries[0] / _LIBRARY
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            _run(["apt-get", "download", _PACKAGE], folder)
            (package,) = Path(folder).glob("*.deb")
            _run(["dpkg-deb", "-x", package.name, "."], folder)
            (library,) = Path(folder).rglob(_LIBRARY)
            shutil.copy(library, target)


def _run(command: list[str], folder: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_SPARE_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise environments.InstallError(f"{_PACKAGE} cannot be had from Debian: {error}") from error


def command(address: str, model: str, results: Path, *more: str, concurrency: int, window_s: float) -> list[str]:
    """The command line that keeps so many requests in flight for three windows."""
    load = ("--concurrency-range", str(concurrency), "--measurement-interval", str(round(window_s * 1000)))
    ends = ("--stability-percentage", str(_STEADY_PERCENT), "--max-trials", "3")
    where = ("-m", model, "-u", address, "-i", "grpc", "--verbose-csv", "-f", str(results))
    return [str(ENVIRONMENT.program), *where, *load, *ends, *more]


def measure(address: str, model: str, *more: str, concurrency: int = _STREAMS, window_s: float = 1.0) -> Found:
    """Runs perf_analyzer; `more` are options of its own.

    Raises:
        PerfAnalyzerError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        results = Path(folder) / "results.csv"
        line = command(address, model, results, *more, concurrency=concurrency, window_s=window_s)
        env = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, ENVIRONMENT.libraries))}
        try:
            done = subprocess.run(
                line, check=False, capture_output=True, text=True, timeout=20 * window_s + _SPARE_S, env=env
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise PerfAnalyzerError(f"perf_analyzer cannot be run: {error}") from error
        if done.returncode or not results.exists():
            raise PerfAnalyzerError(f"perf_analyzer failed: {(done.stderr + done.stdout)[-1000:]}")
        return read(results.read_text(), done.stdout)


def read(results: str, output: str) -> Found:
    """What perf_analyzer wrote to its CSV file of one concurrency, and printed.

    Raises:
        PerfAnalyzerError: it cannot be read.
    """
    counts = {name: int(count) for name, count in _COUNTS.findall(output)}
    try:
        (row,) = csv.DictReader(results.splitlines())
        return Found(
            requests_per_s=float(row["Inferences/Second"]),
            latency_us=float(row["Avg latency"]),
            p50_us=float(row["p50 latency"]),
            p99_us=float(row["p99 latency"]),
            network_us=float(row["Network+Server Send/Recv"]),
            queue_us=float(row["Server Queue"]),
            input_us=float(row["Server Compute Input"]),
            infer_us=float(row["Server Compute Infer"]),
            output_us=float(row["Server Compute Output"]),
            rows=counts["Inference"],
            batches=counts["Execution"],
            requests=counts["Successful request"],
        )
    except (ValueError, KeyError) as error:
        raise PerfAnalyzerError(f"perf_analyzer's results cannot be read: {results[-500:]}{output[-500:]}") from error


def compare(
    server: str, *, seconds: float, on_round: Callable[[LoadResult, Found], None]
) -> list[tuple[LoadResult, Found]]:
    """Our generator and perf_analyzer in turn, both with one connection and as many requests in flight.

    Raises:
        UnavailableError, TimeoutError, WrongAnswerError, LoadError, PerfAnalyzerError: one could not be measured.
    """
    rounds = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, LoadPool() as pool:
        repository = Path(folder) / "models"
        files = models.write(repository, {_MODEL})
        sent = GRPC.messages(_MODEL, rows=1, copies=1)
        with running(SERVERS[server].command(repository, files)) as process:
            GRPC.check(process.grpc, sent, inference.expected(files[_MODEL], _MODEL, rows=1), _FIRST_ANSWER_S)
            plan = LoadPlan(
                process.grpc, inference.METHOD, sent, streams=_STREAMS, warmup_s=_WARMUP_S, duration_s=3 * seconds
            )
            for _ in range(_ROUNDS):
                rounds.append((pool.run(plan), measure(process.grpc, _MODEL, "--async", window_s=seconds)))
                on_round(*rounds[-1])
    return rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both and returns the exit status: 0, or 2 if nothing could be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.perf_analyzer",
        description=f"Measures Penstock under the load {_MODEL} 1x{_STREAMS} with our generator and with perf_analyzer.",
    )
    servers = [name for name, each in SERVERS.items() if each.protocol is GRPC and name.startswith("penstock")]
    parser.add_argument(
        "--server", choices=servers, default="penstock", help="the server to measure (default: penstock)"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of each window (default: 1)")
    options = parser.parse_args(arguments)
    table = Table("load by", "1/s", "p50 us", "p99 us", "queue", "input", "infer", "output", "batch")
    try:
        make()
        compare(options.server, seconds=options.seconds, on_round=lambda ours, theirs: _add(table, ours, theirs))
    except (
        environments.InstallError, LoadError, UnavailableError, TimeoutError, PerfAnalyzerError, inference.WrongAnswerError,
    ) as error:  # fmt: skip
        Console(stderr=True).print(f"bench.perf_analyzer: {error}", style="red", markup=False)
        return 2
    Console().print(table)
    return 0


def _add(table: Table, ours: LoadResult, theirs: Found) -> None:
    p50_us, p99_us = 1e6 * np.quantile(ours.latencies_s, (0.5, 0.99))
    table.add_row("ours", f"{ours.requests_per_s:,.0f}", f"{p50_us:,.0f}", f"{p99_us:,.0f}")
    parts = (theirs.queue_us, theirs.input_us, theirs.infer_us, theirs.output_us)
    table.add_row(
        "perf_analyzer",
        f"{theirs.requests_per_s:,.0f}",
        f"{theirs.p50_us:,.0f}",
        f"{theirs.p99_us:,.0f}",
        *(f"{part:,.0f}" for part in parts),
        f"{theirs.rows / theirs.batches:.1f}",
    )


if __name__ == "__main__":
    sys.exit(main())
