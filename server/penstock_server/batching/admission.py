"""Whether a request can be answered in time, from what waits before it: refused at the door, it costs next to nothing.

Pure arithmetic over a cost line; the queue asks, and the lane that owns it chooses the error.
"""

from math import ceil

from penstock_server.batching.cost import Cost


def batch_rows(cost: Cost, objective_s: float, max_rows: int) -> int:
    """The largest batch for an objective: one that takes half of it, for a request may just have missed another."""
    return max_rows if objective_s == float("inf") else cost.rows_within(objective_s / 2, max_rows)


def finish_s(start_s: float, cost: Cost, *, rows: int, largest: int) -> float:
    """When a request whose own rows are the last of `rows` will be answered, if batches hold `largest` rows.

    Behind a full batch its own is taken as full too. Otherwise those who fill it later would make it late, or it would
    keep its batch small; under overload that happens to every batch.
    """
    batches = ceil(rows / largest)
    return start_s + (cost.of(rows) if batches <= 1 else batches * cost.of(largest))


def finish_singly_s(start_s: float, cost: Cost, *, rows: int, requests: int) -> float:
    """The same for a model whose requests run one by one."""
    return start_s + requests * cost.base_s + rows * cost.row_s


def is_patient(arrived_s: float, end_s: float, deadline_s: float, *, own_s: float) -> bool:
    """Whether a request waits for no more than half of what its deadline leaves beside its own run of `own_s`.

    The other half belongs to what is not seen here: under overload a request waits in the socket before it is read, and
    its answer waits in another. A queue that reaches to the deadline answers everybody just too late.
    """
    return 2 * (end_s - own_s - arrived_s) <= deadline_s - arrived_s - own_s
