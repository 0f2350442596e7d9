"""`python -m bench.reloads`: what hundreds of reloads under load do to callers, to memory and to the disk.

Two models get requests at random moments, as many as one server has an easy time with. First nothing else happens, then one of
them is promoted from version to version, each as soon as the one before answers, then its alias is written as often without a
change, then nothing happens again. Each promotion loads the version anew, since the one before is freed. The writes alone tell
what the registry's client takes, which shares the machine here.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from bench import inference, models
from bench.load.plan import LoadPlan, LoadResult
from bench.load.process import LoadProcess
from bench.memory import workers_bytes
from bench.processes import memory_of
from bench.promotions import MODEL, aliases, prober, promote_in_turn
from bench.servers.measured import running
from bench.servers.roles import PORTS, penstock_command, publish, registry_in
from penstock.names import CHAMPION
from penstock_server.priority import to_background

OTHER: Final = "wide-10"
VERSIONS: Final = 3
FIRST: Final = 5
"""After so many reloads the memory is compared with: caches are full and each version was loaded."""
SETTINGS: Final = "poll_interval_s = 0.1\n"
_MEBIBYTE: Final = 1 << 20
_SETTLES_S: Final = 2.0
_RELOAD_S: Final = 20.0
_MOST_REQUESTS: Final = 30_000_000


@dataclass(frozen=True, slots=True)
class Reloads:
    """What was found.

    Attributes:
        count: how many promotions.
        visible_s: for each, from the alias written to the first answer of its version.
        quiet: by model, the loads before and after.
        reloading: by model, the load during the promotions.
        writing: by model, the load while aliases were written that change nothing.
        first_bytes: the workers' resident memory after `FIRST` promotions.
        last_bytes: after all.
        cache_bytes: what the server keeps on disk of the versions' files.
    """

    count: int
    visible_s: Sequence[float]
    quiet: Mapping[str, Sequence[LoadResult]]
    reloading: Mapping[str, LoadResult]
    writing: Mapping[str, LoadResult]
    first_bytes: int
    last_bytes: int
    cache_bytes: int

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        loads = [*self.reloading.values(), *self.writing.values()]
        loads += [each for both in self.quiet.values() for each in both]
        return sum(load.failed for load in loads)


def run(folder: Path, count: int, *, rate_per_s: float, quiet_s: float, every_s: float = 0.0) -> Reloads:
    """Publishes two models, one of them in several versions, serves them, and promotes.

    Args:
        folder: an empty one.
        count: how many promotions, more than `FIRST`.
        rate_per_s: requests a second to each model.
        quiet_s: how long the loads before and after take.
        every_s: from one promotion to the next at least.

    Raises:
        UnavailableError: publishing or serving failed.
        PromotionError: a promotion did not become visible.
        LoadError: a load could not be sent.
    """
    registry, env = _published(folder)
    versions, promote = aliases(registry)
    config = folder / "penstock.toml"
    config.write_text(SETTINGS)
    command = penstock_command("serve", "--registry", registry, "--config", str(config), *PORTS, "--workers", "1")
    with ExitStack() as stack:
        server = stack.enter_context(running(command, env=env))
        loads = {model: stack.enter_context(LoadProcess()) for model in (MODEL, OTHER)}
        served_version = stack.enter_context(prober(server.grpc))
        inference.first_answer(server.grpc, inference.messages(OTHER, rows=1)[0], timeout_s=60)

        def turn(count: int) -> list[float]:
            return promote_in_turn(versions, count, promote=promote, served_version=served_version, every_s=every_s)

        def resident() -> int:
            time.sleep(_SETTLES_S)  # the process that tried the last version has ended
            return workers_bytes(memory_of(server.pid))

        turn(1)
        seen_s = turn(FIRST)
        first = resident()
        # What writes aliases stands for a registry elsewhere, and takes what is left of the cores.
        to_background(os.getpid())
        before = _quiet(loads, server.grpc, rate_per_s, quiet_s)
        with _loading(loads, server.grpc, rate_per_s, count * _RELOAD_S) as reloading:
            seen_s += turn(count - FIRST)
        last = resident()
        with _loading(loads, server.grpc, rate_per_s, count * _RELOAD_S) as writing:
            present = served_version()
            for each in seen_s[FIRST:]:
                promote(present)
                time.sleep(max(each, every_s))
        after = _quiet(loads, server.grpc, rate_per_s, quiet_s)
    cache = sum(each.stat().st_size for each in (folder / "cache" / "models").rglob("*") if each.is_file())
    quiet = {model: (before[model], after[model]) for model in loads}
    return Reloads(count, seen_s, quiet, reloading, writing, first, last, cache)


def _published(folder: Path) -> tuple[str, dict[str, str]]:
    """A registry that has the models, and the environment of its server."""
    registry, env = registry_in(folder)
    for number in range(VERSIONS):
        file = folder / f"{number}.onnx"
        file.write_bytes(models.tabular(number))
        publish(MODEL, file, registry=registry, alias=CHAMPION)
    other = folder / "other.onnx"
    other.write_bytes(models.tabular(columns=models.COLUMNS[OTHER]))
    publish(OTHER, other, registry=registry, alias=CHAMPION)
    return registry, env


def _quiet(
    loads: Mapping[str, LoadProcess], address: str, rate_per_s: float, duration_s: float
) -> dict[str, LoadResult]:
    with _loading(loads, address, rate_per_s, duration_s) as results:
        time.sleep(duration_s)
    return results


@contextmanager
def _loading(
    loads: Mapping[str, LoadProcess], address: str, rate_per_s: float, most_s: float
) -> Iterator[dict[str, LoadResult]]:
    """Sends requests to each model within the block; the results are there after it."""
    results: dict[str, LoadResult] = {}
    for number, (model, load) in enumerate(loads.items()):
        load.start(
            LoadPlan(
                address,
                inference.METHOD,
                inference.messages(model, rows=1),
                connections=4,
                streams=64,
                duration_s=most_s + 5,
                max_requests=_MOST_REQUESTS,
                rate_per_s=rate_per_s,
                seed=number,
            )
        )
    try:
        yield results
    finally:
        for load in loads.values():
            load.stop()
    results |= {model: load.result() for model, load in loads.items()}


def table(found: Reloads) -> str:
    """The numbers as lines of text."""

    def quantile(loads: Sequence[LoadResult], share: float) -> float:
        return float(np.quantile(np.concatenate([load.latencies_s for load in loads]), share)) * 1e3

    headline = (
        f"{found.count} reloads under {sum(load.requests_per_s for load in found.reloading.values()):,.0f} requests/s: "
        f"{found.failed} of {sum(load.attempted for load in found.reloading.values()):,} failed; "
        f"seen after {median(found.visible_s):.2f} s, at most {max(found.visible_s):.2f} s"
    )
    lines = [headline]
    for model, name in ((MODEL, "the model that is reloaded"), (OTHER, "the other model")):
        for share, of in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")):
            quiet, busy = quantile(found.quiet[model], share), quantile([found.reloading[model]], share)
            written = quantile([found.writing[model]], share)
            lines.append(
                f"{name}, {of}: {quiet:.2f} ms quiet, {busy:.2f} ms while reloading, {busy / quiet:.2f} x; "
                f"{written:.2f} ms with the same writes and no reload, {busy / written:.2f} x"
            )
    memory = (
        f"workers' memory after {FIRST} reloads {found.first_bytes / _MEBIBYTE:.0f} MiB, after {found.count} "
        f"{found.last_bytes / _MEBIBYTE:.0f} MiB, {found.last_bytes / found.first_bytes:.3f} x"
    )
    lines += [memory, f"files of versions on disk: {found.cache_bytes / _MEBIBYTE:.1f} MiB"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None, *, measure: Callable[..., Reloads] = run) -> int:
    """Prints what was found; 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="bench.reloads", description="Measures what reloads do to everybody else.")
    parser.add_argument("--count", type=int, default=500, help="reloads (%(default)s)")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second to each model (%(default)s)")
    parser.add_argument("--quiet", type=float, default=30.0, help="seconds before and after (%(default)s)")
    parser.add_argument(
        "--every", type=float, default=0.0, help="seconds from one reload to the next at least (%(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.count <= FIRST:
        parser.error(f"--count is {options.count}; expected more than {FIRST}")
    if (os.cpu_count() or 1) < 2:
        sys.stdout.write("one core: what is measured is mostly who waits for it\n")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        found = measure(
            Path(folder), options.count, rate_per_s=options.rate, quiet_s=options.quiet, every_s=options.every
        )
    sys.stdout.write(table(found))
    return int(found.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
