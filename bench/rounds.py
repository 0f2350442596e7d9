"""Measures servers under the same loads, in turn: A B A B, round after round.

All servers run all the time; one that gets no requests costs next to nothing. Called by `__main__`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from bench import inference
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool, LoadProcess
from bench.protocols import Wire
from bench.results import Measurement, measurement
from bench.scenarios import Effort, Scenario
from bench.servers.measured import CONTESTANTS, Contestant, ServerProcess

_OPEN_STREAMS = 512  # on each connection: more than any server here takes in before it refuses


def compare(
    servers: Mapping[str, ServerProcess],
    scenarios: Sequence[Scenario],
    effort: Effort,
    *,
    pool: LoadPool,
    on_start: Callable[[str], None] = lambda _: None,
    contestants: Mapping[str, Contestant] = CONTESTANTS,
) -> Iterator[Measurement]:
    """Each server's measurements, one after another.

    Args:
        servers: running, by name, in the order in which each round takes them.
        scenarios: the loads.
        effort: how many rounds, and how long each.
        pool: what sends the load.
        on_start: told what is measured next.
        contestants: who the servers are.
    """
    for scenario in scenarios:
        messages: dict[Wire, tuple[bytes, ...]] = {}
        for number in range(effort.rounds):
            for name, server in servers.items():
                on_start(f"{scenario.name}, {name}")
                wire = contestants[name].wire
                if wire not in messages:
                    messages[wire] = wire.messages(scenario.model, rows=scenario.rows, copies=scenario.copies)
                plan = wire.adapt(plan_of(scenario, effort, server.address, messages[wire]))
                capacity_per_s = None
                if scenario.load_factor is not None:
                    capacity_per_s = pool.run(plan).requests_per_s
                    plan = open_plan(plan, scenario.load_factor * capacity_per_s)
                with _beside(scenario.beside, plan, wire):
                    result = pool.run(plan, server_pid=server.pid)
                yield measurement(
                    scenario.name,
                    name,
                    number,
                    result,
                    capacity_per_s=capacity_per_s,
                    deadline_s=scenario.deadline_s,
                )


def open_plan(plan: LoadPlan, rate_per_s: float) -> LoadPlan:
    """Poisson arrivals in place of a closed loop, with room enough in flight that arrivals seldom wait for it."""
    streams = plan.streams if plan.is_http1 else max(plan.streams, _OPEN_STREAMS)
    return replace(plan, rate_per_s=max(1.0, rate_per_s), streams=streams)


@contextmanager
def _beside(model: str | None, plan: LoadPlan, wire: Wire) -> Iterator[None]:
    """One caller of another model, for as long as the context lasts.

    Raises:
        LoadError: it got no answers.
    """
    if model is None:
        yield
        return
    lasting_s = plan.warmup_s + plan.duration_s + plan.grace_s
    sent = wire.messages(model, rows=1, copies=1)
    with LoadProcess() as process:
        process.start(replace(plan, messages=sent, connections=1, streams=1, warmup_s=0.0, duration_s=lasting_s))
        yield
        process.stop()
        if not process.result().succeeded:
            raise LoadError(f"model {model!r}, asked meanwhile, gave no answer")


def plan_of(scenario: Scenario, effort: Effort, address: str, messages: tuple[bytes, ...]) -> LoadPlan:
    """The load on one server."""
    return LoadPlan(
        address=address,
        path=inference.METHOD,
        messages=messages,
        timeout_s=scenario.deadline_s,
        connections=scenario.connections,
        streams=scenario.streams,
        duration_s=effort.duration_s,
        warmup_s=effort.warmup_s,
        rate_per_s=scenario.rate_per_s,
    )
