"""`python -m bench.capacity`: whether the capacity that a server tells is where it ends up when it is driven there.

Each model is served alone. It is asked a part of what the server says that it can take; then what the server tells now is
written down, which has seen no more than that load; then it gets as much as h2load can send in a closed loop. What is answered
then, over how much of the time the scarcest of reactor and model thread was busy, is what was to be foretold. Where the load
generator is faster than the server, that share is 1. Source: h2load(1).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import inference, models
from bench.load.connection import prefixed
from bench.overload import counts
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running
from penstock_server.capacity.busy import busy_s
from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess

_CONNECTIONS: Final = 8
_FIRST_ANSWER_S: Final = 60.0
_SPARE_S: Final = 30.0
_GLANCE: Final = 800
_GLANCE_S: Final = 4
"""So many requests a second, for so long, tell the server how large they are."""
_LEAST_BUSY: Final = 0.5
"""A server that was less busy than this was not driven to its end."""
_MODEL_S: Final = re.compile(
    r'^model_prediction_latency_seconds_sum\{.*stage="(?:features|infer)".*\} (\S+)$', re.MULTILINE
)


class CapacityError(Exception):
    """The capacity cannot be measured."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a server is asked.

    Attributes:
        streams: calls in flight per connection at saturation: few enough that none is refused.
        objective_ms: of the model; None sets none.
    """

    model: str
    rows: int
    streams: int
    objective_ms: int | None = None

    @property
    def name(self) -> str:
        objective = "" if self.objective_ms is None else f", within {self.objective_ms} ms"
        return f"{self.model}, {self.rows} row{'s' * (self.rows > 1)}{objective}"


LOADS: Final = (
    Load("tabular", 1, 256),
    Load("tabular", 64, 32),
    Load("wide-1000", 1, 64),
    Load("mlp", 1, 128),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server had done at one moment: answers, and seconds of its reactor and of its models."""

    at_s: float
    answered: int
    reactor_s: float
    model_s: float

    def since(self, former: "Sample", *, is_inline: bool) -> tuple[float, float]:
        """Answers per second, and how busy the scarcest place was, since another moment."""
        took_s = self.at_s - former.at_s
        reactor, model = (self.reactor_s - former.reactor_s) / took_s, (self.model_s - former.model_s) / took_s
        return (self.answered - former.answered) / took_s, reactor if is_inline else max(reactor, model)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One round, in requests per second.

    Attributes:
        asked: in the light load.
        told_light: the capacity that the server told under it.
        told_full: and when it was driven to its end.
        ratio_full: how much of it was used then, by what the server told.
        answered: what it answered then.
        busy: how busy its scarcest place was.
    """

    asked: float
    told_light: float
    told_full: float
    ratio_full: float
    answered: float
    busy: float

    @property
    def measured(self) -> float:
        """What it would answer if it were busy all the time."""
        return self.answered / min(1.0, self.busy)


class _Server:
    """A server with one model, and what h2load sends it."""

    def __init__(self, process: ServerProcess, body: Path, load: Load) -> None:
        self._process = process
        self._body = body
        self._load = load
        (worker,) = self._state("server")["workers"]
        self._pid: int = worker["pid"]

    def _state(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://{self._process.http}/v1/{what}", timeout=10) as answer:
            return json.load(answer)

    def told(self) -> tuple[float, float]:
        """Requests per second that fit, and how much of that is used."""
        known = self._state("models")["capacity"][self._load.model]
        return known["requests_per_s"], known["ratio"]

    def sample(self) -> Sample:
        with urllib.request.urlopen(f"http://{self._process.http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        model_s = sum(map(float, _MODEL_S.findall(text)))
        return Sample(time.monotonic(), counts(text).get("answered", 0), busy_s(self._pid) or 0.0, model_s)

    @contextmanager
    def loaded(self, seconds: float, streams: int, rate: float | None = None) -> Iterator[None]:
        """Sends load meanwhile: a closed loop, or requests at even intervals."""
        line = ["h2load", "-c", str(_CONNECTIONS), "-m", str(streams), "-D", str(int(seconds + 1))]
        line += ["-H", "te: trailers", "-H", "content-type: application/grpc", "-d", str(self._body)]
        line += [] if rate is None else [f"--rps={max(1, round(rate / _CONNECTIONS))}"]
        try:
            sending = subprocess.Popen(
                [*line, f"http://{self._process.grpc}{inference.METHOD}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise CapacityError(f"h2load cannot be run: {error}") from error
        try:
            yield
            if sending.wait(seconds + _SPARE_S):
                raise CapacityError(f"h2load ended with exit code {sending.returncode}")
        finally:
            sending.kill()
            sending.wait()


def measure(load: Load, *, share: float, seconds: float) -> Outcome:
    """One round of one load.

    Raises:
        CapacityError, UnavailableError, TimeoutError, WrongAnswerError: it cannot be measured.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        files = models.write(folder / "models", {load.model})
        sent = GRPC.messages(load.model, rows=load.rows, copies=1)
        body, config = folder / "body", folder / "penstock.toml"
        body.write_bytes(prefixed(sent[0]))
        config.write_text("" if load.objective_ms is None else f"[batching]\nobjective_ms = {load.objective_ms}\n")
        command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
        with running(command) as process:
            GRPC.check(
                process.grpc, sent, inference.expected(files[load.model], load.model, rows=load.rows), _FIRST_ANSWER_S
            )
            time.sleep(2)  # it looks once a second
            server = _Server(process, body, load)
            with server.loaded(_GLANCE_S, 64, _GLANCE):
                time.sleep(_GLANCE_S)
            asked = share * server.told()[0]
            with server.loaded(seconds, 64, asked):
                time.sleep(seconds)
                told_light, _ = server.told()
            with server.loaded(2 * seconds, load.streams):
                time.sleep(seconds)
                first = server.sample()
                time.sleep(seconds)
                last, (told_full, ratio_full) = server.sample(), server.told()
    answered, busy = last.since(first, is_inline=load.model != "mlp")
    if busy < _LEAST_BUSY:
        raise CapacityError(f"{load.name}: h2load kept the server busy for only {busy:.0%} of the time")
    return Outcome(asked, told_light, told_full, ratio_full, answered, busy)


