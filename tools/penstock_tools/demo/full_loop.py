"""The whole loop without anybody: the flights drift, a model is trained anew, judged, registered, rolled out and promoted.

A year of flights streams through one server, and what was true of each follows as labels. All else the server does by its
settings: drift and labels call for a retraining, the command of which registers a version only if it beats the champion, and
the rollout that this version declares is judged by the server's own tests. `loop_picture` draws what happened.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from penstock_client import AsyncClient, PenstockClientError
from penstock_server.errors import PenstockError
from penstock_server.kernel_sets import KERNEL_SETS
from penstock_server.kernels.compiled import ensure_compiled
from penstock_tools import progress
from penstock_tools.client_commands import http
from penstock_tools.demo import flights, setup
from penstock_tools.demo.loop_picture import draw
from penstock_tools.demo.plan import IN_FLIGHT, MODEL, MONTHS, ROWS_PER_REQUEST, DemoPlan, due_s, request_count
from penstock_tools.demo.run import termination_as_interrupt
from penstock_tools.demo.traffic import LABEL, FlightBatch, batches, connected, thinned
from penstock_tools.demo.train import train
from penstock_tools.demo.year import PARTS, Event, Year
from penstock_tools.publish.promote import promote
from penstock_tools.server_process import PENSTOCK, ServerProcess, tail

LOOK_S: Final = 1.0
LABELS: Final = 16_000
"""So many labels must have come before a model is trained anew: three weeks of flights."""
WAIT_S: Final = 120.0
"""How long the last rollout may take after the last flight, which is sent again meanwhile."""
GIVE_UP_FAILURES: Final = 100

ROLLOUT: Final = (
    '{"shadow": "5s", "shadow_rows": 2000, "steps": [10, 50, 100], "hold": "5s", "requests": 200, '
    '"gates": {"errors": 1.5, "accuracy": 1}, "errors_floor": 0.02, "deadline": "10m"}'
)

SETTINGS: Final = """
poll_interval_s = 0.5

[drift]
window_rows = {window_rows}

[request_log]
directory = {log}
sample_ratio = 1.0
rotate_s = 5.0

[labels]
enabled = true
folder = {labels_folder}
maturity_s = 1.0

[rollouts]
enabled = true
look_s = 1.0
lease_s = 8.0

[retraining]
lease_s = 4.0

[retraining.actions.train]
kind = "command"
command = {command}

