"""`python -m bench.devices PROVIDER`: models on a device, such as cuda, and on the CPU, loaded as a server loads them.

For each it prints what runs it, what its batches take, what the fitted cost says that they take, how far the device's answers
are from the CPU's, and what becomes of it under limits of memory. PROVIDER needs its onnxruntime, and its device.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench import models
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits, resolve
from penstock_server.errors import PenstockError
from penstock_server.models.execution import CPU, ExecutionSettings
from penstock_server.models.loader import load
from penstock_server.models.servable import Servable

ROWS: Final = (1, 8, 64, 256, 4096)
TIMED_S: Final = 0.5
LIMITS_MIB: Final = (8, 16, 32, 64)
INLINE_S: Final = 0.001
"""The server's default budget for a batch on its loop."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model on one provider.

    Attributes:
        engine: what runs it.
        batch_rows: the largest batch that a server would make.
        times_s: of `ROWS`, or None where the batch is too large for the device.
        cost: as fitted.
        answers: to the same rows for each provider.
    """

    engine: str
    batch_rows: int
    times_s: tuple[float | None, ...]
    cost: Cost
    answers: NDArray[Any]


def graphs() -> dict[str, Callable[[], bytes]]:
    """The models, by what they are."""
    return {
        "perceptron 30-1024-1024-1024-1": lambda: models.mlp(layers=(30, 1024, 1024, 1024, 1)),
        "boosting, 100 trees of depth 3": models.tabular,
    }


def loaded(folder: Path, settings: ExecutionSettings) -> tuple[Servable, Cost]:
    """A version as a server loads it that has these settings."""
    rows = BatchLimits().warmed_rows(has_device=settings.has_device)
    return load(("m", "1"), folder, threads=1, max_rows=rows, execution=settings)


def measured(folder: Path, settings: ExecutionSettings, seconds: float) -> Found:
    """What a version is on these providers."""
    servable, cost = loaded(folder, settings)
    limits, _ = resolve(BatchLimits(), cost, INLINE_S, is_on_device=servable.is_on_device, most_rows=servable.most_rows)
    times = tuple(_time_s(servable, rows, seconds / len(ROWS)) for rows in ROWS)
    answers = servable.predict(*_request(servable, ROWS[2]), None, None).arrays[-1]
    return Found(servable.engine, limits.most_rows, times, cost, answers)


def _request(servable: Servable, rows: int) -> tuple[list[bytes], int]:
    width = servable.model.signature.inputs[0].shape[1]
    matrix = np.random.default_rng(1).normal(size=(rows, width)).astype(np.float32)
    return [matrix.tobytes()], rows


def _time_s(servable: Servable, rows: int, seconds: float) -> float | None:
    """The median of what a batch takes, from its bytes to arrays; waiting for the device counts, so it is no CPU time."""
    blocks, _ = _request(servable, rows)
    times: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(times) < 3:
        begun = time.perf_counter()
        try:
            servable.predict(blocks, rows, None, None)
        except PenstockError:
            return None
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def table_of(name: str, device: str, found: dict[str, Found]) -> str:
    """One model's measurements on the CPU and on the device."""
    lines = [name, "".join(["  microseconds".ljust(24), *(f"{f'{rows:,} rows':>16}" for rows in ROWS)])]
    for where, each in found.items():
        measured_us = (f"{'-' if took_s is None else f'{took_s * 1e6:,.0f}':>16}" for took_s in each.times_s)
        fitted_us = (f"{each.cost.of(rows) * 1e6:>16,.0f}" for rows in ROWS)
        lines.append("".join([f"  {where}".ljust(24), *measured_us]))
        lines.append("".join([f"  {where}, as fitted".ljust(24), *fitted_us]))
    for where, each in found.items():
        lines.append(f"  {where}: {each.engine}; batches of up to {each.batch_rows:,} rows")
    if device in found and CPU in found:
        lines.append(f"  answers differ by up to {_difference(found[device].answers, found[CPU].answers):.1e}")
    return "\n".join(lines)


def _difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(one - other).max() / max(float(np.abs(other).max()), 1e-30))


def under_limit(folder: Path, device: str, mib: int) -> str:
    """What becomes of a version that may take so much of the device's memory, in a line."""
    try:
        servable, _ = loaded(folder, ExecutionSettings((device,), memory_mib=mib))
    except PenstockError as error:
        return f"  {mib} MiB: refused: {error}"
    worst_s = max((_time_s(servable, rows, 0.05) or inf) for rows in (1, servable.most_rows or ROWS[-1]))
    return f"  {mib} MiB: {servable.batching_note or 'every batch fits'}; the largest took {worst_s * 1e6:,.0f} us"


def main() -> int:
    """Measures and prints."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else TIMED_S
    settings = {CPU: ExecutionSettings(), device: ExecutionSettings((device, CPU))}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        for name, make in graphs().items():
            (Path(scratch) / "model.onnx").write_bytes(make())
            found = {where: measured(Path(scratch), each, seconds) for where, each in settings.items()}
            print(table_of(name, device, found))
        (Path(scratch) / "model.onnx").write_bytes(next(iter(graphs().values()))())
        print("the perceptron under a limit of memory")
        for mib in LIMITS_MIB:
            print(under_limit(Path(scratch), device, mib))
    return 0


if __name__ == "__main__":
    sys.exit(main())
