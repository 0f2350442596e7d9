"""Measures servers under the same loads, in turn: A B A B, round after round.

All servers run all the time; one that gets no requests costs next to nothing. Called by `__main__`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench import inference
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool
from bench.results import Measurement, measurement
from bench.scenarios import Effort, Scenario
from bench.servers import ServerProcess


def compare(
    servers: Mapping[str, ServerProcess],
    scenarios: Sequence[Scenario],
    effort: Effort,
    *,
    pool: LoadPool,
    on_start: Callable[[str], None] = lambda _: None,
) -> Iterator[Measurement]:
    """Each server's measurements, one after another.

    Args:
        servers: running, by name, in the order in which each round takes them.
        scenarios: the loads.
        effort: how many rounds, and how long each.
        pool: what sends the load.
        on_start: told what is measured next.
    """
    for scenario in scenarios:
        messages = inference.messages(scenario.model, rows=scenario.rows)
        for number in range(effort.rounds):
            for name, server in servers.items():
                on_start(f"{scenario.name}, {name}")
                plan = plan_of(scenario, effort, server.grpc, messages)
                yield measurement(scenario.name, name, number, pool.run(plan, server_pid=server.pid))


def plan_of(scenario: Scenario, effort: Effort, address: str, messages: tuple[bytes, ...]) -> LoadPlan:
    """The load on one server."""
    return LoadPlan(
        address=address,
        path=inference.METHOD,
        messages=messages,
        connections=scenario.connections,
        streams=scenario.streams,
        duration_s=effort.duration_s,
        warmup_s=effort.warmup_s,
        rate_per_s=scenario.rate_per_s,
    )
