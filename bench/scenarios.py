"""What is measured, as data: loads, and how much effort a run takes. Decides nothing; read by `__main__`."""

from dataclasses import dataclass
from typing import Final

from bench import models


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load.

    Attributes:
        model: which of `models.COLUMNS`.
        connections, streams: connections, and calls in flight on each.
        rows: of one request.
        rate_per_s: None for a closed loop, else the mean rate of Poisson arrivals.
    """

    model: str
    connections: int
    streams: int
    rows: int = 1
    rate_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.model not in models.COLUMNS:
            raise ValueError(f"no model {self.model!r}; there are {', '.join(models.COLUMNS)}")
        for name in ("connections", "streams", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.rate_per_s is not None and not self.rate_per_s > 0:
            raise ValueError(f"rate_per_s must be positive or absent, got {self.rate_per_s}")

    @property
    def name(self) -> str:
        """Its name in tables, results and floors, such as `tabular 4x8`."""
        rows = f" {self.rows} rows" if self.rows > 1 else ""
        rate = f" {self.rate_per_s:g}/s" if self.rate_per_s else ""
        return f"{self.model} {self.connections}x{self.streams}{rows}{rate}"


@dataclass(frozen=True, slots=True)
class Effort:
    """How often and how long.

    Attributes:
        rounds: each server is measured so many times, in turn with the others.
        warmup_s, duration_s: of each measurement.
        promotions: in the scenario of that name.
    """

    rounds: int
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
MLP: Final = (Scenario("mlp", 4, 2), Scenario("mlp", 8, 8))
SUITES: Final = {"tabular": TABULAR, "mlp": MLP}

FULL: Final = Effort(rounds=5, warmup_s=0.5, duration_s=2.0, promotions=50)
QUICK: Final = Effort(rounds=3, warmup_s=0.25, duration_s=0.75, promotions=10)
