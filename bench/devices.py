"""`python -m bench.devices PROVIDER`: models on a device, such as cuda, and on the CPU, loaded as a server loads them.

For each it prints what runs it, what its batches take, what the fitted cost says that they take, how far the device's answers
are from the CPU's, and what becomes of it under limits of memory. PROVIDER needs its onnxruntime, and its device.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.networks import MEASURED, Measured
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits, resolve
from penstock_server.errors import PenstockError
from penstock_server.models.execution import CPU, ExecutionSettings
from penstock_server.models.loader import load
from penstock_server.models.servable import Servable

ANSWERED_ROWS: Final = 64
TIMED_S: Final = 0.5
LIMITS_MIB: Final = (8, 16, 32, 64)
INLINE_S: Final = 0.001
"""The server's default budget for a batch on its loop."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model on one provider.

    Attributes:
        engine: what runs it, and how requests are batched.
        batch_rows: the largest batch that a server would make.
        times_s: of the graph's sizes, or None where the batch is too large for the device.
        changed_s: the same after a batch of another size, which onnxruntime may have to plan anew.
        cost: as fitted.
        answers: to the same rows for each provider.
    """

    engine: str
    batch_rows: int
    times_s: tuple[float | None, ...]
    changed_s: tuple[float | None, ...]
    cost: Cost
    answers: NDArray[Any]


def loaded(folder: Path, settings: ExecutionSettings) -> tuple[Servable, Cost]:
    """A version as a server loads it that has these settings."""
    rows = BatchLimits().warmed_rows(has_device=settings.has_device)
    return load(("m", "1"), folder, threads=1, max_rows=rows, execution=settings)


def measured(graph: Measured, folder: Path, settings: ExecutionSettings, seconds: float) -> Found:
    """What a version of this graph is on these providers."""
    servable, cost = loaded(folder, settings)
    limits, _ = resolve(BatchLimits(), cost, INLINE_S, is_on_device=servable.is_on_device, most_rows=servable.most_rows)
    times = tuple(_time_s(servable, graph.rows(rows), seconds / len(graph.sizes)) for rows in graph.sizes)
    changed = tuple(
        _time_s(servable, graph.rows(rows), seconds / len(graph.sizes), rows // 2 + 1) for rows in graph.sizes
    )
    answers = servable.predict([graph.rows(ANSWERED_ROWS).tobytes()], ANSWERED_ROWS, None, None).arrays[-1]
    servable.close()
    how = "; ".join(filter(None, (servable.engine, "" if servable.batching is None else servable.batching.reason)))
    return Found(how, limits.most_rows, times, changed, cost, answers)


def _time_s(servable: Servable, rows: NDArray[Any], seconds: float, others: int = 0) -> float | None:
    """The median of what a batch takes, from its bytes to arrays; waiting for the device counts, so it is no CPU time.

    With `others`, each comes after a batch of so many of the rows, which is not timed.
    """
    block, other = rows.tobytes(), np.resize(rows, (others, *rows.shape[1:])).tobytes()
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        try:
            if others:
                servable.predict([other], others, None, None)
            begun = time.perf_counter()
            servable.predict([block], len(rows), None, None)
        except PenstockError:
            return None
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def table_of(graph: Measured, device: str, found: dict[str, Found]) -> str:
    """One model's measurements on the CPU and on the device."""
    sizes = graph.sizes
    lines = [graph.about, "".join(["  microseconds".ljust(24), *(f"{f'{rows:,} rows':>16}" for rows in sizes)])]
    for where, each in found.items():
        measured_us = (f"{'-' if took_s is None else f'{took_s * 1e6:,.0f}':>16}" for took_s in each.times_s)
        fitted_us = (f"{each.cost.of(rows) * 1e6:>16,.0f}" for rows in sizes)
        changed_us = (f"{'-' if took_s is None else f'{took_s * 1e6:,.0f}':>16}" for took_s in each.changed_s)
        lines.append("".join([f"  {where}".ljust(24), *measured_us]))
        lines.append("".join([f"  {where}, size changed".ljust(24), *changed_us]))
        lines.append("".join([f"  {where}, as fitted".ljust(24), *fitted_us]))
    for where, each in found.items():
        lines.append(f"  {where}: {each.engine}; batches of up to {each.batch_rows:,} rows")
    if device in found and CPU in found:
        lines.append(f"  answers differ by up to {_difference(found[device].answers, found[CPU].answers):.1e}")
    return "\n".join(lines)


def _difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(one - other).max() / max(float(np.abs(other).max()), 1e-30))


def under_limit(graph: Measured, folder: Path, device: str, mib: int) -> str:
    """What becomes of a version that may take so much of the device's memory, in a line."""
    try:
        servable, _ = loaded(folder, ExecutionSettings((device,), memory_mib=mib))
    except PenstockError as error:
        return f"  {mib} MiB: refused: {error}"
    sizes = (1, servable.most_rows or graph.sizes[-1])
    worst_s = max((_time_s(servable, graph.rows(rows), 0.05) or inf) for rows in sizes)
    return f"  {mib} MiB: {servable.batching_note or 'every batch fits'}; the largest took {worst_s * 1e6:,.0f} us"


def main() -> int:
    """Measures and prints."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else TIMED_S
    settings = {CPU: ExecutionSettings(), device: ExecutionSettings((device, CPU))}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        for graph in MEASURED.values():
            (Path(scratch) / "model.onnx").write_bytes(graph.make())
            found = {where: measured(graph, Path(scratch), each, seconds) for where, each in settings.items()}
            print(table_of(graph, device, found), flush=True)
        perceptron = MEASURED["perceptron"]
        (Path(scratch) / "model.onnx").write_bytes(perceptron.make())
        print("the perceptron under a limit of memory")
        for mib in LIMITS_MIB:
            print(under_limit(perceptron, Path(scratch), device, mib), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
