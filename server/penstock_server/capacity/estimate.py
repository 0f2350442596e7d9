"""How many requests a second fit, by what each costs at full load: pure arithmetic over what was measured.

A worker's reactor comes round in turns: it reads what has come, runs a batch of each version, and sends the answers. A turn has
a fixed cost, and a part that each request adds. Under load turns grow, and more requests share the fixed cost; so a request
costs less than at rest, and a load that is multiplied by what is idle now would be far off. Turns may grow as long as requests
are answered within the objective: who comes when a turn has begun waits for its end, and is answered at the end of the next,
so that a turn may take half of the objective.

A version with a thread of its own has a second place where it may be short: its batches run there one after another, and take
half of the objective at most too. And all of it shares the cores. The place that is used most says how much is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Final

from penstock_server.batching.cost import Cost, batch_rows

TURN_S: Final = 0.02
"""How long a turn may take where no objective says it: requests are answered within 40 ms then."""

MOST_RATIO: Final = 2.0
"""The highest ratio that is told: who is refused asks again at once, so refusals do not say how much is wanted."""

Place = tuple[str, ...]
REACTOR: Final[Place] = ("reactor",)
CORES: Final[Place] = ("cores",)


@dataclass(frozen=True, slots=True)
class TurnCost:
    """What a turn of the reactor takes apart from running models: `turn_s + connection_s * connections + request_s * requests`.

    Attributes:
        turn_s: of each turn: waking up, stepping the scheduler.
        connection_s: of each connection that has requests in the turn: it is read and sent to once.
        request_s: of each request: HTTP/2, decoding, encoding, counting.
    """

    turn_s: float
    connection_s: float
    request_s: float


@dataclass(frozen=True, slots=True)
class BatchRuns:
    """How a version runs its batches, as its worker has settled it at load.

    Attributes:
        cost: what a batch takes, fitted at warm-up; zero where nothing is known.
        is_inline: whether it runs on the reactor, or on a thread of its own.
        max_rows: of a batch.
        short_rows: a batch with a thread of its own runs on the reactor all the same up to so many rows, while no other version
            is asked.
        objective_s: seconds from a request to its answer; infinite where none is set.
        is_joined: whether requests share batches.
        queue_requests, queue_rows: that may wait.
    """

    cost: Cost
    is_inline: bool = True
    max_rows: int = 1
    short_rows: int = 0
    objective_s: float = inf
    is_joined: bool = True
    queue_requests: float = inf
    queue_rows: float = inf


@dataclass(frozen=True, slots=True)
class VersionLoad:
    """What a version is asked now.

    Attributes:
        requests_per_s: of all workers together, with those that were refused because there were too many.
        request_rows: rows that each of them runs; those answered from the response cache run none.
    """

    model: str
    version: str
    runs: BatchRuns
    requests_per_s: float = 0.0
    request_rows: float = 1.0


@dataclass(frozen=True, slots=True)
class Room:
    """How much of something there is.

    Attributes:
        requests_per_s: that fit within the objective, while all others are asked as much as now.
        ratio: how much of that is used: 1 when no more fits, more than 1 while requests are refused, at most `MOST_RATIO`.
    """

    requests_per_s: float
    ratio: float


@dataclass(frozen=True, slots=True)
class ServerCapacity:
    """The capacity of a server.

    Attributes:
        ratio: how much of the scarcest place is used.
        requests_per_s: how many fit of the kind that is asked now; None while nothing is asked of several models.
        models: by name, each of which a version can be asked.
    """

    ratio: float = 0.0
    requests_per_s: float | None = None
    models: Mapping[str, Room] = field(default_factory=dict)


def costs(load: VersionLoad, turn: TurnCost, *, connections: float, most_requests: float = inf) -> dict[Place, float]:
    """Seconds that a request takes of each place at full load.

    Args:
        load: the version; how much it is asked does not matter.
        turn: what the reactor's turns take.
        connections: of a worker; infinite if each request has its own.
        most_requests: that may be in flight at a worker.
    """
    runs, rows = load.runs, max(load.request_rows, 0.0)
    turn_s = TURN_S if runs.objective_s == inf else runs.objective_s / 2
    batch = _batch_of(runs, rows, turn_s)
    on_model = runs.cost.row_s * rows + (runs.cost.base_s / batch if rows else 0.0)
    inline_s = on_model if runs.is_inline else 0.0
    requests = _requests_of(turn, turn_s, turn.request_s + inline_s, connections)
    # A turn is told by its batch: the next one of the same version costs as much again.
    requests = max(1.0, min(requests, batch, most_requests, runs.queue_requests, runs.queue_rows / max(rows, 1e-9)))
    reactor_s = turn.request_s + inline_s + (turn.turn_s + turn.connection_s * min(connections, requests)) / requests
    if runs.is_inline:
        return {REACTOR: reactor_s, CORES: reactor_s}
    return {REACTOR: reactor_s, (load.model, load.version): on_model, CORES: reactor_s + on_model}


def _batch_of(runs: BatchRuns, rows: float, turn_s: float) -> float:
    """How many requests share the largest batch that there may be; less than 1 where one runs in slices."""
    if rows == 0:
        return inf
    if not runs.is_joined:
        return 1.0
    largest = batch_rows(runs.cost, 2 * turn_s, max(1, runs.max_rows))
    # Requests are not cut to fill a batch, but those that are larger than one run in slices.
    return largest // rows if rows <= largest else 1 / ceil(rows / largest)


def _requests_of(turn: TurnCost, turn_s: float, request_s: float, connections: float) -> float:
    """How many requests a turn of this length answers."""
    many = (turn_s - turn.turn_s) / max(request_s + turn.connection_s, 1e-9)
    if many <= connections:
        return many
    return (turn_s - turn.turn_s - turn.connection_s * connections) / max(request_s, 1e-9)


def capacity(
    loads: Sequence[VersionLoad],
    turn: TurnCost,
    *,
    workers: int,
    cores: float,
    connections: float = inf,
    most_requests: float = inf,
) -> ServerCapacity:
    """What fits on a server.

    Args:
        loads: of every version that answers.
        turn: what the reactors' turns take.
        workers: how many there are.
        cores: that they may use.
        connections: of a worker.
        most_requests: that may be in flight at a worker.
    """
    taken = [costs(load, turn, connections=connections, most_requests=most_requests) for load in loads]
    sizes = {place: float(workers) for each in taken for place in each} | {CORES: max(cores, 1e-3)}
    used = dict.fromkeys(sizes, 0.0)
    for load, each in zip(loads, taken, strict=True):
        for place, cost_s in each.items():
            used[place] += load.requests_per_s * cost_s / sizes[place]
    models: dict[str, Room] = {}
    for model in dict.fromkeys(load.model for load in loads):
        own = [(load, each) for load, each in zip(loads, taken, strict=True) if load.model == model]
        models[model] = _room(own, used, sizes)
    ratio, asked = max(used.values(), default=0.0), sum(load.requests_per_s for load in loads)
    if ratio > 0:
        return ServerCapacity(min(ratio, MOST_RATIO), asked / ratio, models)
    only = next(iter(models.values())).requests_per_s if len(models) == 1 else None
    return ServerCapacity(0.0, only, models)


def _room(
    own: Sequence[tuple[VersionLoad, Mapping[Place, float]]],
    used: Mapping[Place, float],
    sizes: Mapping[Place, float],
) -> Room:
    """What fits of one model beside the others, its versions in the shares that they have now; evenly if none is asked."""
    asked = sum(load.requests_per_s for load, _ in own)
    shares = [load.requests_per_s / asked if asked else 1 / len(own) for load, _ in own]
    cost: dict[Place, float] = {}
    for share, (_, each) in zip(shares, own, strict=True):
        for place, cost_s in each.items():
            cost[place] = cost.get(place, 0.0) + share * cost_s / sizes[place]
    cost = {place: cost_s for place, cost_s in cost.items() if cost_s > 0}
    most_used = max((used[place] for place in cost), default=0.0)
    if most_used >= 1:
        return Room(asked / most_used, min(most_used, MOST_RATIO) if asked else 0.0)
    fit = asked + min(((1 - used[place]) / cost_s for place, cost_s in cost.items()), default=0.0)
    return Room(fit, asked / fit if asked else 0.0)


def distinct(connections: float, requests: float) -> float:
    """How many connections so many requests come over, if each comes over any of them."""
    if connections == inf:
        return requests
    others: float = (1 - 1 / max(connections, 1.0)) ** requests
    return connections * (1 - others)
