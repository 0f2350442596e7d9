"""A server's settings: defaults, then a TOML file, then the command line; all checked before anything starts.

Each table of the file is a record, which goes to the worker unchanged. So a new setting is one field of its record.
"""

import os
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from itertools import combinations
from math import inf
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from penstock_server.access.settings import AccessSettings
from penstock_server.batching.limits import BatchLimits
from penstock_server.control.settings import (
    AirlockSettings,
    HttpSettings,
    PreemptionSettings,
    ResidencySettings,
    WatchdogSettings,
    WebhookSettings,
)
from penstock_server.control.verdict import LoadSettings
from penstock_server.cores import cores
from penstock_server.drift.report import RATE, RUN_LENGTH, WINDOW_ROWS, WINDOW_S, DriftRules
from penstock_server.errors import InvalidInputError
from penstock_server.labels.settings import LabelSettings
from penstock_server.models.execution import ExecutionSettings
from penstock_server.per_model import check_own, with_own
from penstock_server.python.settings import PythonSettings
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.response_cache.settings import ResponseCacheSettings
from penstock_server.retraining.settings import RetrainingSettings
from penstock_server.rollout.settings import RolloutSettings
from penstock_server.sources.settings import CacheSettings, FetchSettings, PolicySettings, check_workspace
from penstock_server.tracing.settings import TracingSettings
from penstock_server.transport.address import UNIX, host_of
from penstock_server.transport.settings import NATIVE, TransportName, TransportSettings

MAX_WORKERS: Final = 256
AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class OwnDriftSettings:
    """One model's own values in place of those of `DriftSettings`; None keeps the value there."""

    window_rows: int | None = None
    window_hours: float | None = None
    minimum_effect: float | None = None


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """How drift is watched.

    Attributes:
        window_rows: the sliding window of each version in each worker, in counted rows, which moves by a tenth.
        window_hours: how old the rows in a window may be.
        rate: the share of the features called drifted in a window that may be wrong.
        minimum_effect: the largest population stability index that is no drift; None takes each baseline's own, which
            is 0.1 by default.
        false_alarm_looks: the looks from one false alarm of a version to the next, on average, at least. There is at most one
            look a second, and one needs 100 rows, so the default is a year or more.
        skip_repeats: a request with the rows of a recent one counts for no drift, where the training rows hardly repeat: it
            is a retry, or a probe.
        series: how many features per version have metrics of their own: the most significant ones.
        models: other values for models of these names.
    """

    window_rows: int = WINDOW_ROWS
    window_hours: float = WINDOW_S / 3600
    rate: float = RATE
    minimum_effect: float | None = None
    false_alarm_looks: float = RUN_LENGTH
    series: int = 50
    skip_repeats: bool = True
    models: dict[str, OwnDriftSettings] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.window_rows < 10:
            raise InvalidInputError(f"drift.window_rows is {self.window_rows}, expected at least 10")
        # Written so that NaN is refused as well.
        if not 0 < self.window_hours < inf:
            raise InvalidInputError(f"drift.window_hours is {self.window_hours}, expected more than 0 hours")
        if not 0 < self.rate < 1:
            raise InvalidInputError(f"drift.rate is {self.rate}, expected a share above 0 and below 1")
        if self.minimum_effect is not None and not 0 <= self.minimum_effect < inf:
            raise InvalidInputError(f"drift.minimum_effect is {self.minimum_effect}, expected 0 or more")
        if not 1 <= self.false_alarm_looks < inf:
            raise InvalidInputError(f"drift.false_alarm_looks is {self.false_alarm_looks}, expected 1 look or more")
        if self.series < 0:
            raise InvalidInputError(f"drift.series is {self.series}, expected 0 or more")
        check_own("drift", self.models, self.of)

    def of(self, model: str) -> "DriftSettings":
        """The settings of one model."""
        own = self.models.get(model)
        return self if own is None else with_own(self, own)

    def rules_of(self, model: str) -> DriftRules:
        """How one model's versions are watched."""
        own = self.of(model)
        return DriftRules(
            rate=own.rate,
            minimum_effect=own.minimum_effect,
            run_length=own.false_alarm_looks,
            window_rows=own.window_rows,
            window_s=own.window_hours * 3600,
        )