def table(found: dict[Load, list[Outcome]]) -> Table:
    """A row for each load, medians over the rounds."""
    columns = (
        "load",
        "asked/s",
        "told/s",
        "answered/s",
        "busy",
        "measured/s",
        "told of measured",
        "told at full load",
        "ratio",
    )
    shown = Table(*columns)
    for load, outcomes in found.items():
        measured = median(each.measured for each in outcomes)
        shown.add_row(
            load.name,
            f"{median(each.asked for each in outcomes):,.0f}",
            f"{median(each.told_light for each in outcomes):,.0f}",
            f"{median(each.answered for each in outcomes):,.0f}",
            f"{median(each.busy for each in outcomes):.2f}",
            f"{measured:,.0f}",
            f"{median(each.told_light / each.measured for each in outcomes):.2f}",
            f"{median(each.told_full / each.measured for each in outcomes):.2f}",
            f"{median(each.ratio_full for each in outcomes):.2f}",
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, and returns the exit status: 0, or 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.capacity",
        description="Compares the capacity that a server tells under a part of it with what it answers at its end.",
    )
    names = [f"{load.model}:{load.rows}" for load in LOADS]
    parser.add_argument("--load", choices=names, action="append", help="only this load; may be repeated")
    parser.add_argument("--share", type=float, default=0.4, help="of the capacity is asked first (default: 0.4)")
    parser.add_argument("--rounds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--seconds", type=float, default=8, help="of each load (default: 8)")
    options = parser.parse_args(arguments)
    found: dict[Load, list[Outcome]] = {}
    for load, name in zip(LOADS, names, strict=True):
        if options.load and name not in options.load:
            continue
        try:
            found[load] = [
                measure(load, share=options.share, seconds=options.seconds) for _ in range(max(1, options.rounds))
            ]
        except (CapacityError, UnavailableError, TimeoutError, inference.WrongAnswerError) as error:
            Console(stderr=True).print(f"bench.capacity: {error}", style="red", markup=False)
            return 2
    Console(width=140).print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
