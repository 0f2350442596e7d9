"""What is measured, as data: loads, and how many rounds of what length a run takes."""

from dataclasses import dataclass
from typing import Final

from bench import models, strings


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load.

    Attributes:
        model: one of `models.NAMES`.
        connections, streams: connections, and calls in flight per connection.
        rows: rows per request.
        rate_per_s: None for a closed loop, else the mean rate of Poisson arrivals.
        copies: over how many copies of the model the load is spread.
        load_factor: Poisson arrivals at this multiple of what the server answered in a closed loop just before.
        deadline_s: sent with each call; goodput counts the answers within it.
        idle: so many more connections are open, over which nothing comes.
        beside: a model to which one more caller sends requests at the same time.
        is_keyed: each request has an id and a routing key of its own.
    """

    model: str
    connections: int
    streams: int
    rows: int = 1
    rate_per_s: float | None = None
    copies: int = 1
    load_factor: float | None = None
    deadline_s: float | None = None
    idle: int = 0
    beside: str | None = None
    is_keyed: bool = False

    def __post_init__(self) -> None:
        for model in (self.model, self.beside):
            if model is not None and model not in models.NAMES:
                raise ValueError(f"no model {model!r}; there are {', '.join(models.NAMES)}")
        for name in ("connections", "streams", "rows", "copies"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.idle < 0:
            raise ValueError(f"idle must be at least 0, got {self.idle}")
        for name in ("rate_per_s", "load_factor", "deadline_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or absent, got {value}")
        if self.rate_per_s is not None and self.load_factor is not None:
            raise ValueError("rate_per_s or load_factor must be absent, got both")

    @property
    def name(self) -> str:
        """Its name in tables, results and thresholds, such as `tabular 4x8`."""
        rows = f" {self.rows} rows" if self.rows > 1 else ""
        rate = f" {self.rate_per_s:g}/s" if self.rate_per_s else ""
        copies = f" {self.copies} models" if self.copies > 1 else ""
        share = f" {self.load_factor:g}x capacity" if self.load_factor else ""
        deadline = f" within {self.deadline_s * 1e3:g} ms" if self.deadline_s else ""
        idle = f" beside {self.idle:,} idle" if self.idle else ""
        beside = f" beside {self.beside}" if self.beside else ""
        keys = " with ids and keys" if self.is_keyed else ""
        load = f"{self.model} {self.connections}x{self.streams}"
        return f"{load}{rows}{copies}{rate}{share}{keys}{deadline}{idle}{beside}"

    @property
    def models(self) -> set[str]:
        """The names of all models that get requests."""
        return {*models.copies(self.model, self.copies), *([self.beside] if self.beside else [])}


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often and how long is measured.

    Attributes:
        count: how many times each server is measured, in turn with the others.
        warmup_s, duration_s: of each measurement.
        promotions: how many, where promotions are measured.
    """

    count: int
    warmup_s: float
    duration_s: float
    promotions: int


TABULAR: Final = (
    Scenario("tabular", 1, 1),
    Scenario("tabular", 4, 2),
    Scenario("tabular", 4, 8),
    Scenario("tabular", 8, 8),
    Scenario("tabular", 64, 1),
)
MLP: Final = (Scenario("mlp", 4, 2), Scenario("mlp", 8, 8), Scenario("mlp", 8, 4, rows=64))
_BUSY: Final = Scenario("tabular", 8, 8)
SUITES: Final = {
    "tabular": TABULAR,
    "mlp": MLP,
    "strings": (_BUSY, Scenario("strings", 1, 1), Scenario("strings", 8, 8), Scenario("strings", 8, 4, rows=64)),
    "columns": (_BUSY, *(Scenario(name, 8, 8) for name in strings.PIPELINES)),
    "rows": (Scenario("tabular", 8, 4, rows=64), Scenario("tabular", 4, 2, rows=1024)),
    "wide": (Scenario("wide-10", 8, 8), Scenario("wide-1000", 8, 8)),
    "many": (_BUSY, Scenario("tabular", 8, 8, copies=200)),
    "connections": (_BUSY, *(Scenario("tabular", 8, 8, idle=idle) for idle in (1000, 4000, 10_000))),
    "keys": (_BUSY, Scenario("tabular", 8, 8, deadline_s=1.0, is_keyed=True)),
    "tls": (_BUSY,),
    "routing": (_BUSY,),
    "workers": (_BUSY, Scenario("tabular", 64, 1)),
    "overload": (
        Scenario("mlp", 8, 4, rows=64, load_factor=2.0, deadline_s=0.1),
        Scenario("tabular", 8, 8, rows=64, load_factor=2.0, deadline_s=0.1),
        Scenario("mlp", 8, 8, load_factor=2.0, deadline_s=0.1),
    ),
    "steady": (Scenario("tabular", 8, 8, load_factor=0.5), Scenario("mlp", 8, 8, load_factor=0.5)),
    "beside": (Scenario("tabular", 4, 2), Scenario("tabular", 4, 2, beside="slow")),
}
SUITE_SERVERS: Final = {
    "strings": ("penstock",),
    "columns": ("penstock",),
    "connections": ("penstock", "penstock-completion-queue"),
    "keys": ("penstock",),
    "tls": ("penstock", "penstock-tls"),
    "routing": ("penstock", "penstock-idle-roles", "penstock-canary-shadow"),
    "workers": ("penstock", "penstock-2-workers"),
}
"""The servers of a suite, if they are not the baseline and Penstock."""

FULL: Final = Rounds(count=5, warmup_s=0.5, duration_s=2.0, promotions=50)
QUICK: Final = Rounds(count=3, warmup_s=0.25, duration_s=0.75, promotions=10)
