from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.cost import Cost
from penstock_server.capacity.estimate import (
    CORES,
    MOST_RATIO,
    REACTOR,
    BatchRuns,
    TurnCost,
    VersionLoad,
    capacity,
    costs,
    distinct,
)

FREE = TurnCost(0.0, 0.0, 0.0)
TURN = TurnCost(20e-6, 10e-6, 4e-6)
INLINE = BatchRuns(Cost(10e-6, 1e-6), max_rows=4096)
THREADED = BatchRuns(Cost(1e-3, 100e-6), is_inline=False, max_rows=256)

runs = st.builds(
    BatchRuns,
    st.builds(Cost, st.floats(0, 1e-3), st.floats(1e-8, 1e-3)),
    st.booleans(),
    st.integers(1, 4096),
    st.just(0),
    st.sampled_from([inf, 0.005, 0.02, 0.2]),
    st.booleans(),
)
# A counter that moved at all did so by one within a window.
rates = st.just(0.0) | st.floats(1e-6, 1e4)
turns = st.builds(TurnCost, st.floats(1e-6, 1e-4), st.floats(1e-6, 5e-5), st.floats(1e-6, 5e-4))
loads = st.lists(
    st.builds(VersionLoad, st.sampled_from("abc"), st.sampled_from("12"), runs, rates, st.floats(0, 300)),
    min_size=1,
    max_size=4,
    unique_by=lambda load: (load.model, load.version),
)


@pytest.mark.parametrize(
    ("load", "turn", "connections", "expected"),
    [
        # The model alone: one row in full batches.
        (VersionLoad("m", "1", INLINE), FREE, 1, {REACTOR: 1e-6 + 10e-6 / 4096}),
        # A request larger than a batch runs in slices of half its rows.
        (
            VersionLoad("m", "1", replace(INLINE, max_rows=64), request_rows=80),
            FREE,
            1,
            {REACTOR: 80e-6 + 2 * 10e-6},
        ),
        # An objective of 4 ms leaves 2 ms for a batch: 10 rows beside 1 ms that each batch costs.
        (
            VersionLoad("m", "1", replace(THREADED, objective_s=0.004)),
            FREE,
            1,
            {("m", "1"): 100e-6 + 1e-3 / 10, CORES: 100e-6 + 1e-3 / 10},
        ),
        # Requests that do not share batches pay for one each.
        (VersionLoad("m", "1", replace(THREADED, is_joined=False)), FREE, 1, {("m", "1"): 1.1e-3}),
        # Those that the response cache answers run no model.
        (VersionLoad("m", "1", THREADED, request_rows=0), FREE, 1, {("m", "1"): 0.0}),
        # As many connections as requests: each pays for its own.
        (VersionLoad("m", "1", BatchRuns(Cost(0, 0))), TurnCost(0, 10e-6, 4e-6), inf, {REACTOR: 14e-6}),
        # One connection, and turns of 20 ms: what it costs is shared by all that come in one.
        (
            VersionLoad("m", "1", BatchRuns(Cost(0, 0), max_rows=10_000)),
            TurnCost(0, 1e-3, 4e-6),
            1,
            {REACTOR: 20e-3 / (19e-3 / 4e-6)},
        ),
    ],
)
def test_what_a_request_takes_at_full_load(
    load: VersionLoad, turn: TurnCost, connections: float, expected: dict[tuple[str, ...], float]
) -> None:
    found = costs(load, turn, connections=connections)
    for place, cost_s in expected.items():
        assert found[place] == pytest.approx(cost_s, rel=1e-6)


def test_few_requests_in_flight_keep_turns_short_and_dear() -> None:
    free = costs(VersionLoad("m", "1", INLINE), TURN, connections=8)
    bound = costs(VersionLoad("m", "1", INLINE), TURN, connections=8, most_requests=16)
    assert bound[REACTOR] == pytest.approx(free[REACTOR] + 100e-6 / 16, rel=0.05)


def test_a_full_batch_ends_a_turn() -> None:
    """Requests of 64 rows fill a batch soon, and each batch has its turn's costs."""
    load = VersionLoad("m", "1", replace(INLINE, max_rows=4096), request_rows=64)
    per_batch = TURN.turn_s + 8 * TURN.connection_s + 10e-6
    assert costs(load, TURN, connections=8)[REACTOR] == pytest.approx(4e-6 + 64e-6 + per_batch / 64)


def test_a_queue_bounds_how_many_share_a_turn() -> None:
    load = VersionLoad("m", "1", INLINE, request_rows=64)
    free = costs(load, TURN, connections=8)
    for queue in ({"queue_requests": 16}, {"queue_rows": 16 * 64}):
        bound = costs(replace(load, runs=replace(INLINE, **queue)), TURN, connections=8)
        assert bound[REACTOR] == pytest.approx(free[REACTOR] + 100e-6 / 16, rel=0.05)


def test_a_transport_that_costs_nothing_would_promise_too_much() -> None:
    """Small models cost less than what brings their requests: without it the capacity is several times too high."""
    load = VersionLoad("m", "1", INLINE)
    alone = capacity([load], FREE, workers=1, cores=1, connections=8).models["m"].requests_per_s
    assert alone > 4 * capacity([load], TURN, workers=1, cores=1, connections=8).models["m"].requests_per_s


