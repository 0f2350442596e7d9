"""The HTTP port: a page for people, /metrics for Prometheus, /healthz and /readyz for probes, and JSON below /v1.

Probes are answered at once. Metrics and drift take milliseconds each, so they are computed on threads of their own, and
callers that ask for the same at once share one answer. One thing can be done here: have a rollout go on, wait or end, by
callers that the rules give the right to control its model.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version
from math import ceil
from ssl import SSLContext
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from penstock.names import CANARY, SERVER_NAME, SHADOW
from penstock_server.access import audit
from penstock_server.access.gate import AccessGate, Caller
from penstock_server.access.policy import EVERY_MODEL, NO_MODEL
from penstock_server.access.settings import ANYBODY
from penstock_server.capacity.estimate import ServerCapacity
from penstock_server.control.capacity import shown as shown_capacity
from penstock_server.control.http_server import CONNECTIONS, HttpRequest, HttpServer, Reply, Stream
from penstock_server.control.rollouts import RolloutView, shown
from penstock_server.control.view import ServerView, shown_workers
from penstock_server.control.webhook import MAX_BODY_BYTES, WebhookReceiver
from penstock_server.control.webhook import PATH as WEBHOOK_PATH
from penstock_server.errors import (
    DeniedError,
    InvalidInputError,
    LimitedError,
    NotFoundError,
    PenstockError,
    UnauthenticatedError,
)
from penstock_server.page import document
from penstock_server.page.feed import Feed, Sections
from penstock_server.rollout.evidence import Snapshot
from penstock_server.rollout.experiment import Experiment
from penstock_server.rollout.plan import weight_in_percent
from penstock_server.sources.combined_source import SourceState

THREADS: Final = 2
"""How many answers are computed at once."""
WAITING: Final = 32
"""How many different answers may be computed or wait for that; more are refused."""
_JSON: Final = "application/json"
_STATUSES: Final = {DeniedError: 403, NotFoundError: 404, InvalidInputError: 400}
_REST: Final = frozenset({"v2", "predict", "invocations", "docs", "openapi.json", ""})
"""Where the paths begin that the REST port answers."""

_HERE: Final = (
    "/ for people, /healthz, /readyz, /metrics, /v1/server, /v1/models, /v1/drift, /v1/labels, /v1/retraining, "
    "/v1/rollouts, /v1/experiments and /v1/shadows"
)
ACTION_HEADER: Final = "x-penstock-action"
"""Must come with what changes something: a browser sends it for a page of another site to no server that has not agreed."""
_SITES: Final = frozenset({"same-origin", "none", ""})
"""What a browser says of where a request comes from, if it is our own page or nobody's."""

Command = Callable[[str, str, str], Awaitable[tuple[str, str]]]
"""Has a model's rollout do something: its name, the command, who asks; gives the version and the stage that it is at."""


