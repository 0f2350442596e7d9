"""A server's HTTP port with all that the page shows, on a loop of its own: what it tells, and was told, are the test's."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry

from penstock_server.access.credentials import Credentials
from penstock_server.access.gate import AccessGate
from penstock_server.access.identity import Identity
from penstock_server.access.settings import AccessSettings, RuleSettings
from penstock_server.access.tokens import hash_of
from penstock_server.capacity.estimate import ServerCapacity
from penstock_server.control.http import AdminServer
from penstock_server.control.operations import Operations
from penstock_server.control.port import reserve_http
from penstock_server.control.rollouts import RolloutView
from penstock_server.control.view import ServerView, VersionView, WorkerView
from penstock_server.drift.answer import DriftReport, as_json
from penstock_server.drift.report import ColumnDrift, DriftAlarm, ExpectedAccuracy, VersionDrift
from penstock_server.errors import NotFoundError
from penstock_server.labels.quality import Quality, QualityInterval
from penstock_server.labels.report import Report, VersionQuality
from penstock_server.log_setup import Line
from penstock_server.metrics.counters import CountersShape, SharedCounters, latency_bucket, new_counters
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.rollout.evidence import Evidence, Snapshot
from penstock_server.rollout.progress import HistoryEntry, Progress
from penstock_server.rollout.spec import RolloutSpec
from penstock_server.sources.combined_source import SourceState

HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202e"
RULES = AccessSettings(
    {
        "ops": RuleSettings(("token:ops",), ("read", "control")),
        "fares": RuleSettings(("token:fares",), ("read",)),
        "own": RuleSettings(("token:fares",), ("control",), ("fares",)),
        "look": RuleSettings(("token:look",), ("read",)),
        "infer": RuleSettings(("token:infer",), ("infer",)),
    }
)
NAMES = ("ops", "fares", "look", "infer")
PROGRESS = Progress(
    spec=RolloutSpec(steps=(0.05, 0.25, 1.0)), champion="3", status="running", reason="5 %: 120 of 1,000 requests",
    began_s=1.7e9, since_s=1.7e9,
)  # fmt: skip
EVIDENCE = Evidence({"requests": {"5": (120, 2280)}, "errors": {"5": (2, 30)}, "p99": {"5": (1, 22)}})


def column(name: str, **others: Any) -> ColumnDrift:
    return replace(
        ColumnDrift(
            name=name, kind="number", rows=9000, rows_needed=75, effective_rows=9000, enough_rows=True, jensen_shannon=0.25,
            psi=0.5, psi_unbiased=0.4, ks=0.1, ks_slack=0.1, wasserstein=0.75, missing_ratio=0.1, unseen_ratio=None,
            infinite_ratio=0.0, out_of_range_ratio=0.2, p_value=0.5, drifted=False, dispersion=1.5, minimum_effect=0.1,
            labels=("< 1", "1 to 2", "> 2", "missing"), reference=(0.2, 0.5, 0.3, 0.0), current=(0.1, 0.3, 0.5, 0.1),
            importance=0.5,
        ),
        **others,
    )  # fmt: skip


DRIFT = VersionDrift(
    model="fares", version="3", roles=("champion",), rows=9000, window_rows=10_000, rate=0.05,
    columns=(*(column(f"feature {at}") for at in range(14)), column("delay", drifted=True, p_value=1e-9), column(HOSTILE)),
    predictions=column("label", kind="class"), tested=16, drifted=1, global_p_value=1e-9,
    alarmed=("delay",), alarms=(DriftAlarm("delay", "shares", 1.7e9, 1e8),), looks=9,
    expected_accuracy=ExpectedAccuracy(0.91, 0.9, 0.92, 0.93, 5000, 0.01),
)  # fmt: skip


@dataclass
class Shown:
    """What there is to see, all of which may be changed; and the commands that came."""

    versions: list[VersionView] = field(
        default_factory=lambda: [
            VersionView("fares", "3", "READY", ("champion",), engine="compiled: trees"),
            VersionView("fares", "4", "READY", ("canary",), 0.05),
            VersionView("fares", "2", "UNAVAILABLE", reason=f"its digest is wrong {HOSTILE}", wanted=("shadow",)),
            VersionView(HOSTILE, "1", "READY", ("champion",)),
        ]
    )
    rollouts: list[RolloutView] = field(
        default_factory=lambda: [
            RolloutView(
                "fares", "4", PROGRESS, (HistoryEntry(1.7e9, f"5 %: begun {HOSTILE}"),), "server a", True, EVIDENCE,
                problem=f"the registry says {HOSTILE}",
            ),
            RolloutView(HOSTILE, "2", replace_status(PROGRESS, "paused")),
        ]
    )  # fmt: skip
    drift: DriftReport = field(default_factory=lambda: DriftReport((DRIFT,)))
    labels: Report | None = field(
        default_factory=lambda: Report(
            qualities=(VersionQuality("fares", "3", "", Quality(900, int(1.7e18), QualityInterval(0.9, 0.88, 0.92))),)
        )
    )
    lines: list[Line] = field(
        default_factory=lambda: [
            Line(1.7e9, "info", "version loaded", {"model": "fares", "version": "3", "engine": "compiled"}),
            Line(1.7e9 + 1, "error", f"version cannot be served {HOSTILE}", {"model": HOSTILE, "reason": HOSTILE}),
        ]
    )
    page: str = "javascript:alert(1)"
    counters: dict[tuple[str, str], SharedCounters] = field(default_factory=dict)
    commands: list[tuple[str, str, str]] = field(default_factory=list)
    refuses: str = ""

    def counted(self) -> list[VersionSnapshot]:
        return [
            VersionSnapshot(version.model, version.version, version.roles, version.weight, [self.of(version.key)])
            for version in self.versions
        ]

    def of(self, key: tuple[str, str]) -> SharedCounters:
        if key not in self.counters:
            self.counters[key] = new_counters(CountersShape())
        return self.counters[key]

    def answer(self, key: tuple[str, str], requests: int, took_ns: int = 1_000_000) -> None:
        counters = self.of(key)
        counters.requests += requests
        counters.latency[0, latency_bucket(took_ns)] += requests

    async def command(self, model: str, word: str, by: str) -> tuple[str, str]:
        if self.refuses:
            raise NotFoundError(self.refuses)
        self.commands.append((model, word, by))
        return "4", "5 %"

    def view(self) -> ServerView:
        workers = (WorkerView(0, 1, True, 0, "native", 3),)
        return ServerView(tuple(self.versions), workers, {"lost": "no version has the alias 'champion'"}, 1, 0)

    def sources(self) -> Sequence[SourceState]:
        return (SourceState("registry", "away", f"it does not answer {HOSTILE}", 1.5),)


def replace_status(progress: Progress, status: Any) -> Progress:
    fields = {name: getattr(progress, name) for name in progress.__struct_fields__}
    return Progress(**(fields | {"status": status}))


@contextmanager
def served(shown: Shown, *, asks: bool = True) -> Iterator[str]:
    """The address of a port that shows this; `asks` is whether it has access rules."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="served", daemon=True)
    thread.start()

    async def start() -> tuple[AdminServer, str]:
        gate = AccessGate(RULES) if asks else None
        if gate is not None:
            gate.use(Credentials({hash_of(name): Identity((f"token:{name}",)) for name in NAMES}))
        operations = Operations(
            view=shown.view,
            sources=shown.sources,
            counted=shown.counted,
            drift=lambda: shown.drift,
            labels=lambda: shown.labels,
            rollouts=lambda: shown.rollouts,
            capacity=lambda: ServerCapacity(0.25, 80_000.0, {}),
            page_of=lambda _model, _version: shown.page,
            lines=lambda: shown.lines,
        )
        admin = AdminServer(
            view=shown.view,
            sources=lambda: tuple(shown.sources()),
            registry=CollectorRegistry(),
            drift=lambda model, version: as_json(shown.drift.of(model, version)),
            retraining=lambda: b"{}",
            labels=lambda _: b"{}",
            shadows=lambda: b"{}",
            evidence=lambda *_: Snapshot("", ""),
            rollouts=lambda: shown.rollouts,
            experiments=list,
            capacity=lambda: ServerCapacity(None, None, {}),
            operations=operations.sections,
            command=shown.command,
            gate=gate,
        )
        listening = reserve_http("127.0.0.1", 0)
        port = listening.getsockname()[1]
        admin.start(listening)
        return admin, f"http://127.0.0.1:{port}"

    admin, address = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(admin.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