[retraining.rules.drifted]
action = "train"
models = ["{model}"]
combine = "all"
drift_alarm_s = 5
labels = {labels}
cooldown_s = 5
"""


def run(plan: DemoPlan, picture: Path | None = None) -> int:
    """Runs the loop and reports on standard output.

    Returns:
        0 if a version that was trained on the way became champion and no request failed, else 1.

    Raises:
        PenstockError: a step failed; says which and why.
    """
    console = Console(highlight=False)
    with termination_as_interrupt(), setup.folder_of(plan) as folder:
        with progress.steps(console) as step:
            frame = flights.load()
            kernels = [ensure_compiled(each) for each in KERNEL_SETS]
            registry = f"sqlite:///{folder / 'registry.db'}"
            (first,) = train(
                MODEL,
                registry=registry,
                frame=frame,
                candidates=[flights.boosted_trees()],
                with_champion=False,
                report=step,
            )
            promote(MODEL, first.version, registry=registry)
        stream = thinned(flights.by_months(frame, MONTHS), plan.rows)
        cache = folder / "cache"
        cache.mkdir(exist_ok=True)
        for path in kernels:
            (cache / path.name).write_bytes(path.read_bytes())
        (folder / "server.toml").write_text(_settings(plan, folder, registry))
        environment = {"PENSTOCK_CACHE_DIR": str(cache), "PENSTOCK_DATA_DIR": str(folder)}
        command = plan.command(registry=registry, config=folder / "server.toml")
        console.print(
            f"{first.title}, trained on January to March, is champion; {len(stream):,} flights of April to December follow, "
            f"with what was true of each a moment later. Nobody does anything from here on."
        )
        year = Year(PARTS)
        try:
            with ServerProcess(command, env=environment, log=folder / "server.log") as server:
                server.wait_ready()
                asyncio.run(_Loop(plan, year, server, console).run(stream))
                exit_code = server.stop()
        except Exception:
            console.print(tail(folder / "server.log", 30))
            raise
        if picture is not None:
            picture.write_text(draw(year, plan.seconds))
            console.print(f"the picture is in {picture}")
    return _say_end(year, exit_code, console)


def _settings(plan: DemoPlan, folder: Path, registry: str) -> str:
    command = [
        *(*PENSTOCK, "demo", "retrain", "--log", str(folder / "requests"), "--labels", str(folder / "labels")),
        *("--registry", registry, "--rollout", ROLLOUT),
    ]
    return SETTINGS.format(
        window_rows=max(10, plan.window_rows // plan.workers),
        log=msgspec.json.encode(str(folder / "requests")).decode(),
        labels_folder=msgspec.json.encode(str(folder / "labels")).decode(),
        command=msgspec.json.encode(command).decode(),
        model=MODEL,
        labels=min(LABELS, plan.rows // 10),
    )


class _Loop:
    """The stream, its labels, and what is seen of the server meanwhile."""

    def __init__(self, plan: DemoPlan, year: Year, server: ServerProcess, console: Console) -> None:
        self._plan = plan
        self._year = year
        self._server = server
        self._console = console
        self._known: Counter[str] = Counter()
        self._started_s = 0.0

    async def run(self, frame: Any) -> None:
        """Sends the flights, then the last ones again while a rollout goes on."""
        requests = request_count(len(frame))
        self._started_s = time.monotonic()
        async with connected(self._server.grpc) as clients:
            numbered = enumerate(self._stream(frame))
            async with asyncio.TaskGroup() as tasks:
                observing = tasks.create_task(self._observe())
                callers = [
                    tasks.create_task(self._call(clients[at % len(clients)], numbered, requests))
                    for at in range(IN_FLIGHT)
                ]
                await asyncio.gather(*callers)
                observing.cancel()
        await self._look()

    def _stream(self, frame: Any) -> Iterator[FlightBatch]:
        last = None
        for last in batches(frame, ROWS_PER_REQUEST):
            yield last
        ends_s = time.monotonic() + WAIT_S
        while last is not None and self._is_rolling and time.monotonic() < ends_s:
            yield last

    @property
    def _is_rolling(self) -> bool:
        return self._known["rolling"] > 0

    async def _call(self, client: AsyncClient, numbered: Iterator[tuple[int, FlightBatch]], requests: int) -> None:
        year = self._year
        for at, batch in numbered:
            wait_s = self._started_s + due_s(at, requests, self._plan.seconds) - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if year.failures.total() >= GIVE_UP_FAILURES:
                return
            name = f"flight-{at}"
            try:
                prediction = await client.predict(MODEL, batch.rows, routing_key=batch.key, request_id=name)
                # The truth is there when the flight has landed, which in this year is a moment later.
                await client.feedback(
                    MODEL, batch.answers, ids=[name] * len(batch.answers), rows=range(len(batch.answers))
                )
            except PenstockClientError as error:
                year.failures[str(error)] += 1
                continue
            part = min(PARTS - 1, at * PARTS // requests)
            year.month = max(year.month, batch.month)
            year.rows[part, prediction.version] += len(batch.answers)
            year.right[part, prediction.version] += int((prediction[LABEL] == batch.answers).sum())

    async def _observe(self) -> None:
        while True:
            with suppress(PenstockError):
                await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """Tells what the server did since the last look."""
        rollouts = await self._asked("/v1/rollouts")
        calls = await self._asked("/v1/retraining")
        models = await self._asked("/v1/models")
        for model in calls["models"]:
            for call in reversed(model["calls"]):
                self._tell(f"call {call['id']}", f"retraining called for: {call['reason']}")
                if call["ended_s"] is not None:
                    self._tell(f"end {call['id']}", f"the training {_outcome(call)}")
        self._known["rolling"] = sum(
            one["status"] in {"declared", "running", "promoting"} for one in rollouts["rollouts"]
        )
        for rollout in rollouts["rollouts"]:
            for entry in rollout["history"]:
                self._tell(f"{rollout['version']} {entry['at']}", f"version {rollout['version']}: {entry['text']}")
        for row in models["models"]:
            if row["role"] == "champion" and row["state"] == "READY" and row["version"] not in self._year.champions:
                self._year.champions.append(row["version"])
                if len(self._year.champions) > 1:
                    self._tell(f"champion {row['version']}", f"version {row['version']} is champion")

    def _tell(self, key: str, text: str) -> None:
        if self._known[key]:
            return
        self._known[key] = 1
        at_s = time.monotonic() - self._started_s
        self._year.events.append(Event(at_s, self._year.month, text))
        self._console.print(f"{at_s:6.1f} s  {_month(self._year.month):9}  {text}", soft_wrap=True)

    async def _asked(self, path: str) -> Mapping[str, Any]:
        body = await asyncio.to_thread(http.get, f"http://{self._server.http}{path}")
        found: Mapping[str, Any] = msgspec.json.decode(body)
        return found


def _outcome(call: Mapping[str, Any]) -> str:
    return f"{call['outcome']}{': ' + call['detail'] if call.get('detail') else ''}"


def _month(number: int) -> str:
    return time.strftime("%B", time.struct_time((2013, number or 4, 1, 0, 0, 0, 0, 1, 0)))


def _say_end(year: Year, exit_code: int, console: Console) -> int:
    by_version = {
        version: (sum(count for (_, one), count in year.right.items() if one == version),
                  sum(count for (_, one), count in year.rows.items() if one == version))
        for version in sorted({version for _, version in year.rows}, key=int)
    }  # fmt: skip
    for version, (right, rows) in by_version.items():
        console.print(f"version {version} answered {rows:,} flights, {100 * right / rows:.1f} % of them right")
    problems = [f"{count:,} requests failed: {error}" for error, count in year.failures.items()]
    if len(year.champions) < 2:
        problems.append("no version that was trained on the way became champion")
    if exit_code:
        problems.append(f"the server ended with exit code {exit_code}")
    for problem in problems:
        console.print(f"problem: {problem}", style="red")
    if not problems:
        console.print(f"champions: {', then '.join(year.champions)}; no request failed, and nobody did anything")
    return 1 if problems else 0