class AdminServer:
    """The HTTP server of the supervisor.

    Args:
        view: what the supervisor knows now.
        sources: the state of each source of models.
        registry: the metrics.
        drift: the JSON of /v1/drift for a model and a version, "" for all; raises `NotFoundError`.
        retraining: the JSON of /v1/retraining.
        labels: the JSON of /v1/labels for a model, "" for all; raises `NotFoundError`.
        shadows: the JSON of /v1/shadows.
        evidence: what this server counted of a model's version and champion, for /v1/evidence.
        rollouts: what is known of rollouts, for /v1/rollouts.
        experiments: what is known of versions that share traffic, for /v1/experiments.
        capacity: how much fits, for /v1/server and /v1/models.
        operations: what the page shows, for /v1/live.
        command: has rollouts do something.
        webhooks: takes the registry's webhooks; None where none are taken.
        grpc_address, rest_address: where gRPC and REST are, for clients that come to this port by mistake.
        connections: how many there may be at once.
        tls: the context of each new connection; None for plain text.
        gate: knows who may read what; None where nobody is asked.
        opens_metrics: whether all may read the metrics.
    """

    def __init__(
        self,
        *,
        view: Callable[[], ServerView],
        sources: Callable[[], tuple[SourceState, ...]],
        registry: CollectorRegistry,
        drift: Callable[[str, str], bytes],
        retraining: Callable[[], bytes],
        labels: Callable[[str], bytes],
        shadows: Callable[[], bytes],
        evidence: Callable[[str, str, str], Snapshot],
        rollouts: Callable[[], list[RolloutView]],
        experiments: Callable[[], list[Experiment]],
        capacity: Callable[[], ServerCapacity],
        operations: Sections,
        command: Command,
        grpc_address: str = "another port",
        rest_address: str = "",
        connections: int = CONNECTIONS,
        tls: Callable[[], SSLContext] | None = None,
        gate: AccessGate | None = None,
        opens_metrics: bool = True,
        webhooks: WebhookReceiver | None = None,
    ) -> None:
        self._gate = gate
        self._webhooks = webhooks
        self._opens_metrics = opens_metrics
        self._view = view
        self._sources = sources
        self._registry = registry
        self._drift_of = drift
        self._retraining = retraining
        self._labels_of = labels
        self._shadows = shadows
        self._evidence_of = evidence
        self._rollouts = rollouts
        self._experiments = experiments
        self._capacity = capacity
        self._command = command
        self._server = HttpServer(
            self._answer,
            posts=self._act,
            takes=lambda path: MAX_BODY_BYTES if webhooks is not None and path == WEBHOOK_PATH else 0,
            grpc_hint=f"this is Penstock's HTTP port; gRPC is on {grpc_address.rpartition(':')[2]}",
            connections=connections,
            tls=tls,
        )
        self._rest_hint = (
            f"; predictions over HTTP are on port {rest_address.rpartition(':')[2]}"
            if rest_address
            else "; --rest-port serves predictions over HTTP"
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        self._computing: dict[tuple[str, ...], asyncio.Future[Reply]] = {}
        self._feed = Feed(operations, self._threads)

    def start(self, listening: socket.socket) -> None:
        """Serves the connections of a bound socket, which is the server's from now on."""
        self._server.listen(listening)

    async def close(self) -> None:
        await self._feed.close()
        await self._server.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: HttpRequest) -> Any:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        match request.path:
            case [""]:
                answer: Any = Reply(document.document(), 200, "text/html; charset=utf-8", document.headers())
            case ["healthz"]:
                answer = Reply(b"ok\n")
            case ["readyz"]:
                answer = self._ready()
            case ["metrics"]:
                answer = self._metrics(request.headers.get("accept", ""))
            case ["v1", "caller"]:
                answer = self._known_of(request)
            case ["v1", "live"]:
                answer = self._live(request)
            case ["v1", *what] if (answer := self._known(what, request)) is not None:
                pass
            case _:
                hint = self._rest_hint if request.path[0] in _REST else ""
                answer = Reply(
                    f"there is no {'/'.join(request.path)[:200]!a} here; this port has {_HERE}{hint}\n".encode(), 404
                )
        return answer

    def _webhook(self, webhooks: WebhookReceiver, request: HttpRequest) -> Reply:
        try:
            why = webhooks.receive(request.headers, request.body)
        except InvalidInputError as error:
            return Reply(f"{error}\n".encode(), 503)
        return Reply(f"{why}\n".encode(), 401) if why else Reply(b"ok\n")

    def _known(self, what: list[str], request: HttpRequest) -> Any:
        """What is known, below /v1; None if there is no such thing."""
        answer: Any = None
        match what:
            case ["server"]:
                answer = Reply(msgspec.json.encode(self.server()), content_type=_JSON)
            case ["models"]:
                answer = Reply(msgspec.json.encode(self.state()), content_type=_JSON)
            case ["drift", *model] if len(model) < 2:
                answer = self._drift("".join(model), request.query.get("version", ""))
            case ["labels", *model] if len(model) < 2:
                answer = self._labels("".join(model))
            case ["rollouts", *model] if len(model) < 2:
                answer = self._rollout("".join(model))
            case ["experiments", *model] if len(model) < 2:
                answer = self._experiment("".join(model))
            case ["evidence", model]:
                asked = (request.query.get(name, "") for name in ("version", "champion"))
                answer = Reply(msgspec.json.encode(self._evidence_of(model, *asked)), content_type=_JSON)
            case ["retraining"]:
                answer = Reply(self._retraining(), content_type=_JSON)
            case ["shadows"]:
                answer = self._shared(("shadows",), lambda: Reply(self._shadows(), content_type=_JSON))
        return answer

    def _refusal(self, request: HttpRequest) -> Reply | None:
        """Why a caller may not have what it asks for; None if it may."""
        if self._gate is None:
            return None
        match request.path:
            case [""] | ["healthz"] | ["readyz"] | ["v1", "caller"]:
                return None
            case ["metrics"] if self._opens_metrics:
                return None
            case ["v1", "drift" | "labels" | "rollouts" | "experiments" | "evidence", model] if model:
                about: str | None = model
            case (
                ["metrics"]
                | ["v1", "models" | "retraining" | "shadows" | "rollouts" | "experiments" | "live"]
                | ["v1", "drift" | "labels", *_]
            ):
                about = EVERY_MODEL
            case _:
                about = NO_MODEL
        try:
            caller = self._gate.caller(request.authorization, request.peer)
            self._gate.check(caller, "read", about)
        except PenstockError as error:
            return _refused(error)
        return None

    def _caller(self, request: HttpRequest) -> Caller | None:
        """Who asks; None where nobody is asked. Raises as `Gate.caller`."""
        return None if self._gate is None else self._gate.caller(request.authorization, request.peer)

    def _known_of(self, request: HttpRequest) -> Reply:
        """`/v1/caller`: a caller's name, whether it may read of all models, and of which it may control the rollouts."""
        try:
            caller = self._caller(request)
        except PenstockError as error:
            return _refused(error)
        known = {"asked": False, "name": ANYBODY, "reads": True, "controls": list[str]()}
        if caller is not None:
            reads = caller.rights.allow("read", EVERY_MODEL)
            models = {version.model for version in self._view().versions} | {view.model for view in self._rollouts()}
            # Who may not read of all models does not learn their names here.
            controls = [model for model in sorted(models) if reads and caller.rights.allow("control", model)]
            known = {"asked": True, "name": caller.identity.name, "reads": reads, "controls": controls}
        return Reply(msgspec.json.encode(known), content_type=_JSON)

    def _live(self, request: HttpRequest) -> Reply | Stream:
        """`/v1/live`: what the page shows, as long as the caller may read it."""
        try:
            self._feed.check_room()
        except PenstockError as error:
            return _refused(error)

        def may_look() -> bool:
            try:
                caller = self._caller(request)
            except PenstockError:
                return False
            return caller is None or caller.rights.allow("read", EVERY_MODEL)

        return Stream(
            lambda where: self._feed.open(where, may_look),
            "text/event-stream; charset=utf-8",
            # Proxies that hold answers back, such as nginx, let this one through.
            (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")),
        )

    def _act(self, request: HttpRequest) -> Any:
        """`POST /v1/rollouts/{model}/{command}`: has a rollout go on, wait or end; `POST /v1/webhook`: wakes the poll."""
        if self._webhooks is not None and request.path == WEBHOOK_PATH:
            return self._webhook(self._webhooks, request)  # its signature says who sends it
        match request.path:
            case ["v1", "rollouts", model, word] if model:
                pass
            case _:
                return Reply(b"POST is not answered here, expected GET or HEAD\n", 405)
        if ACTION_HEADER not in request.headers or request.headers.get("sec-fetch-site", "") not in _SITES:
            return Reply(f"expected the header {ACTION_HEADER}, and no page of another site\n".encode(), 403)
        if self._gate is None:
            return Reply(
                b"this server asks nobody who they are, so nothing can be done over HTTP: give it access rules, or use "
                b"penstock rollout\n",
                403,
            )
        who = ""
        try:
            caller = self._gate.caller(request.authorization, request.peer)
            who = caller.identity.name
            self._gate.check(caller, "control", model)
        except PenstockError as error:
            # Of those who are not known nothing is written down: they could fill the log.
            if not isinstance(error, UnauthenticatedError):
                audit.write_down(who=who, action=word, model=model, result=str(error))
            return _refused(error)
        return self._commanded(model, word, who)

    async def _commanded(self, model: str, word: str, who: str) -> Reply:
        try:
            version, stage = await self._command(model, word, who)
        except PenstockError as error:
            audit.write_down(who=who, action=word, model=model, result=str(error))
            return _refused(error)
        audit.write_down(who=who, action=word, model=model, result="done")
        return Reply(msgspec.json.encode({"model": model, "version": version, "stage": stage}), content_type=_JSON)

    def _metrics(self, accept: str) -> Any:
        encode, content_type = choose_encoder(accept)
        return self._shared(("metrics", content_type), lambda: Reply(encode(self._registry), content_type=content_type))

    def _ready(self) -> Reply:
        view = self._view()
        if view.is_ready:
            return Reply(b"ready\n")
        return Reply(f"not ready: {view.not_ready_reason}\n".encode() if view.not_ready_reason else b"not ready\n", 503)

    def _drift(self, model: str, version: str) -> Any:
        """`/v1/drift/{model}?version=V`, where V is a number or an alias such as @champion."""

        def compute() -> Reply:
            try:
                return Reply(self._drift_of(model, version), content_type=_JSON)
            except NotFoundError as error:
                return Reply(msgspec.json.encode({"error": str(error)}), 404, _JSON)

        return self._shared(("drift", model, version), compute)

    def _labels(self, model: str) -> Any:
        """`/v1/labels/{model}`, or of all models."""

        def compute() -> Reply:
            try:
                return Reply(self._labels_of(model), content_type=_JSON)
            except NotFoundError as error:
                return Reply(msgspec.json.encode({"error": str(error)}), 404, _JSON)

        return self._shared(("labels", model), compute)

    def _rollout(self, model: str) -> Any:
        """`/v1/rollouts` and `/v1/rollouts/{model}`: what is known of each rollout."""

        def compute() -> Reply:
            found = [view for view in self._rollouts() if model in ("", view.model)]
            if model and not found:
                return Reply(
                    msgspec.json.encode({"error": f"no version of model {model!r} is being rolled out"}), 404, _JSON
                )
            return Reply(msgspec.json.encode({"rollouts": [shown(view) for view in found]}), content_type=_JSON)

        return self._shared(("rollouts", model), compute)

    def _experiment(self, model: str) -> Any:
        """`/v1/experiments` and `/v1/experiments/{model}`: versions that share traffic, since their weights are in force."""

        def compute() -> Reply:
            found = [report for report in self._experiments() if model in ("", report.model)]
            if model and not found:
                return Reply(
                    msgspec.json.encode({"error": f"no canary of model {model!r} has a share of its traffic"}),
                    404,
                    _JSON,
                )
            return Reply(msgspec.json.encode({"experiments": found}), content_type=_JSON)

        return self._shared(("experiments", model), compute)

    def _shared(self, key: tuple[str, ...], compute: Callable[[], Reply]) -> Any:
        """The answer to all that ask the same while it is computed; refused when too many others wait."""
        running = self._computing.get(key)
        if running is None:
            if len(self._computing) >= WAITING:
                return Reply(b"too many requests at once; try again\n", 503)
            running = asyncio.get_running_loop().run_in_executor(self._threads, compute)
            self._computing[key] = running
            running.add_done_callback(lambda _: self._computing.pop(key, None))
        # Shielded, since others may wait for the same answer when this caller's connection ends.
        return asyncio.shield(running)

    def server(self) -> dict[str, Any]:
        """What /v1/server shows: the release, how much fits, and each worker with its transport."""
        view = self._view()
        return {
            "name": SERVER_NAME,
            "version": installed_version("penstock"),
            "ready": view.is_ready,
            "reason": view.not_ready_reason,
            "capacity": shown_capacity(self._capacity()),
            "workers": shown_workers(view),
        }

    def state(self) -> dict[str, Any]:
        """What /v1/models shows: a row per version and role, weights and samples in percent; how much fits of each model."""
        view = self._view()
        return {
            "models": [
                {
                    "name": version.model,
                    "version": version.version,
                    "role": role,
                    "wanted": version.wanted,
                    "weight": _percent(version.weight) if role == CANARY else None,
                    "sample": _percent(version.fraction) if role == SHADOW else None,
                    "state": version.state,
                    "reason": version.reason,
                    "engine": version.engine,
                }
                for version in view.versions
                for role in version.roles or ("",)
            ]
            + [
                {
                    "name": model,
                    "version": "",
                    "role": "",
                    "weight": None,
                    "sample": None,
                    "state": "UNAVAILABLE",
                    "reason": problem,
                }
                for model, problem in sorted(view.problems.items())
                if all(version.model != model for version in view.versions)
            ],
            "sources": [
                {
                    "name": source.name,
                    "state": source.state,
                    "reason": source.reason,
                    "answered_s": source.answered_s,
                }
                for source in self._sources()
            ],
            "capacity": {model: shown_capacity(room) for model, room in self._capacity().models.items()},
            "workers": shown_workers(view),
            "ready": view.is_ready,
        }


def _refused(error: PenstockError) -> Reply:
    text = f"{error}\n".encode()
    if isinstance(error, UnauthenticatedError):
        return Reply(text, 401, headers=(("WWW-Authenticate", "Bearer"),))
    if isinstance(error, LimitedError):
        return Reply(text, 429, headers=(("Retry-After", str(ceil(error.retry_after_s))),))
    return Reply(text, next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 503))


def _percent(share: float | None) -> float | None:
    return None if share is None else weight_in_percent(share)