@pytest.mark.parametrize(("workers", "cores", "times"), [(1, 8, 1), (2, 8, 2), (4, 8, 4), (4, 2, 2), (1, 0.5, 0.5)])
def test_workers_count_as_far_as_there_are_cores(workers: int, cores: float, times: float) -> None:
    load = VersionLoad("m", "1", INLINE)
    one = capacity([load], TURN, workers=1, cores=8).models["m"].requests_per_s
    assert capacity([load], TURN, workers=workers, cores=cores).models["m"].requests_per_s == pytest.approx(times * one)


def test_others_leave_what_they_do_not_use() -> None:
    asked = VersionLoad("m", "1", INLINE, 50_000)
    alone = (
        capacity([replace(asked, requests_per_s=0)], TURN, workers=1, cores=1, connections=8).models["m"].requests_per_s
    )
    found = capacity([asked, VersionLoad("n", "1", INLINE)], TURN, workers=1, cores=1, connections=8)
    assert found.ratio == pytest.approx(50_000 / alone)
    assert found.requests_per_s == pytest.approx(alone)
    assert found.models["m"].requests_per_s == pytest.approx(alone)
    assert found.models["n"].requests_per_s == pytest.approx(alone - 50_000)
    assert found.models["n"].ratio == 0


def test_a_thread_that_is_full_leaves_the_reactor_to_others() -> None:
    full = 1 / costs(VersionLoad("slow", "1", THREADED), FREE, connections=1)["slow", "1"]
    found = capacity(
        [VersionLoad("slow", "1", THREADED, full), VersionLoad("m", "1", INLINE)],
        TURN,
        workers=1,
        cores=4,
        connections=8,
    )
    assert (found.ratio, found.models["slow"].ratio) == (pytest.approx(1), pytest.approx(1))
    assert found.models["m"].requests_per_s > 100_000


def test_refusals_raise_the_ratio_above_one_up_to_a_bound() -> None:
    load = VersionLoad("m", "1", INLINE)
    fit = capacity([load], TURN, workers=1, cores=1).models["m"].requests_per_s
    half_more = capacity([replace(load, requests_per_s=1.5 * fit)], TURN, workers=1, cores=1)
    assert (half_more.ratio, half_more.models["m"].ratio) == (pytest.approx(1.5), pytest.approx(1.5))
    assert half_more.requests_per_s == pytest.approx(fit)
    storm = capacity([replace(load, requests_per_s=500 * fit)], TURN, workers=1, cores=1)
    assert storm.ratio == storm.models["m"].ratio == MOST_RATIO


def test_what_several_idle_models_take_together_is_not_known() -> None:
    one, other = VersionLoad("m", "1", INLINE), VersionLoad("n", "1", THREADED)
    assert capacity([one, other], TURN, workers=1, cores=1).requests_per_s is None
    only = capacity([one], TURN, workers=1, cores=1)
    assert only.requests_per_s == only.models["m"].requests_per_s
    assert capacity([], TURN, workers=1, cores=1).models == {}


@given(loads, turns, st.integers(1, 8), st.sampled_from([1.0, 8.0, inf]))
def test_a_model_driven_to_what_fits_fills_the_server(
    loads: list[VersionLoad], turn: TurnCost, workers: int, connections: float
) -> None:
    found = capacity(loads, turn, workers=workers, cores=workers, connections=connections)
    for model, room in found.models.items():
        asked = sum(load.requests_per_s for load in loads if load.model == model)
        if found.ratio >= 1 or not asked:
            continue
        assert room.requests_per_s >= asked * (1 - 1e-9)
        more = [
            replace(load, requests_per_s=load.requests_per_s * room.requests_per_s / asked)
            if load.model == model
            else load
            for load in loads
        ]
        driven = capacity(more, turn, workers=workers, cores=workers, connections=connections)
        assert driven.ratio == pytest.approx(1, rel=1e-6)
        assert driven.models[model].ratio == pytest.approx(1, rel=1e-6)


@given(loads, turns, st.floats(1, 10))
def test_dearer_is_never_less_used(loads: list[VersionLoad], turn: TurnCost, times: float) -> None:
    dearer = TurnCost(turn.turn_s, turn.connection_s, turn.request_s * times)
    found = [capacity(loads, each, workers=1, cores=1, connections=8).ratio for each in (turn, dearer)]
    assert found[0] <= found[1] * (1 + 1e-9)


@given(runs, st.floats(1, 300))
def test_a_tighter_objective_lets_no_more_fit(runs: BatchRuns, rows: float) -> None:
    def fit(objective_s: float) -> float:
        load = VersionLoad("m", "1", replace(runs, objective_s=objective_s), 0.0, rows)
        return capacity([load], TURN, workers=1, cores=2, connections=8).models["m"].requests_per_s

    # 40 ms are what a server without an objective keeps.
    assert fit(0.005) <= fit(0.02) * (1 + 1e-6)
    assert fit(0.02) <= fit(inf) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("connections", "requests", "expected"), [(1, 50, 1), (8, 1, 1), (8, 1e6, 8), (inf, 7, 7), (2, 2, 1.5)]
)
def test_connections_that_requests_come_over(connections: float, requests: float, expected: float) -> None:
    assert distinct(connections, requests) == pytest.approx(expected)
