"""`python -m bench.response_cache`: what the response cache saves and what it costs, beside the same server without it.

Three servers run side by side and get the same load in turn, 8 connections with 8 calls in flight each, one row per call: one
keeps no answers, one has all rows, and one has memory for a few of the answers and is asked for many rows in turn, so that it
looks for each, keeps it, and finds none.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from bench import inference, models
from bench.in_turn import Load, costs_of, measured
from bench.load.plan import LoadPlan
from bench.servers.measured import SERVERS, running
from penstock_tools.server_process import ServerProcess

MODELS: Final = ("tabular", "mlp", "slow")
SETTINGS: Final = {
    "off": "",
    "hits": "[response_cache]\nmax_mib = 64\nenable = true\n",
    "misses": "[response_cache]\nmax_mib = 0.02\nenable = true\n",
}
MOST: Final = 0.6
"""What CPU per hit may be, as a multiple of a run of the perceptron, which takes 40 us per row in large batches."""
Costs = dict[tuple[str, str], list[float]]
"""CPU per call in microseconds in each round, by model and server."""
_ROWS: Final = {"tabular": 256, "mlp": 256, "slow": 32}
"""Different rows: more than the small cache has memory for."""


@contextmanager
def _served() -> Iterator[Mapping[str, ServerProcess]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        files = models.write(folder / "models", set(MODELS))
        found = {}
        for name, text in SETTINGS.items():
            config = folder / f"{name}.toml"
            config.write_text(text)
            command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
            found[name] = stack.enter_context(running(command))
        yield found


def _messages(model: str) -> tuple[bytes, ...]:
    rows = np.random.default_rng(0).normal(size=(_ROWS[model], 1, models.COLUMNS[model])).astype(np.float32)
    return tuple(inference.request(model, row).SerializeToString() for row in rows)


def measure(rounds: int, seconds: float) -> Costs:
    """CPU per answered call; raises as `costs_of`."""
    with _served() as servers:
        loads = {
            (model, name): Load(
                process,
                LoadPlan(process.grpc, inference.METHOD, _messages(model), 8, 8, duration_s=seconds, warmup_s=0.2),
            )
            for model in MODELS
            for name, process in servers.items()
        }
        return costs_of(loads, rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per model; returns 0, 1 if a hit costs more than `MOST` of a run, or 2 if nothing could be measured."""
    costs = measured("bench.response_cache", "Measures the response cache.", 5, measure, arguments)
    if costs is None:
        return 2
    for model in MODELS:
        off, hits, misses = (median(costs[model, name]) for name in SETTINGS)
        sys.stdout.write(
            f"{model}: {off:.1f} us of CPU per call without the cache, {hits:.1f} for a hit "
            f"({_ratio(costs, model, 'hits'):.2f}), {misses:.1f} for a miss ({_ratio(costs, model, 'misses'):.2f})\n"
        )
    return int(_ratio(costs, "mlp", "hits") > MOST)


def _ratio(costs: Costs, model: str, name: str) -> float:
    """CPU per call over that without the cache, the median over the rounds."""
    return median(on / off for on, off in zip(costs[model, name], costs[model, "off"], strict=True))


if __name__ == "__main__":
    sys.exit(main())
