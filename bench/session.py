"""One run of the bench: builds the models, starts the servers, checks their answers, measures, stops the servers."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import inference, models, promotions, rounds
from bench.load.process import LoadPool
from bench.memory import MemoryGrowth
from bench.processes import ProcessMemory, memory_of
from bench.promotions import Promotions
from bench.results import Measurement, Summary, summarise
from bench.scenarios import Rounds, Scenario
from bench.servers.measured import SERVERS, MeasuredServer, ServerThere, running
from bench.startup import Startup, measure_startups
from penstock_tools.server_process import ServerProcess

_FIRST_ANSWER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to measure.

    Attributes:
        servers: names of servers; the others are compared with the first.
        scenarios: the loads.
        rounds: how many, and how long.
        measures_startup: whether to measure the time from start to first answer.
        measures_promotions: whether to promote versions under load.
        load_processes: how many processes send the load.
        there: servers that run already, by name; they come after the others.
    """

    servers: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    rounds: Rounds
    measures_startup: bool = False
    measures_promotions: bool = False
    load_processes: int = 1
    there: Mapping[str, ServerThere] = field(default_factory=dict)

    @property
    def measurements(self) -> int:
        """How many there will be."""
        return (len(self.servers) + len(self.there)) * len(self.scenarios) * self.rounds.count


@dataclass(slots=True)
class RunResult:
    """Everything that one run found, filled part by part."""

    measurements: list[Measurement] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    memory: dict[str, list[ProcessMemory]] = field(default_factory=dict)
    startups: list[Startup] = field(default_factory=list)
    memory_growth: list[MemoryGrowth] = field(default_factory=list)
    promotions: Promotions | None = None


def run(
    spec: RunSpec,
    *,
    on_start: Callable[[str], None],
    on_measured: Callable[[], None],
    servers: Mapping[str, MeasuredServer] = SERVERS,
) -> RunResult:
    """Measures what a spec names.

    Args:
        spec: what to measure.
        on_start: called with what begins.
        on_measured: called after each of the spec's measurements.
        servers: the servers that the spec names.

    Raises:
        UnavailableError, TimeoutError: a server did not start or answer.
        WrongAnswerError: a server's answer is not its model's.
        LoadError, PromotionError: a part cannot be measured.
    """
    found = RunResult()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        on_start("building models")
        repository = Path(folder) / "models"
        files = models.write(repository, {model for scenario in spec.scenarios for model in scenario.models})
        commands = {name: servers[name].command(repository, files) for name in spec.servers}
        if spec.measures_startup:
            found.startups = measure_startups(commands, spec.scenarios[0], servers, on_start=on_start)
        on_start("starting servers")
        with ExitStack() as stack:
            processes: dict[str, ServerProcess | ServerThere] = {
                name: stack.enter_context(running(command, protocol=servers[name].protocol))
                for name, command in commands.items()
            }
            processes |= spec.there
            servers = {**servers, **{name: MeasuredServer(name, _nothing) for name in spec.there}}
            _check(processes, files, spec.scenarios, servers)
            pool = stack.enter_context(LoadPool(spec.load_processes))
            for each in rounds.measure(
                processes, spec.scenarios, spec.rounds, pool=pool, on_start=on_start, servers=servers
            ):
                found.measurements.append(each)
                on_measured()
            found.memory = {name: memory_of(each.pid) for name, each in processes.items() if each.pid is not None}
        found.summaries = summarise(found.measurements, baseline=spec.servers[0])
        if spec.measures_promotions:
            on_start("promoting under load")
            registry = Path(folder) / "promotions"
            registry.mkdir()
            found.promotions = promotions.run(registry, spec.rounds.promotions)
    return found


def _nothing(repository: Path, files: Mapping[str, Path]) -> list[str]:  # noqa: ARG001 - as commands are
    """The command of a server that runs already."""
    return []


def _check(
    processes: Mapping[str, ServerProcess | ServerThere],
    files: Mapping[str, Path],
    scenarios: Sequence[Scenario],
    servers: Mapping[str, MeasuredServer],
) -> None:
    requests = {(scenario.model, scenario.rows, scenario.copies) for scenario in scenarios}
    requests |= {(scenario.beside, 1, 1) for scenario in scenarios if scenario.beside}
    for model, rows, copies in sorted(requests):
        outputs = inference.expected(files[models.copies(model, copies)[0]], model, rows=rows)
        for name, process in processes.items():
            protocol = servers[name].protocol
            sent = protocol.messages(model, rows=rows, copies=copies)
            try:
                protocol.check(protocol.address(process), sent, outputs, _FIRST_ANSWER_S)
            except TimeoutError as error:
                raise TimeoutError(
                    f"{name}: {error}\nits output ends with:\n{process.last_lines or 'nothing'}"
                ) from error
