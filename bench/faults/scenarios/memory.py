"""What a server holds that follows a registry and serves one model with one worker."""

import time
from collections.abc import Iterator
from typing import Final

from bench import inference
from bench.faults import graphs
from bench.faults.mix.questions import Questions
from bench.faults.number import Number
from bench.faults.registry import FaultRegistry
from bench.faults.scenario import Run
from bench.faults.served import serving
from bench.processes import memory_of
from penstock.names import CHAMPION

_CALLS: Final = 200
_SETTLES_S: Final = 3.0
"""Longer than a poll of the registry."""


def play(run: Run) -> Iterator[Number]:
    """Serves a version from a registry in sqlite, asks it some rows, and reads the memory."""
    registry = FaultRegistry(run.folder / "registry")
    registry.set_alias("aliased", CHAMPION, registry.add("aliased", graphs.answering(1)))
    questions = Questions(0)
    with serving(run.folder / "server", "--registry", registry.uri, "--workers", "1", models={"aliased"}) as (
        server,
        _,
    ):
        with inference.channel(server.grpc) as channel:
            call = inference.infer(channel)
            for _ in range(_CALLS):
                call(questions.of("aliased", 1).request.SerializeToString(), timeout=10)
        time.sleep(_SETTLES_S)
        processes = memory_of(server.pid)
    run.details += [
        f"{each.command:20} RSS {each.rss_bytes / 1e6:7.1f} MB, PSS {(each.pss_bytes or 0) / 1e6:7.1f} MB"
        for each in processes
    ]
    yield Number("supervisor's RSS, MB", processes[0].rss_bytes / 1e6)
    yield Number("the tree's RSS, MB", sum(each.rss_bytes for each in processes) / 1e6, f"{len(processes)} processes")
    shares = [each.pss_bytes for each in processes]
    pss = None if None in shares else sum(filter(None, shares)) / 1e6
    yield Number("the tree's PSS, MB", pss, "shared pages divided by their sharers")
