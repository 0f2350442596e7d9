"""`python -m bench.overload`: what is left of a server at a multiple of its capacity, and what a refusal costs.

The loads of `python -m bench` come from a generator in Python, which cannot send more than a native server answers; h2load
can. It looks at no grpc-status, so answers and refusals are read from the server's own metrics. Its open loop sends at even
intervals, 8 connections each on its own. A call is refused or answered, and counted: the sum is compared with what was sent.
Source: h2load(1).
"""

import argparse
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console

from bench import inference, models
from bench.load.connection import prefixed
from bench.processes import cpu_reader
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running
from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess

_CONNECTIONS: Final = 8
_STREAMS: Final = 8
_MOST_STREAMS: Final = 2000
"""Calls in flight per connection in the open loop, which is open as long as they suffice."""
_SPARE_S: Final = 30.0
_FIRST_ANSWER_S: Final = 60.0
_DONE: Final = re.compile(r"^requests: \d+ total, \d+ started, (\d+) done", re.MULTILINE)
_COUNTER: Final = re.compile(r"^penstock_(requests|refusals)_total\{(.*)\} (\S+)$", re.MULTILINE)
_REASON: Final = re.compile(r'reason="(\w+)"')
LOADS: Final = (("mlp", 1), ("mlp", 64), ("tabular", 64), ("tabular", 1))


class OverloadError(Exception):
    """h2load is not installed, failed, or printed something that cannot be read."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of h2load.

    Attributes:
        done: calls that ended, by h2load's count.
        answered: by the server's count.
        refused: by the server's count and its reasons.
        cpu_s: of the server and its workers.
        latencies_ms: of all calls, refused or not; empty unless it was asked for.
    """

    done: int
    answered: int
    refused: dict[str, int]
    cpu_s: float
    latencies_ms: list[float]


def counts(metrics: str) -> dict[str, int]:
    """The requests in a server's metrics, as "answered" or by the reason of their refusal."""
    found: dict[str, int] = {}
    for kind, labels, value in _COUNTER.findall(metrics):
        reason = _REASON.search(labels)
        name = "answered" if kind == "requests" or reason is None else reason.group(1)
        found[name] = found.get(name, 0) + int(float(value))
    return found


def done(output: str) -> int:
    """How many calls ended, in h2load's output.

    Raises:
        OverloadError: it cannot be read.
    """
    if (found := _DONE.search(output)) is None:
        raise OverloadError(f"h2load's output cannot be read: {output[-500:]}")
    return int(found.group(1))


def latencies_ms(log: str) -> list[float]:
    """The latencies in h2load's log: a line per call, with its begin, its HTTP status and its microseconds."""
    return [int(line.split("\t")[2]) / 1e3 for line in log.splitlines()]


class Load:
    """One message, sent to one server."""

    def __init__(self, process: ServerProcess, folder: Path, body: Path) -> None:
        self._process = process
        self._folder = folder
        self._body = body
        self._cpu = cpu_reader(process.pid)

    def run(self, *more: str, streams: int, seconds: int, has_log: bool = False) -> Outcome:
        """Runs h2load with these options more.

        Raises:
            OverloadError: it cannot be run.
        """
        log = self._folder / "log"
        line = ["h2load", "-c", str(_CONNECTIONS), "-m", str(streams), "-D", str(seconds)]
        line += ["-H", "te: trailers", "-H", "content-type: application/grpc", "-d", str(self._body), *more]
        line += ["--log-file", str(log)] if has_log else []
        before, used_s = self._counts(), self._cpu()
        try:
            ran = subprocess.run(
                [*line, f"http://{self._process.grpc}{inference.METHOD}"],
                check=True,
                capture_output=True,
                text=True,
                timeout=seconds + _SPARE_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise OverloadError(f"h2load cannot be run: {error}") from error
        cpu_s = self._cpu() - used_s
        after = self._counts()
        grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
        found = latencies_ms(log.read_text()) if has_log else []
        return Outcome(done(ran.stdout), grown.pop("answered", 0), grown, cpu_s, found)

    def _counts(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://{self._process.http}/metrics", timeout=10) as answer:
            return counts(answer.read().decode())


@contextmanager
def _load(model: str, rows: int, settings: str = "") -> Iterator[Load]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        files = models.write(folder / "models", {model})
        sent = GRPC.messages(model, rows=rows, copies=1)
        body, config = folder / "body", folder / "penstock.toml"
        body.write_bytes(prefixed(sent[0]))
        config.write_text(settings)
        command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
        with running(command) as process:
            GRPC.check(process.grpc, sent, inference.expected(files[model], model, rows=rows), _FIRST_ANSWER_S)
            load = Load(process, folder, body)
            load.run(streams=_STREAMS, seconds=1)  # its form is known then, and its cost
            yield load


def measure(model: str, rows: int, *, rounds: int, seconds: int, factor: float, deadline_ms: int) -> str:
    """A line about one load.

    Raises:
        OverloadError, UnavailableError, TimeoutError, WrongAnswerError: it cannot be measured.
    """
    shares, costs, answer_us, late, refused = [], [], [], [], dict[str, int]()
    with _load(model, rows) as load:
        for _ in range(rounds):
            closed = load.run(streams=_STREAMS, seconds=seconds)
            each = max(1, int(factor * closed.answered / seconds / _CONNECTIONS))
            deadline = ("-H", f"grpc-timeout: {deadline_ms}m", f"--rps={each}")
            over = load.run(*deadline, streams=_MOST_STREAMS, seconds=seconds, has_log=True)
            answer_us.append(closed.cpu_s / max(1, closed.answered) * 1e6)
            shares.append(over.answered / max(1, closed.answered))
            costs.append(over.cpu_s / max(1, over.answered) * 1e6 / answer_us[-1])
            late.append(sum(took > deadline_ms for took in over.latencies_ms) / max(1, len(over.latencies_ms)))
            for reason, count in over.refused.items():
                refused[reason] = refused.get(reason, 0) + count
    with _load(model, rows, "[batching]\nqueue_requests = 1\n") as load:
        alone = load.run(streams=8 * _STREAMS, seconds=seconds)
    refusal_us = alone.cpu_s / max(1, sum(alone.refused.values())) * 1e6
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(refused.items())) or "none"
    return (
        f"{model}, {rows} rows: answers {median(shares):.2f} of the closed loop's, at {median(costs):.2f} of its CPU each, "
        f"{median(late):.1%} of all calls later than {deadline_ms} ms; refused: {reasons}; "
        f"an answer {median(answer_us):.1f} us of CPU, a refusal at most {refusal_us:.1f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per load, and returns the exit status: 0, or 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.overload",
        description="Measures Penstock by h2load at a multiple of what it answered in a closed loop just before.",
    )
    names = [f"{model}:{rows}" for model, rows in LOADS]
    parser.add_argument("--load", choices=names, action="append", help="only this load; may be repeated")
    parser.add_argument("--factor", type=float, default=2.0, help="the multiple (default: 2)")
    parser.add_argument("--deadline-ms", type=int, default=100, help="of each call (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default: 2)")
    options = parser.parse_args(arguments)
    for name in options.load or names:
        model, _, rows = name.partition(":")
        try:
            line = measure(
                model,
                int(rows),
                rounds=max(1, options.rounds),
                seconds=max(1, options.seconds),
                factor=options.factor,
                deadline_ms=options.deadline_ms,
            )
        except (OverloadError, UnavailableError, TimeoutError, inference.WrongAnswerError) as error:
            Console(stderr=True).print(f"bench.overload: {error}", style="red", markup=False)
            return 2
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