@dataclass(frozen=True, slots=True)
class OwnModelSettings:
    """The settings of one model that differ from `ModelSettings`."""

    threads: int


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How models run.

    Attributes:
        threads: threads of onnxruntime within one operator of one model. More than one pays only for large models. None leaves
            it to the model's files (`intra_op_thread_count` of a config.pbtxt), and is one without them.
        inline_budget_ms: how long a batch may keep the worker's loop. A version whose batch of 64 rows takes longer has its own
            thread, for long batches and for those beside which another version is asked; batches of other versions grow as
            far as the budget allows.
        models: other threads for models of these names.
        plain_requests: compiled kernels take requests that are like one before, where the transport is the native one. The
            answers are the same without them.
        compiled_models: compiled kernels run a graph in place of onnxruntime for batches for which they are faster, once they
            are proven to give the same answers, to the last bit.
    """

    threads: int | None = None
    inline_budget_ms: float = 1.0
    models: dict[str, OwnModelSettings] = field(default_factory=dict, hash=False)
    plain_requests: bool = True
    compiled_models: bool = True

    def __post_init__(self) -> None:
        for name, own in self.models.items():
            if own.threads < 1:
                raise InvalidInputError(f"serving.models.{name}.threads is {own.threads}, expected at least 1")
        if self.threads is not None and self.threads < 1:
            raise InvalidInputError(f"serving.threads is {self.threads}, expected at least 1")
        # Written so that NaN, which TOML can say, is refused as well.
        if not self.inline_budget_ms >= 0:
            raise InvalidInputError(f"serving.inline_budget_ms is {self.inline_budget_ms}, expected 0 or more")

    @property
    def inline_budget_s(self) -> float:
        return self.inline_budget_ms / 1000

    def threads_of(self, model: str) -> int | None:
        own = self.models.get(model)
        return self.threads if own is None else own.threads


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The server's settings that a worker needs, as the same records.

    The others are left out: a worker gets its settings on its command line, which other users of the machine can read,
    and the registry's address may hold a password.
    """

    workers: int
    transport: TransportName
    batching: BatchLimits
    serving: ModelSettings
    execution: ExecutionSettings
    drift: DriftSettings
    request_log: RequestLogSettings
    grpc: TransportSettings
    python: PythonSettings
    access: AccessSettings
    response_cache: ResponseCacheSettings
    tracing: TracingSettings
    labels: LabelSettings
    residency: ResidencySettings

    def load_settings(self, model: str) -> LoadSettings:
        """How a model is loaded."""
        limits, execution = self.batching.of(model), self.execution.of(model)
        return LoadSettings(
            self.serving.threads_of(model),
            limits.warmed_rows(has_device=execution.has_device),
            limits.batching,
            self.python,
            self.serving.compiled_models,
            execution,
            self.response_cache.of(model),
        )

    def to_json(self) -> str:
        """The settings for a command line."""
        return msgspec.json.encode(self, enc_hook=str).decode()

    @classmethod
    def from_json(cls, text: str) -> "WorkerSettings":
        """What `to_json` gave."""
        return _worker_settings.decode(text)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """A server's settings; the TOML file has the same names, nested as here.

    Attributes:
        registry: MLflow's tracking or registry URI; None follows no registry.
        workspace: the workspace of an MLflow that has them; "" is that of `MLFLOW_WORKSPACE`, else MLflow's default.
        models: the registered models to follow; when empty, all that have an alias of Penstock's.
        model_repository: a folder of `<model>/<version>/model.onnx`.
        host, port: the gRPC address; port 0 picks a free one. The host may be `unix:/path`, and then the port counts for
            nothing.
        http_port: metrics, health and state over HTTP, on the same host.
        rest_port: predictions over HTTP and JSON, on the same host; None serves none. Port 0 picks a free one.
        transport: what serves gRPC: "native" is libnghttp2 with compiled callbacks, and where that is missing, or with
            "completion-queue", gRPC's own core does.
        workers: processes that share the gRPC port; the file may say "auto", which is one per core.
        poll_interval_s: the longest pause between two polls of the registry, while it answers.
        webhook: whether MLflow's webhooks have it polled at once; off by default.
        policy: which versions of a model are served, and which aliases give roles.
        grace_s: how long calls may take to finish when the server stops.
        watchdog_s: a worker whose loop shows no sign of life for this long is replaced.
        run_limit_s: so is one in which a batch on a model's own thread runs for this long.
        airlock: what a new version may use while it is tried in a process of its own.
        residency: whether models are loaded when they are asked for, within a budget of memory; off by default.
        python: whether versions that run Python are served, and what their processes may use.
        access: who may call, and what for.
        tracing: which requests are traced, and where their spans go.
        labels: whether labels are taken, and how long answers are kept for them; off by default.
        batching, serving, execution: a table `batching.models.NAME`, and so on, holds the settings of one model that
            differ.
        response_cache: which answers are kept for requests with the same rows; none by default.
        retraining: which models are trained anew when, and who is told; none by default.
        rollouts: whether this server acts on rollouts, and on whose evidence.
        preemption: whether the cloud is asked if it takes this machine away; nobody is by default.
    """

    registry: str | None = None
    workspace: str = ""
    models: tuple[str, ...] = ()
    model_repository: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8001
    http_port: int = 8002
    rest_port: int | None = None
    workers: int = 1
    transport: TransportName = NATIVE
    poll_interval_s: float = 1.0
    grace_s: float = 30.0
    watchdog_s: float = 10.0
    run_limit_s: float = 60.0
    airlock: AirlockSettings = field(default_factory=AirlockSettings)
    residency: ResidencySettings = field(default_factory=ResidencySettings)
    python: PythonSettings = field(default_factory=PythonSettings)
    batching: BatchLimits = field(default_factory=BatchLimits)
    serving: ModelSettings = field(default_factory=ModelSettings)
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    drift: DriftSettings = field(default_factory=DriftSettings)
    response_cache: ResponseCacheSettings = field(default_factory=ResponseCacheSettings)
    request_log: RequestLogSettings = field(default_factory=RequestLogSettings)
    grpc: TransportSettings = field(default_factory=TransportSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    webhook: WebhookSettings = field(default_factory=WebhookSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    fetch: FetchSettings = field(default_factory=FetchSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    retraining: RetrainingSettings = field(default_factory=RetrainingSettings)
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    preemption: PreemptionSettings = field(default_factory=PreemptionSettings)

    def __post_init__(self) -> None:
        ports = {"port": self.port, "http_port": self.http_port, "rest_port": self.rest_port or 0}
        for name, port in ports.items():
            if not 0 <= port <= 65535:
                raise InvalidInputError(f"{name} is {port}, expected 0 to 65535")
        for (name, port), (other, second) in combinations(ports.items(), 2):
            if port == second != 0:
                raise InvalidInputError(f"{name} and {other} are both {port}, expected two ports")
        check_workspace(self.workspace)
        if not 1 <= self.workers <= MAX_WORKERS:
            raise InvalidInputError(f"workers is {self.workers}, expected 1 to {MAX_WORKERS}")
        if host_of(self.host).startswith(UNIX) and self.workers > 1 and self.transport != NATIVE:
            raise InvalidInputError(
                f"host is {self.host!r} and workers is {self.workers}: over {self.transport}, workers cannot share a socket "
                f"file; set workers to 1 or transport to {NATIVE}, or give a host name"
            )
        # Written so that NaN, which TOML can say, is refused as well.
        if not (0 < self.poll_interval_s < inf and 0 <= self.grace_s < inf):
            raise InvalidInputError(
                "poll_interval_s takes more than 0 seconds and grace_s 0 or more, "
                f"got {self.poll_interval_s} and {self.grace_s}"
            )
        self._check_budgets()
        # A worker's loop comes round once a second when nothing happens.
        for name, limit_s in (("watchdog_s", self.watchdog_s), ("run_limit_s", self.run_limit_s)):
            if not 3 <= limit_s < inf:
                raise InvalidInputError(f"{name} is {limit_s}, expected at least 3 seconds")

    def _check_budgets(self) -> None:
        if self.residency.is_on and self.airlock.memory_budget_mib is not None:
            raise InvalidInputError(
                "residency.memory_budget_mib and airlock.memory_budget_mib are both set, expected one of them: models that do "
                "not fit beside the others are either loaded when they are asked for, or kept out"
            )

    def load_settings(self, model: str) -> LoadSettings:
        """How a model is loaded, by the airlock as by the workers."""
        return self.of_worker.load_settings(model)

    @property
    def watchdog(self) -> WatchdogSettings:
        """When a worker counts as hung; it gets twice the airlock's time for what the airlock has seen to end."""
        return WatchdogSettings(self.watchdog_s, self.run_limit_s, load_s=2 * self.airlock.timeout_s)

    @property
    def grpc_host(self) -> str:
        """Where gRPC is served: a host's name or number, or `unix:/path`."""
        return host_of(self.host)

    @property
    def http_host(self) -> str:
        """Where HTTP is served: the same host, or this machine alone beside a socket file."""
        return "127.0.0.1" if self.grpc_host.startswith(UNIX) else self.grpc_host

    @property
    def of_worker(self) -> WorkerSettings:
        """The part that each worker gets."""
        return WorkerSettings(**{each.name: getattr(self, each.name) for each in fields(WorkerSettings)})


def read_settings(file: Path | None, **overrides: Any) -> ServerSettings:
    """The settings of a TOML file, if one is given, with every override that is not None in place of the file's.

    Raises:
        InvalidInputError: the file cannot be read, or holds a setting that is unknown or out of range; names it.
    """
    values: dict[str, Any] = {} if file is None else _read_toml(file)
    values.update({name: value for name, value in overrides.items() if value is not None})
    if isinstance(workers := values.get("workers"), str):
        if workers != AUTO:
            raise InvalidInputError(f"workers is {workers!r}, expected 1 to {MAX_WORKERS} or {AUTO!r}")
        values["workers"] = min(cores(), MAX_WORKERS)
    try:
        return msgspec.convert(values, ServerSettings, dec_hook=_path, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"settings{'' if file is None else f' in {file}'}: {error}") from error


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise InvalidInputError(f"cannot read the settings file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the settings file {file} is not TOML: {error}") from error
    _refuse_unknown(values, ServerSettings, file)
    return values


def _refuse_unknown(values: dict[str, Any], kind: type, file: Path, table: str = "") -> None:
    """Refuses unknown names, which msgspec ignores, in nested tables too."""
    known = {setting.name: setting.type for setting in fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        expected = ", ".join(table + name for name in sorted(known))
        meant = [near[0] for name in unknown if (near := get_close_matches(name, known, 1))]
        hint = (
            f"; did you mean {', '.join(table + name for name in meant)}?"
            if meant
            else f"; expected some of {expected}"
        )
        raise InvalidInputError(
            f"the settings file {file} has unknown settings {', '.join(table + name for name in unknown)}{hint}"
        )
    for name, value in values.items():
        nested = known[name]
        if isinstance(value, dict) and isinstance(nested, type) and is_dataclass(nested):
            _refuse_unknown(value, nested, file, f"{table}{name}.")
        elif isinstance(value, dict) and (kinds := get_args(nested)) and is_dataclass(kinds[-1]):
            for key, record in value.items():
                if isinstance(record, dict) and isinstance(kinds[-1], type):
                    _refuse_unknown(record, kinds[-1], file, f"{table}{name}.{key}.")


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | os.PathLike):
        return Path(value)
    raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")


_worker_settings: Final = msgspec.json.Decoder(WorkerSettings, dec_hook=_path)
