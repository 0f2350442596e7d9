"""`python -m bench.records`: what it costs to record answers for labels, beside the same server without it.

Servers run side by side and get the same load in turn: 8 connections with 8 calls in flight each, and one call at a time. Their
callers give ids or none, and rows 1 or 8. CPU is that of all processes of a server, so that of the joiner, which takes the
records, is in it.
"""

import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import inference, models
from bench.in_turn import Load, best, costs_of, measured
from bench.load.plan import LoadPlan
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running
from penstock import inference_pb2 as pb

_MODEL: Final = "tabular"


@dataclass(frozen=True, slots=True)
class RecordedLoad:
    """Calls that a server gets.

    Attributes:
        has_ids: each has one.
        rows: of each.
        connections, streams: how many are in flight, on how many connections.
        most_us: what CPU per call may be more where answers are recorded, in microseconds; None for any.
    """

    has_ids: bool
    rows: int
    connections: int
    streams: int
    most_us: float | None = None


LOADS: Final = {
    "8x8, ids": RecordedLoad(True, 1, 8, 8, 2.5),
    "8x8, no ids": RecordedLoad(False, 1, 8, 8, 1.0),
    "8x8, ids, 8 rows": RecordedLoad(True, 8, 8, 8),
    "1x1, ids": RecordedLoad(True, 1, 1, 1),
}
"""By name. Two equal servers differ by up to half a microsecond at 8x8."""


def requests(load: RecordedLoad) -> tuple[bytes, ...]:
    """The messages of a load, each with another id."""
    messages = GRPC.messages(_MODEL, rows=load.rows, copies=1)
    return tuple(_with_id(message) for message in messages) if load.has_ids else messages


def _with_id(message: bytes) -> bytes:
    request = pb.ModelInferRequest.FromString(message)
    request.id = str(uuid.uuid4())
    return bytes(request.SerializeToString())


@contextmanager
def _loads(seconds: float) -> Iterator[dict[tuple[str, bool], Load]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        files = models.write(folder / "models", {_MODEL})
        servers = {}
        for is_recorded in (False, True):
            config = folder / f"{is_recorded}.toml"
            config.write_text(f'[labels]\nenabled = true\nfolder = "{folder / "labels"}"\n' if is_recorded else "")
            command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
            servers[is_recorded] = stack.enter_context(running(command))
        yield {
            (name, is_recorded): Load(
                server,
                LoadPlan(
                    server.grpc, inference.METHOD, requests(load), load.connections, load.streams, duration_s=seconds,
                    warmup_s=0.2,
                ),
            )
            for name, load in LOADS.items()
            for is_recorded, server in servers.items()
        }  # fmt: skip


def measure(rounds: int, seconds: float) -> dict[tuple[str, bool], list[float]]:
    """CPU per answered call in microseconds in each round, by the names of `LOADS` and whether answers are recorded.

    Raises as `costs_of`.
    """
    with _loads(seconds) as loads:
        return costs_of(loads, rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per load; returns 0, 1 if a cost is above `most_us`, or 2 if nothing could be measured."""
    costs = measured("bench.records", "Measures what records for labels cost per call.", 12, measure, arguments)
    if costs is None:
        return 2
    is_above = False
    for name, load in LOADS.items():
        without, cost = best(costs[name, False]), best(costs[name, True])
        is_above |= load.most_us is not None and cost - without > load.most_us
        sys.stdout.write(f"{name}: {without:.2f} us of CPU per call, recorded {cost:.2f} ({cost - without:+.2f} us)\n")
    return int(is_above)


if __name__ == "__main__":
    sys.exit(main())
