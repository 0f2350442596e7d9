"""Measures servers under the same loads, in turn: A B A B, round after round.

All servers run all the time; one without requests costs almost nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from bench import inference
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool, LoadProcess
from bench.protocols import RequestProtocol
from bench.results import Measurement, measurement
from bench.scenarios import Rounds, Scenario
from bench.servers.measured import SERVERS, MeasuredServer, ServerThere
from penstock_tools.server_process import ServerProcess

_OPEN_STREAMS: Final = 512  # per connection: more than any server here accepts before it refuses


def measure(
    processes: Mapping[str, ServerProcess | ServerThere],
    scenarios: Sequence[Scenario],
    rounds: Rounds,
    *,
    pool: LoadPool,
    on_start: Callable[[str], None] = lambda _: None,
    servers: Mapping[str, MeasuredServer] = SERVERS,
) -> Iterator[Measurement]:
    """The measurements of all servers, one after another.

    Args:
        processes: running servers by name, in the order in which each round takes them.
        scenarios: the loads.
        rounds: how many, and how long.
        pool: sends the load.
        on_start: called with what is measured next.
        servers: the servers that `processes` names.
    """
    for scenario in scenarios:
        messages: dict[RequestProtocol, tuple[bytes, ...]] = {}
        for number in range(rounds.count):
            for name, process in processes.items():
                on_start(f"{scenario.name}, {name}")
                protocol = servers[name].protocol
                if protocol not in messages:
                    plain = protocol.messages(scenario.model, rows=scenario.rows, copies=scenario.copies)
                    messages[protocol] = inference.keyed(plain) if scenario.is_keyed else plain
                plan = protocol.adapt(plan_of(scenario, rounds, protocol.address(process), messages[protocol]))
                capacity_per_s = None
                if scenario.load_factor is not None:
                    capacity_per_s = pool.run(plan).requests_per_s
                    plan = open_plan(plan, scenario.load_factor * capacity_per_s)
                with _load_on(scenario.beside, plan, protocol):
                    result = pool.run(plan, server_pid=process.pid)
                yield measurement(
                    scenario.name,
                    name,
                    number,
                    result,
                    capacity_per_s=capacity_per_s,
                    deadline_s=scenario.deadline_s,
                )


def plan_of(scenario: Scenario, rounds: Rounds, address: str, messages: tuple[bytes, ...]) -> LoadPlan:
    """The load of one round on one server."""
    return LoadPlan(
        address=address,
        path=inference.METHOD,
        messages=messages,
        timeout_s=scenario.deadline_s,
        connections=scenario.connections,
        streams=scenario.streams,
        duration_s=rounds.duration_s,
        warmup_s=rounds.warmup_s,
        rate_per_s=scenario.rate_per_s,
        idle=scenario.idle,
    )


def open_plan(plan: LoadPlan, rate_per_s: float) -> LoadPlan:
    """Poisson arrivals in place of a closed loop, with enough streams that arrivals rarely wait for one."""
    streams = plan.streams if plan.is_http1 else max(plan.streams, _OPEN_STREAMS)
    return replace(plan, rate_per_s=max(1.0, rate_per_s), streams=streams)


@contextmanager
def _load_on(model: str | None, plan: LoadPlan, protocol: RequestProtocol) -> Iterator[None]:
    """One caller that sends requests for another model while the context lasts; none without a model.

    Raises:
        LoadError: it got no answers.
    """
    if model is None:
        yield
        return
    longest_s = plan.warmup_s + plan.duration_s + plan.grace_s
    sent = protocol.messages(model, rows=1, copies=1)
    with LoadProcess() as process:
        process.start(replace(plan, messages=sent, connections=1, streams=1, warmup_s=0.0, duration_s=longest_s))
        yield
        process.stop()
        if not process.result().succeeded:
            raise LoadError(f"model {model!r}, called at the same time, gave no answer")
