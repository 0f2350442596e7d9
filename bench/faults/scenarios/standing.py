"""The standing mix, for minutes: with one worker whose threads switch all the time, then with two as they are."""

import asyncio
from collections.abc import Iterator
from typing import Final

from bench.faults.mix import questions
from bench.faults.mix import run as mix
from bench.faults.number import Number
from bench.faults.registry import FaultRegistry
from bench.faults.scenario import Run
from bench.faults.served import serving, tracebacks

WORKERS: Final = (1, 2)


def play(run: Run) -> Iterator[Number]:
    """Runs half of the time with each number of workers, and adds up the counts."""
    duration_s = run.lasting_s(full=600, quick=60)
    results, logged = [], 0
    for workers in WORKERS:
        folder = run.folder / f"workers-{workers}"
        questions.write(folder / "repository")
        registry = FaultRegistry(folder / "registry")
        questions.register(registry)
        with serving(
            folder / "server",
            *("--registry", registry.uri, "--model-repository", str(folder / "repository")),
            *("--workers", str(workers)),
            settings=questions.SETTINGS,
            models={*questions.MODELS, questions.FRAGILE},
            switches_often=workers == 1,
        ) as (server, state):
            run.say(f"{duration_s / len(WORKERS):g} s with {workers} worker{'s' * (workers > 1)}")
            result = asyncio.run(
                mix.run(
                    server.grpc,
                    state,
                    repository=folder / "repository",
                    registry=registry,
                    duration_s=duration_s / len(WORKERS),
                    seed=workers,
                    say=run.say,
                )
            )
        results.append(result)
        logged += tracebacks(folder / "server")
        run.details += [f"with {workers} worker{'s' * (workers > 1)}: {line}" for line in result.lines()[:1]]
        run.details += result.lines()[1:]
    tallies = [result.tally for result in results]
    yield Number("wrong answers", sum(tally.wrong for tally in tallies), f"of {sum(t.answers for t in tallies):,}")
    yield Number(
        "calls without an end", sum(tally.endless for tally in tallies), f"of {sum(t.calls for t in tallies):,}"
    )
    yield Number("requests lost in streams", sum(tally.lost for tally in tallies))
    yield Number("late answers", sum(tally.late for tally in tallies))
    yield Number("unexpected endings", sum(tally.unexpected.total() for tally in tallies))
    yield Number("queue gauges not 0 afterwards", sum(len(result.waiting) for result in results))
    yield Number("depth of a queue gauge below 0", -min(result.seen.least_waiting for result in results))
    yield Number("versions left unloading", sum(len(result.unloading) for result in results))
    yield Number("restarts of workers", sum(result.restarts for result in results))
    yield Number("tracebacks in the log", logged)
    yield Number("RSS of the tree, end against first third", max(result.growth for result in results))
