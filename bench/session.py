"""One run of the bench, from models made to servers ended: what `__main__` orders and `report` shows.

Decides the order of the parts. Servers are started once and checked for right answers before any load.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import inference, measure, models, promotions
from bench.load.process import LoadPool
from bench.memory import Growth
from bench.promotions import Promotions
from bench.protocols import GRPC
from bench.results import Measurement, Summary, summarise
from bench.rounds import compare
from bench.scenarios import Effort, Scenario
from bench.servers.measured import CONTESTANTS, Contestant, ServerProcess
from bench.startup import Readiness, readiness

_FIRST_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure.

    Attributes:
        servers: names of contestants; the others are compared with the first.
        scenarios: the loads.
        effort: how many rounds, how long.
        is_ready_wanted: whether the time from start to first answer is measured.
        are_promotions_wanted: whether versions are promoted under load.
        load_processes: how many processes send the load.
    """

    servers: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    effort: Effort
    is_ready_wanted: bool = False
    are_promotions_wanted: bool = False
    load_processes: int = 1

    @property
    def measurements(self) -> int:
        """How many there will be."""
        return len(self.servers) * len(self.scenarios) * self.effort.rounds


@dataclass(slots=True)
class Run:
    """Everything that one run found, filled part by part."""

    measurements: list[Measurement] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    memory: dict[str, list[measure.ProcessMemory]] = field(default_factory=dict)
    readiness: list[Readiness] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    promotions: Promotions | None = None


def run(
    order: Order,
    *,
    on_start: Callable[[str], None],
    on_measured: Callable[[], None],
    contestants: Mapping[str, Contestant] = CONTESTANTS,
) -> Run:
    """Carries out an order.

    Args:
        order: what to measure.
        on_start: told what begins.
        on_measured: called after each of the order's measurements.
        contestants: whom the order names.

    Raises:
        ServerError, TimeoutError: a server did not start or answer.
        WrongAnswerError: a server answers other than its model.
        LoadError, PromotionError: what was ordered cannot be measured.
    """
    found = Run()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        on_start("making models")
        repository = Path(folder) / "models"
        files = models.write(repository, {model for scenario in order.scenarios for model in scenario.models})
        commands = {name: contestants[name].command(repository, files) for name in order.servers}
        if order.is_ready_wanted:
            found.readiness = _starts(commands, order.scenarios[0], on_start)
        on_start("starting servers")
        with ExitStack() as stack:
            servers = {
                name: stack.enter_context(ServerProcess(command, protocol=contestants[name].wire.protocol))
                for name, command in commands.items()
            }
            _check(servers, files, order.scenarios, contestants)
            pool = stack.enter_context(LoadPool(order.load_processes))
            measured = compare(
                servers, order.scenarios, order.effort, pool=pool, on_start=on_start, contestants=contestants
            )
            for each in measured:
                found.measurements.append(each)
                on_measured()
            found.memory = {name: measure.memory(server.pid) for name, server in servers.items()}
        found.summaries = summarise(found.measurements, baseline=order.servers[0])
        if order.are_promotions_wanted:
            on_start("promoting under load")
            registry = Path(folder) / "promotions"
            registry.mkdir()
            found.promotions = promotions.run(registry, order.effort.promotions)
    return found


def _starts(
    commands: Mapping[str, Sequence[str]], scenario: Scenario, on_start: Callable[[str], None]
) -> list[Readiness]:
    message = inference.messages(scenario.model, rows=1, copies=scenario.copies)[0]
    found = []
    for name, command in commands.items():
        if CONTESTANTS[name].wire is GRPC:
            on_start(f"starting {name}")
            found.append(readiness(name, command, message))
    return found


def _check(
    servers: Mapping[str, ServerProcess],
    files: Mapping[str, Path],
    scenarios: Sequence[Scenario],
    contestants: Mapping[str, Contestant],
) -> None:
    asked = {(scenario.model, scenario.rows, scenario.copies) for scenario in scenarios}
    asked |= {(scenario.beside, 1, 1) for scenario in scenarios if scenario.beside}
    for model, rows, copies in sorted(asked):
        outputs = inference.expected(files[models.copies(model, copies)[0]], model, rows=rows)
        for name, server in servers.items():
            wire = contestants[name].wire
            sent = wire.messages(model, rows=rows, copies=copies)
            try:
                wire.check(server.address, sent, outputs, _FIRST_ANSWER_S)
            except TimeoutError as error:
                raise TimeoutError(f"{name}: {error}\nit said:\n{server.last_lines or 'nothing'}") from error
