"""The demo's order: train, serve, stream, promote on the way, sum up, stop.

Decides what follows on what, and what the demo ends in; each step is another module's. `demo.run` calls it.
"""

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
from penstock_tools.demo import live as screen
from penstock_tools.demo import metrics, roles, steps
from penstock_tools.demo import output as telling
from penstock_tools.demo import report as summary
from penstock_tools.demo import setup as stage
from penstock_tools.demo.observer import Observer
from penstock_tools.demo.plan import ROWS_PER_REQUEST, SWITCH_TIMEOUT_S, Plan, request_count
from penstock_tools.demo.results import Tally
from penstock_tools.demo.setup import Stage
from penstock_tools.demo.stream import batches, until
from penstock_tools.demo.traffic import Pace, connected, send
from penstock_tools.demo.view import TOP_FEATURES, Viewer
from penstock_tools.server_process import ServerProcess

INTERRUPTED: Final = 130


def tell(plan: Plan) -> int:
    """Runs the demo and returns its exit code; see `demo.run`."""
    console = Console(highlight=False)
    with _termination_as_interrupt():
        try:
            with stage.folder_of(plan) as folder:
                telling.announce(console)
                with steps.told(console) as report:
                    ready = stage.build(plan, folder, report)
                telling.introduce(ready, console)
                return _serve(ready, console)
        except KeyboardInterrupt:
            console.print("interrupted; nothing of the demo is left running")
            return INTERRUPTED


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, so that no server is left behind."""
    former = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _serve(ready: Stage, console: Console) -> int:
    command = ready.plan.command(registry=ready.registry, config=ready.settings)
    try:
        with ServerProcess(command, env=ready.environment(), log=ready.log) as server:
            server.wait_ready()
            outcome = asyncio.run(_stream(ready, server, console))
            telling.sum_up(outcome, console)
            if ready.plan.keep and not summary.problems(outcome.tally, None):
                telling.say_commands_now(ready, server, console)
                # Ctrl-C ends the wait; what remains is to stop in order.
                with suppress(KeyboardInterrupt):
                    threading.Event().wait()
            exit_code = server.stop()
    except Exception:
        telling.show_log(ready, console)
        raise
    return telling.say_end(ready, summary.problems(outcome.tally, exit_code), console)


async def _stream(ready: Stage, server: ServerProcess, console: Console) -> summary.Outcome:
    """Sends the flights, promotes half-way, and looks at the server meanwhile and at the end."""
    await roles.played(ready.first.version, ready.second.version, server.http)
    telling.say_where(server, console)
    plan, tally = ready.plan, Tally(ready.second.version)
    requests = request_count(len(ready.frame))
    pace = Pace(requests, plan.seconds, asyncio.Event())
    viewer, observer = Viewer(plan, tally, requests), Observer(plan, server.http, tally)
    # A stream that is over before the promotion shows goes on until it does.
    stream = until(
        lambda: tally.switched_s is not None,
        batches(ready.frame, ROWS_PER_REQUEST),
        at_most=int(SWITCH_TIMEOUT_S * requests / plan.seconds),
    )
    # The callers share the process with what trained: its heap is not searched for garbage while they are timed.
    gc.collect()
    gc.freeze()
    started = time.monotonic()
    async with connected(server.grpc) as clients:
        with _one_error():
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(observer.run()),
                    tasks.create_task(
                        screen.show(console, lambda: viewer.view(time.monotonic() - started, observer.facts))
                    ),
                    tasks.create_task(_promote(ready, pace, tally, started, console)),
                ]
                await send(stream, clients, tally, pace)
                for task in beside:
                    task.cancel()
    text = ""
    # A server that is gone has been noticed by the requests that failed.
    with suppress(UnavailableError):
        text = await observer.look()
    excerpt = metrics.excerpt(text, summary.EXCERPT, lines=3)
    return summary.Outcome(tally, observer.facts.shadow, observer.drift.top(TOP_FEATURES), excerpt)


async def _promote(ready: Stage, pace: Pace, tally: Tally, started: float, console: Console) -> None:
    await pace.halfway.wait()
    promotion = await roles.promoted(ready.second.version, ready.registry)
    at_s = time.monotonic() - started
    tally.promoted(at_s)
    console.print(Text(f"{at_s:5.1f} s  {promotion}", style="bold"), soft_wrap=True)


@contextmanager
def _one_error() -> Iterator[None]:
    """A group's first error of ours in place of the group: it has the sentence that people read."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = group.subgroup(PenstockError)
        if ours is None:
            raise
        raise _first(ours) from group


def _first(group: BaseException) -> BaseException:
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group
