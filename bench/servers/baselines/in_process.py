"""onnxruntime alone, in a loop: the most rows per second that a server with one model thread can reach.

python -m bench.servers.baselines.in_process MODEL [--rows N ...] [--seconds S]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import models
from bench.servers.onnx_session import OneThreadModel


@dataclass(frozen=True, slots=True)
class Limit:
    """What one batch size reached.

    Attributes:
        batch_us: the mean time of one run.
    """

    rows: int
    rows_per_s: float
    batch_us: float


def limit(
    run: Callable[[NDArray[np.float32]], object],
    batches: list[NDArray[np.float32]],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Limit:
    """Runs the batches in turn for this many seconds, after one turn that is not measured."""
    for batch in batches:
        run(batch)
    started = clock()
    count = 0
    for batch in cycle(batches):
        run(batch)
        count += 1
        lasted_s = clock() - started
        if lasted_s >= seconds:
            break
    rows = len(batches[0])
    return Limit(rows, count * rows / lasted_s, lasted_s * 1e6 / count)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measures one model and prints one line per batch size."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers.baselines.in_process")
    parser.add_argument("model", choices=tuple(models.COLUMNS))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args(None if arguments is None else list(arguments))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        model = OneThreadModel(models.write(Path(folder), {options.model})[options.model])
        for rows in options.rows:
            batches = [models.sample(options.model, rows=rows, seed=seed) for seed in range(16)]
            found = limit(model.run, batches, seconds=options.seconds)
            print(f"{rows:>6} rows: {found.rows_per_s:>12,.0f} rows/s, {found.batch_us:>10,.1f} µs per batch")


if __name__ == "__main__":
    main()
