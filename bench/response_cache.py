"""`python -m bench.response_cache`: what the response cache saves and what it costs, beside the same server without it.

Three servers run side by side and get the same load in turn, 8 connections with 8 calls in flight each, one row per call: one
keeps no answers, one has all rows, and one has memory for a few of the answers and is asked for many rows in turn, so that it
looks for each, keeps it, and finds none.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from bench import inference, models
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool
from bench.servers.measured import SERVERS, running
from penstock_server.errors import UnavailableError
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
_READY_S: Final = 60.0


class NotAnsweredError(Exception):
    """Calls that should be answered were not."""


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


def _cost_us(process: ServerProcess, plan: LoadPlan, pool: LoadPool) -> float:
    result = pool.run(plan, server_pid=process.pid)
    if result.failed or not result.latencies_s.size or result.probed is None:
        raise NotAnsweredError(f"{result.succeeded} calls were answered, others not: {result.failures}")
    return result.probed / result.latencies_s.size * 1e6


def _wait(process: ServerProcess, plan: LoadPlan, pool: LoadPool) -> None:
    """Waits until calls are answered; then all rows are kept where there is memory for them."""
    give_up_s = time.monotonic() + _READY_S
    while True:
        try:
            _cost_us(process, plan, pool)
        except NotAnsweredError:
            if time.monotonic() > give_up_s:
                raise
        else:
            return


def measure(rounds: int, seconds: float) -> Costs:
    """CPU per answered call.

    Raises:
        NotAnsweredError: a call was not answered.
        LoadError, UnavailableError: there is no load or no server.
    """
    found: Costs = {}
    with LoadPool() as pool, _served() as servers:
        plans = {
            (model, name): LoadPlan(
                process.grpc, inference.METHOD, _messages(model), 8, 8, duration_s=seconds, warmup_s=0.2
            )
            for model in MODELS
            for name, process in servers.items()
        }
        for (_, name), plan in plans.items():
            _wait(servers[name], plan, pool)
        for turn in range(rounds):
            for (model, name), plan in sorted(plans.items(), reverse=turn % 2 == 1):
                found.setdefault((model, name), []).append(_cost_us(servers[name], plan, pool))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per model; returns 0, 1 if a hit costs more than `MOST` of a run, or 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.response_cache", description="Measures the response cache.")
    parser.add_argument("--rounds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default: 1)")
    options = parser.parse_args(arguments)
    try:
        costs = measure(max(1, options.rounds), options.seconds)
    except (NotAnsweredError, LoadError, UnavailableError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
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
