"""Runs the demo: train, serve, stream, promote half-way, sum up, stop. Decides the order and the exit code."""

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from rich.console import Console
from rich.text import Text

from penstock_server.errors import PenstockError, UnavailableError
from penstock_tools import progress
from penstock_tools.client_commands import http
from penstock_tools.demo import live, report, setup
from penstock_tools.demo.plan import MODEL, ROWS_PER_REQUEST, SWITCH_TIMEOUT_S, DemoPlan, request_count
from penstock_tools.demo.results import DemoMetrics, DriftLog, Tally, metrics_excerpt, read_metrics
from penstock_tools.demo.setup import DemoSetup
from penstock_tools.demo.traffic import Schedule, batches, connected, send, until
from penstock_tools.server_process import ServerProcess

INTERRUPTED: Final = 130
SCRAPE_S: Final = 1.0
SCRAPE_TIMEOUT_S: Final = 5.0


def run(plan: DemoPlan) -> int:
    """Runs the demo and reports on standard output.

    Returns:
        The exit code: 0 if every request was answered and the server stopped cleanly, else 1; 130 after Ctrl-C.

    Raises:
        PenstockError: a step failed; says which and why.
    """
    console = Console(highlight=False)
    with termination_as_interrupt():
        try:
            with setup.folder_of(plan) as folder:
                report.say_plan(console)
                with progress.steps(console) as report_step:
                    made = setup.build(plan, folder, report_step)
                report.say_versions(made, console)
                return _serve(made, console)
        except KeyboardInterrupt:
            console.print("interrupted; nothing of the demo is left running")
            return INTERRUPTED


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, so that no server is left behind; in the background too, where shells ignore Ctrl-C."""

    def interrupt(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _serve(made: DemoSetup, console: Console) -> int:
    command = made.plan.command(registry=made.registry, config=made.settings)
    try:
        with ServerProcess(command, env=made.environment(), log=made.log) as server:
            server.wait_ready()
            outcome = asyncio.run(_stream(made, server, console))
            report.show_outcome(outcome, console)
            if made.plan.keep and not report.problems(outcome.tally, None):
                report.say_commands_now(made, server, console)
                # Ctrl-C ends the wait; then the server is stopped in order.
                with suppress(KeyboardInterrupt):
                    threading.Event().wait()
            exit_code = server.stop()
    except Exception:
        report.show_log(made, console)
        raise
    return report.say_end(made, report.problems(outcome.tally, exit_code), console)


async def _stream(made: DemoSetup, server: ServerProcess, console: Console) -> report.Outcome:
    """Sends the flights, promotes half-way, and scrapes the server all the while and once at the end."""
    await setup.wait_for_roles(made.first.version, made.second.version, server.http)
    report.say_addresses(server, console)
    plan, tally = made.plan, Tally(made.second.version)
    requests = request_count(len(made.frame))
    schedule = Schedule(requests, plan.seconds, asyncio.Event())
    viewer, observer = live.Viewer(plan, tally, requests), Observer(plan, server.http, tally)
    # A stream that ends before a reply shows the promotion goes on until one does.
    stream = until(
        lambda: tally.switched_s is not None,
        batches(made.frame, ROWS_PER_REQUEST),
        at_most=int(SWITCH_TIMEOUT_S * requests / plan.seconds),
    )
    # This process also trained the models: its heap is not searched for garbage while the callers are timed.
    gc.collect()
    gc.freeze()
    started = time.monotonic()
    async with connected(server.grpc) as clients:
        with _first_penstock_error():
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(observer.run()),
                    tasks.create_task(
                        live.show(console, lambda: viewer.view(time.monotonic() - started, observer.metrics))
                    ),
                    tasks.create_task(_promote(made, schedule, tally, started, console)),
                ]
                await send(stream, clients, tally, schedule)
                for task in background:
                    task.cancel()
    text = ""
    # A server that is gone has been noticed by the requests that failed.
    with suppress(UnavailableError):
        text = await observer.scrape()
    excerpt = metrics_excerpt(text, report.EXCERPT, lines=3)
    return report.Outcome(tally, observer.metrics.shadow, observer.drift.top(live.TOP_FEATURES), excerpt)


async def _promote(made: DemoSetup, schedule: Schedule, tally: Tally, started: float, console: Console) -> None:
    await schedule.halfway.wait()
    promotion = await setup.promote_second(made.second.version, made.registry)
    at_s = time.monotonic() - started
    tally.promoted(at_s)
    console.print(Text(f"{at_s:5.1f} s  {promotion}", style="bold"), soft_wrap=True)


class Observer:
    """Scrapes the server's metrics while flights stream.

    Attributes:
        metrics: of the last scrape.
        drift: over all scrapes.
    """

    def __init__(self, plan: DemoPlan, address: str, tally: Tally) -> None:
        self._plan = plan
        self._url = f"http://{address}/metrics"
        self._tally = tally
        self.metrics = DemoMetrics()
        self.drift = DriftLog()

    async def run(self) -> None:
        """Scrapes once per second until cancelled; a scrape that fails is left out."""
        while True:
            with suppress(UnavailableError):
                await self.scrape()
            await asyncio.sleep(SCRAPE_S)

    async def scrape(self) -> str:
        """Scrapes once, and returns the text.

        Raises:
            UnavailableError: the server does not answer.
        """
        month = self._tally.month
        text = (await asyncio.to_thread(http.get, self._url, timeout_s=SCRAPE_TIMEOUT_S)).decode()
        self.metrics = read_metrics(text, MODEL)
        if month:
            self.drift.add(month, self.metrics.settled_drift(self._plan.settled_rows))
        return text


@contextmanager
def _first_penstock_error() -> Iterator[None]:
    """Raises a task group's first Penstock error in place of the group, since its sentence is what people read."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = group.subgroup(PenstockError)
        if ours is None:
            raise
        raise _first(ours) from group


def _first(group: BaseException) -> BaseException:
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group
