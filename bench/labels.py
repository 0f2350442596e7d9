"""`python -m bench.labels`: what labels cost, and how many one worker takes.

A real server serves a model and takes labels. First answers to many requests are written into a file beside the worker's, as a
worker writes them, as fast as the joiner takes them; then their labels come over one stream of `penstock.v1`, each message
acknowledged. CPU is that of the worker and of the joiner's process. At the end every label must have found its answer.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import numpy as np

from bench import models
from bench.processes import cpu_reader, tree
from bench.servers.measured import SERVERS, running
from penstock import penstock_pb2
from penstock_server.labels import prediction_file
from penstock_server.labels.keys import keys_of
from penstock_server.labels.prediction_file import AnsweredVersion, PredictionWriter
from penstock_server.labels.report import Report, ReportReader
from penstock_server.labels.ring import OwnRing

_MODEL: Final = "tabular"
_PATH: Final = "/penstock.v1.Penstock/FeedbackStream"
_SETTINGS: Final = '[labels]\nenabled = true\nfolder = "{folder}"\nmaturity_s = 600\nkeep_bytes = {keep_bytes}\n'
MESSAGE: Final = 512
"""Labels in a message."""
WINDOW: Final = 32
"""Messages that may wait for their replies."""
PAUSE_S: Final = 0.05
"""Before a stream that found no room goes on."""
LEAST: Final = 50_000
"""Labels a second that one worker must take."""
_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run has shown.

    Attributes:
        labels: how many were sent.
        per_s: acknowledged labels a second.
        joined_per_s: labels a second until the last one was joined.
        worker_us: CPU of the worker per label, in microseconds.
        joiner_answer_us: CPU of the joiner per answer.
        joiner_label_us: CPU of the joiner per label.
        lost: labels that were acknowledged and not joined.
        bytes: what the kept answers take on disk, per answer.
        joiner_mib: resident memory of the joiner.
    """

    labels: int
    per_s: float
    joined_per_s: float
    worker_us: float
    joiner_answer_us: float
    joiner_label_us: float
    lost: int
    bytes: float
    joiner_mib: float


def measure(labels: int, keep_bytes: int = 1 << 30) -> Measured:
    """Runs a server, and sends so many labels.

    Raises:
        RuntimeError: labels are not joined in time.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        files = models.write(folder / "models", {_MODEL})
        config = folder / "penstock.toml"
        config.write_text(_SETTINGS.format(folder=folder / "labels", keep_bytes=keep_bytes))
        command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
        with running(command) as server:
            assert server.pid is not None
            worker, joiner = (_process(server.pid, module) for module in ("penstock_server.worker", "labels.process"))
            reader = ReportReader(folder / "labels")
            ids = [f"{number:016x}" for number in range(labels)]
            began = cpu_reader(joiner)()
            _answer(folder / "labels", ids)
            _until(reader, lambda report: report.kept.answers == labels, "answers are kept")
            answered = cpu_reader(joiner)()
            worker_cpu = cpu_reader(worker)
            worker_s, begun = worker_cpu(), time.perf_counter()
            _send(server.grpc, ids)
            acknowledged = time.perf_counter()
            worker_s = worker_cpu() - worker_s
            report = _until(reader, lambda report: _joined(report) == labels, "labels are joined")
            joined = time.perf_counter()
            states = report.models[_MODEL].states
            return Measured(
                labels,
                labels / (acknowledged - begun),
                labels / (joined - begun),
                worker_s / labels * 1e6,
                (answered - began) / labels * 1e6,
                (cpu_reader(joiner)() - answered) / labels * 1e6,
                labels - states.get("matched", 0),
                report.kept.bytes / labels,
                _resident_mib(joiner),
            )


def _process(pid: int, module: str) -> int:
    """The descendant of a server that runs a module."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        for each in tree(pid):
            if module.encode() in Path(f"/proc/{each}/cmdline").read_bytes():
                return each
    raise RuntimeError(f"the server has no process of {module}")


def _answer(folder: Path, ids: Sequence[str]) -> None:
    """Writes an answer for each id, as a worker would."""
    writer = PredictionWriter(OwnRing(folder, prediction_file.KIND, 99, prediction_file.RECORDS))
    place = writer.place_of(AnsweredVersion(_MODEL, "1", "bench", "class", ("no", "yes")))
    for first in range(0, len(ids), 4096):
        part = ids[first : first + 4096]
        records = np.zeros((len(part), 8), np.int64)
        records[:, prediction_file.KEY] = keys_of(_MODEL, [each.encode() for each in part]).astype(np.int64)
        records[:, prediction_file.TIME_NS] = time.time_ns()
        records[:, prediction_file.VERSION_ROLE] = place
        numbers = records.view(np.float64)
        numbers[:, prediction_file.PREDICTION] = np.arange(len(part)) % 2
        numbers[:, prediction_file.SCORE] = 0.5
        numbers[:, prediction_file.WEIGHT] = np.nan
        while not writer.own.ring.append(records):
            time.sleep(0.01)
    writer.own.close()


def _send(address: str, ids: Sequence[str]) -> None:
    """Sends a label for each id, and waits until all are acknowledged; what finds no room is sent again."""
    messages = [
        penstock_pb2.FeedbackRequest(
            model=_MODEL, ids=ids[first : first + MESSAGE], numbers=[1.0] * len(ids[first : first + MESSAGE])
        ).SerializeToString()
        for first in range(0, len(ids), MESSAGE)
    ]
    done = 0
    with grpc.insecure_channel(address) as channel:
        stream = channel.stream_stream(_PATH)
        while done < len(messages):
            free = threading.Semaphore(WINDOW)
            try:
                for _ in stream(_within(messages[done:], free)):
                    done += 1
                    free.release()
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                time.sleep(PAUSE_S)


def _within(messages: Sequence[bytes], free: threading.Semaphore) -> Iterator[bytes]:
    for message in messages:
        free.acquire()
        yield message


def _joined(report: Report) -> int:
    counts = report.models.get(_MODEL)
    return 0 if counts is None else sum(counts.states.values())


def _until(reader: ReportReader, condition: Callable[[Report], bool], what: str) -> Report:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        report = reader.report()
        if report is not None and condition(report):
            return report
        time.sleep(0.05)
    raise RuntimeError(f"{what}: not within {_WAIT_S:.0f} s")


def _resident_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was measured; returns 1 if fewer labels are taken than must be, or one is lost."""
    parser = argparse.ArgumentParser(
        "bench.labels", description="Measures what labels cost, and how many one worker takes."
    )
    parser.add_argument("--labels", type=int, default=600_000, help="how many are sent")
    found = measure(parser.parse_args(arguments).labels)
    sys.stdout.write(
        f"labels: {found.per_s:,.0f} a second acknowledged by one worker, {found.joined_per_s:,.0f} until all are joined\n"
        f"CPU: {found.worker_us:.2f} us of the worker and {found.joiner_label_us:.2f} us of the joiner per label, "
        f"{found.joiner_answer_us:.2f} us of the joiner per answer\n"
        f"space: {found.bytes:.0f} bytes of disk per answer, {found.joiner_mib:.0f} MiB of the joiner\n"
        f"lost: {found.lost} of {found.labels:,}\n"
    )
    return int(found.per_s < LEAST or found.lost > 0)


if __name__ == "__main__":
    sys.exit(main())
