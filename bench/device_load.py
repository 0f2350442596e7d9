"""`python -m bench.device_load PROVIDER [SECONDS [GRAPH...]]`: servers on a device, such as cuda, and on the CPU.

One worker each, requests of one row, in closed loops of different width. Every answer of the first requests is compared with
that of onnxruntime on the CPU. For each load it prints requests per second, p50 and p99, the rows of the batches that formed,
and the server's CPU per request. PROVIDER needs its onnxruntime, and its device.
"""

import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench import inference
from bench.inference import Outputs
from bench.load.plan import LoadPlan, LoadResult
from bench.load.process import LoadPool
from bench.models import INPUT
from bench.networks import MEASURED, Measured
from bench.servers.measured import running
from bench.servers.onnx_session import OneThreadModel
from bench.servers.roles import PORTS, penstock_command
from penstock import inference_pb2 as pb
from penstock.tensors import DATATYPES
from penstock_server.models.execution import CPU
from penstock_tools.server_process import ServerProcess

WIDTHS: Final = ((1, 1), (1, 16), (4, 32), (8, 128))
"""Connections, and calls in flight on each."""
LOAD_PROCESSES: Final = 4
_WARMUP_S: Final = 0.5
_BATCHES: Final = re.compile(r"^penstock_batch_rows_(count|sum)\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Batches:
    """How many batches a server has run, and of how many rows in all."""

    count: float
    rows: float

    @classmethod
    def read(cls, metrics: str) -> "Batches":
        """Of what a server shows to Prometheus."""
        found = {"count": 0.0, "sum": 0.0}
        for kind, value in _BATCHES.findall(metrics):
            found[kind] += float(value)
        return cls(found["count"], found["sum"])

    def rows_since(self, before: "Batches") -> float:
        """The mean rows of a batch since then; 0 where none ran."""
        count = self.count - before.count
        return (self.rows - before.rows) / count if count else 0.0


def messages(name: str, graph: Measured) -> tuple[bytes, ...]:
    """Serialized requests of one row each."""
    rows = graph.rows(inference.DISTINCT)
    datatype = DATATYPES[rows.dtype]
    made = []
    for row in rows:
        tensor = pb.ModelInferRequest.InferInputTensor(name=INPUT, datatype=datatype, shape=(1, *row.shape))
        request = pb.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[row.tobytes()])
        made.append(request.SerializeToString())
    return tuple(made)


def expected(file: Path, graph: Measured) -> list[Outputs]:
    """The answers of onnxruntime on the CPU to these requests."""
    model = OneThreadModel(file)
    return [model.run(np.asarray(row)[None]) for row in graph.rows(inference.DISTINCT)]


@contextmanager
def serving(repository: Path, provider: str) -> Iterator[ServerProcess]:
    """A server of one worker whose graphs run on this provider."""
    settings = repository.parent / f"{provider}.toml"
    names = [provider] if provider == CPU else [provider, CPU]
    settings.write_text(f"[execution]\nproviders = {names}\n")
    command = penstock_command("serve", "--model-repository", str(repository), "--config", str(settings), *PORTS)
    with running([*command, "--workers", "1"]) as server:
        yield server


def batches_of(server: ServerProcess) -> Batches:
    """What the server has run until now."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as response:
        return Batches.read(response.read().decode())


def line_of(where: str, in_flight: int, result: LoadResult, rows: float) -> str:
    """One load's result, in a line."""
    p50_ms, p99_ms = np.percentile(result.latencies_s, (50, 99)) * 1e3 if result.latencies_s.size else (0.0, 0.0)
    cpu_us = (result.probed or 0.0) / max(result.latencies_s.size, 1) * 1e6
    failed = f"  {result.failed} failed" if result.failed else ""
    return (
        f"  {where:10}{in_flight:>6} in flight{result.requests_per_s:>12,.0f}/s  p50 {p50_ms:>8.2f} ms  p99 {p99_ms:>8.2f} ms"
        f"  {rows:>8.1f} rows a batch  {cpu_us:>8.0f} us of CPU{failed}"
    )


def main() -> int:
    """Measures and prints."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    graphs = {name: MEASURED[name] for name in sys.argv[3:] or MEASURED}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch, LoadPool(LOAD_PROCESSES) as pool:
        repository = Path(scratch) / "models"
        for name, graph in graphs.items():
            file = repository / name / "1" / "model.onnx"
            file.parent.mkdir(parents=True)
            file.write_bytes(graph.make())
        for provider in (CPU, device):
            with serving(repository, provider) as server:
                for name, graph in graphs.items():
                    print(f"{graph.about} on {provider}", flush=True)
                    sent = messages(name, graph)
                    inference.first_answer(server.grpc, sent[0], timeout_s=60)
                    inference.check(server.grpc, sent, expected(repository / name / "1" / "model.onnx", graph))
                    for connections, streams in WIDTHS:
                        plan = LoadPlan(
                            server.grpc,
                            inference.METHOD,
                            sent,
                            connections=connections,
                            streams=streams,
                            duration_s=seconds,
                            warmup_s=_WARMUP_S,
                        )
                        before = batches_of(server)
                        result = pool.run(plan, server_pid=server.pid)
                        rows = batches_of(server).rows_since(before)
                        print(line_of(provider, connections * streams, result, rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
