"""How large a batch and its queue may grow: the settings, and how they resolve for a model of known cost.

The settings file is read into these records, the loader warms up the batches that they allow, and the worker resolves
them once per version.
"""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Final, Literal, get_args

from penstock_server.batching.cost import Cost
from penstock_server.errors import InvalidInputError
from penstock_server.per_model import check_own, with_own

UNIT_ROWS: Final = 64
"""The batch size whose cost decides where a version runs: this many small requests are often in flight."""
INLINE_ROWS: Final = 4096
THREADED_ROWS: Final = 256
"""The largest batches where none are set. Inline, a batch also fits in the budget; larger ones on a thread gain nothing."""
DEVICE_ROWS: Final = 4096
"""The same on a device such as a GPU, which is hardly busy with a few hundred rows."""
THREADED_S: Final = 0.05
THREADED_SINGLES: Final = 4
"""On a thread, a batch takes at most this time, or that of four rows run one by one: requests wait for a whole batch."""
_MEBIBYTE: Final = 1 << 20

Batching = Literal["rows", "request"]
"""Whether requests share batches, or each runs alone."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """One model's own values in place of those of `BatchLimits`; None keeps the value there."""

    max_rows: int | None = None
    max_delay_s: float | None = None
    queue_rows: int | None = None
    queue_requests: int | None = None
    queue_mib: int | None = None
    objective_ms: float | None = None
    batching: Batching | None = None
    ready_rows: int | None = None


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch and its queue may grow, and how soon requests are to be answered.

    Attributes:
        max_rows: rows of one batch; a single request with more runs in slices. None leaves it to what rows cost.
        max_delay_s: how long a request may wait for others to fill its batch, at most half of the time that its deadline
            leaves after the batch's own run. 0 is work-conserving: a batch is what arrived while the last one ran, so
            batches grow with load and no request waits without reason.
        queue_rows, queue_requests, queue_mib: rows, requests and MiB of messages that may wait; a request that would
            exceed one is refused.
        objective_ms: milliseconds from a request's arrival to its answer. A request that would take longer is refused at
            once, and a batch takes at most half of it. None sets no objective: only a request's own deadline counts.
        models: other limits for models of these names.
        batching: "rows" joins requests along the first axis, "request" runs each alone. None leaves it to the publisher,
            and else to a probe at load that compares the answers that rows get together and alone. A graph whose shapes
            allow no batch runs each request alone in any case.
        ready_rows: rows of a batch that waits for no others, whatever `max_delay_s`; None waits for a full one.
    """

    max_rows: int | None = None
    max_delay_s: float = 0.0
    queue_rows: int = 65_536
    queue_requests: int = 4_096
    queue_mib: int = 256
    objective_ms: float | None = None
    models: dict[str, ModelLimits] = field(default_factory=dict, hash=False)
    batching: Batching | None = None
    ready_rows: int | None = None

    def __post_init__(self) -> None:
        least = {"max_rows": self.most_rows, "queue_rows": self.queue_rows}
        least |= {"queue_requests": self.queue_requests, "queue_mib": self.queue_mib}
        if self.ready_rows is not None:
            least["ready_rows"] = self.ready_rows
        for name, value in least.items():
            if value < 1:
                raise InvalidInputError(f"batching.{name} is {value}, expected at least 1")
        if not 0 <= self.max_delay_s < inf:
            raise InvalidInputError(f"batching.max_delay_s is {self.max_delay_s}, expected 0 or more seconds")
        if self.objective_ms is not None and not 0 < self.objective_ms < inf:
            raise InvalidInputError(f"batching.objective_ms is {self.objective_ms}, expected more than 0 milliseconds")
        if self.batching not in (None, *get_args(Batching)):
            raise InvalidInputError(f"batching.batching is {self.batching!r}, expected 'rows' or 'request'")
        check_own("batching", self.models, self.of)

    @property
    def most_rows(self) -> int:
        """The largest batch of a version whose cost is unknown."""
        return THREADED_ROWS if self.max_rows is None else self.max_rows

    def warmed_rows(self, *, has_device: bool) -> int:
        """The largest batch that is to be warmed up, with or without a device."""
        return DEVICE_ROWS if has_device and self.max_rows is None else self.most_rows

    @property
    def queue_bytes(self) -> int:
        return self.queue_mib * _MEBIBYTE

    @property
    def objective_s(self) -> float:
        """The objective in seconds; infinite without one."""
        return inf if self.objective_ms is None else self.objective_ms / 1000

    def of(self, model: str, declared: ModelLimits | None = None) -> "BatchLimits":
        """The limits of one model: its own in the settings, before those that its files declare, before the others."""
        own = self.models.get(model)
        limits = self if declared is None else with_own(self, declared)
        return limits if own is None else with_own(limits, own)


def resolve(
    limits: BatchLimits,
    cost: Cost,
    inline_budget_s: float,
    *,
    is_on_device: bool = False,
    most_rows: int | None = None,
) -> tuple[BatchLimits, bool]:
    """The limits with a batch size, and whether batches run inline.

    A version runs inline when a batch of 64 rows (or of `max_rows`, where that is set) takes no longer than the budget.
    Where no size is set, its batches then grow as far as the budget allows, because each batch has a fixed cost besides
    that of its rows: requests of 64 rows took 285 us of CPU in batches of 64 rows, 174 in batches of 256, 124 in
    batches of 1,024.

    On a device none runs inline: the thread would wait, while it could read requests. `most_rows` is the largest batch that
    the device has memory for.
    """
    if is_on_device:
        wanted = limits.max_rows or cost.rows_within(max(THREADED_S, THREADED_SINGLES * cost.of(1)), DEVICE_ROWS)
        return replace(limits, max_rows=min(wanted, most_rows or wanted)), False
    is_inline = cost.of(limits.max_rows or UNIT_ROWS) <= inline_budget_s
    if limits.max_rows is not None:
        return limits, is_inline
    if is_inline:
        rows = max(UNIT_ROWS, cost.rows_within(inline_budget_s, INLINE_ROWS))
    else:
        rows = cost.rows_within(max(THREADED_S, THREADED_SINGLES * cost.of(1)), THREADED_ROWS)
    return replace(limits, max_rows=rows), is_inline


def slice_rows(limits: BatchLimits, cost: Cost, inline_budget_s: float, *, is_most: bool = False) -> int:
    """The rows of a slice of a large request, by the limits that `resolve` gave.

    A slice is a batch, or what the budget allows where batches are set to be smaller. Each slice costs a hand-off of about
    100 us besides. It is a batch where that is the most: a device may have no memory for more.
    """
    return limits.most_rows if is_most else max(limits.most_rows, cost.rows_within(inline_budget_s, INLINE_ROWS))
