"""The meter against a worker that is simulated: its true costs are known, so its true capacity is."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.names import VersionKey
from penstock_server.batching.cost import Cost
from penstock_server.capacity.estimate import BatchRuns, TurnCost, VersionLoad, capacity, distinct
from penstock_server.capacity.meter import CapacityMeter, MeteredTotals, MeterReading, VersionReading, counted
from penstock_server.metrics.counters import REFUSALS, CountersShape, SharedCounters, new_counters
from penstock_server.metrics.recorder import Recorder

GUESS = TurnCost(25e-6, 10e-6, 2.5e-6)
TRUE = TurnCost(40e-6, 14e-6, 4e-6)
MODEL = Cost(12e-6, 0.5e-6)
RUNS = BatchRuns(MODEL, max_rows=2048)
KEY: VersionKey = ("m", "1")
CONNECTIONS = 8


class Simulated:
    """A worker that is asked for some seconds, with what it would count."""

    def __init__(self, *, turn: TurnCost = TRUE, model: Cost = MODEL, rows: int = 1) -> None:
        self.turn, self.model, self.rows = turn, model, rows
        self.at_s = 100.0
        self.busy = 0.0
        self.counts = MeteredTotals(0, 0, 0, 0, 0, 0)

    def second(self, requests: float, per_turn: float, *, refused: float = 0) -> None:
        turns = requests / per_turn
        model_s = turns * self.model.base_s + requests * self.rows * self.model.row_s
        read = turns * distinct(CONNECTIONS, per_turn)
        self.busy += self.turn.turn_s * turns + self.turn.connection_s * read + self.turn.request_s * requests + model_s
        was = self.counts
        self.counts = MeteredTotals(
            was.asked + requests + refused,
            was.answered + requests,
            was.rows + requests * self.rows,
            was.batches + turns,
            was.model_s + model_s,
            was.short_s,
        )
        self.at_s += 1

    def reading(self, runs: BatchRuns = RUNS, *, pid: int = 7, key: VersionKey = KEY) -> MeterReading:
        return MeterReading(self.at_s, {pid: self.busy}, CONNECTIONS, [VersionReading(key, runs, self.counts, True)])

    @property
    def fits(self) -> float:
        load = VersionLoad(*KEY, replace(RUNS, cost=self.model), 0.0, self.rows)
        return capacity([load], self.turn, workers=1, cores=1, connections=CONNECTIONS).models["m"].requests_per_s


def meter() -> CapacityMeter:
    return CapacityMeter(GUESS, workers=1, cores=1)


def follow(
    found: CapacityMeter, worker: Simulated, seconds: int, requests: float, per_turn: float, refused: float = 0
) -> None:
    for _ in range(seconds):
        worker.second(requests, per_turn, refused=refused)
        found.look(worker.reading())


def test_a_model_has_a_capacity_before_anybody_asks() -> None:
    found = meter()
    found.look(Simulated().reading())
    known = found.known()
    assert known.ratio == 0
    assert known.requests_per_s == known.models["m"].requests_per_s
    assert known.requests_per_s == pytest.approx(Simulated(turn=GUESS).fits)


@settings(max_examples=20)
@given(
    st.floats(1.0, 60.0),
    st.builds(TurnCost, st.floats(15e-6, 50e-6), st.floats(5e-6, 20e-6), st.floats(2e-6, 5e-6)),
    st.sampled_from([1, 16]),
)
def test_a_part_of_the_load_tells_about_how_much_fits(per_turn: float, turn: TurnCost, rows: int) -> None:
    worker, found = Simulated(turn=turn, rows=rows), meter()
    found.look(worker.reading())
    follow(found, worker, 30, 8_000, per_turn)
    # Which of the costs it pays, a load that does not change cannot tell: the guess decides.
    assert 0.4 < found.known().models["m"].requests_per_s / worker.fits < 2.5


@settings(max_examples=20)
@given(st.builds(TurnCost, st.floats(15e-6, 50e-6), st.floats(5e-6, 20e-6), st.floats(2e-6, 5e-6)))
def test_nearer_to_the_end_it_is_exact(turn: TurnCost) -> None:
    worker, found = Simulated(turn=turn), meter()
    found.look(worker.reading())
    follow(found, worker, 20, 0.3 * worker.fits, 5)
    follow(found, worker, 20, 0.8 * worker.fits, 60)
    known = found.known()
    assert known.models["m"].requests_per_s == pytest.approx(worker.fits, rel=0.25)
    assert known.ratio == pytest.approx(0.8, rel=0.3)


def test_a_model_that_is_slower_than_at_load_is_found_out() -> None:
    worker, found = Simulated(model=Cost(3 * MODEL.base_s, 3 * MODEL.row_s), rows=16), meter()
    found.look(worker.reading())
    follow(found, worker, 30, 2_000, 20)
    assert found.known().models["m"].requests_per_s == pytest.approx(worker.fits, rel=0.1)


def test_what_is_refused_is_wanted_too() -> None:
    worker, found = Simulated(), meter()
    found.look(worker.reading())
    follow(found, worker, 30, worker.fits, 900, refused=0.5 * worker.fits)
    assert found.known().ratio == pytest.approx(1.5, rel=0.1)


def test_rates_fade_when_nobody_asks_any_more() -> None:
    worker, found = Simulated(), meter()
    found.look(worker.reading())
    follow(found, worker, 20, 20_000, 20)
    busy = found.known()
    follow(found, worker, 30, 0, 1)
    assert found.known().ratio < busy.ratio / 100
    # What was learned stays.
    assert found.known().models["m"].requests_per_s == pytest.approx(busy.models["m"].requests_per_s, rel=0.02)


def test_a_worker_that_was_replaced_teaches_nothing_wrong() -> None:
    worker, found = Simulated(), meter()
    found.look(worker.reading())
    follow(found, worker, 20, 20_000, 20)
    before = found.turn
    worker.second(20_000, 20)
    worker.busy = 0.05
    found.look(worker.reading(pid=8))
    assert found.turn == before


def test_counters_that_begin_anew_count_nothing_below_zero() -> None:
    worker, found = Simulated(), meter()
    found.look(worker.reading())
    follow(found, worker, 20, 20_000, 20)
    worker.counts = MeteredTotals(0, 0, 0, 0, 0, 0)
    worker.second(20_000, 20)
    found.look(worker.reading())
    assert found.known().ratio > 0


def test_new_files_are_learned_anew_and_what_is_gone_is_forgotten() -> None:
    worker, found = Simulated(rows=16, model=Cost(1e-4, 1e-4)), meter()
    found.look(worker.reading())
    follow(found, worker, 20, 500, 5)
    slow = found.known().models["m"].requests_per_s
    found.look(worker.reading(replace(RUNS, max_rows=1024)))
    assert found.known().models["m"].requests_per_s > 10 * slow
    found.look(worker.reading(key=("n", "1")))
    assert found.known().models.keys() == {"n"}


def test_a_thread_of_its_own_is_not_the_reactor_s_time() -> None:
    runs = BatchRuns(Cost(1e-3, 1e-4), is_inline=False, max_rows=64)
    found = meter()
    reactor = counts = 0.0
    for at in range(30):
        found.look(
            MeterReading(
                float(at),
                {7: reactor},
                CONNECTIONS,
                [
                    VersionReading(
                        KEY, runs, MeteredTotals(counts, counts, counts, counts / 8, counts / 8 * 1.8e-3, 0.0), True
                    )
                ],
            )
        )
        counts += 2000
        reactor += 0.06
    assert found.known().models["m"].requests_per_s == pytest.approx(1 / (1e-4 + 1e-3 / 64), rel=0.15)
    # 250 turns, each of which read some five connections, and 2,000 requests.
    turn = found.turn
    assert 250 * turn.turn_s + 250 * distinct(8, 8) * turn.connection_s + 2000 * turn.request_s == pytest.approx(
        0.06, rel=0.1
    )


def test_short_batches_of_a_version_that_is_alone_run_on_the_reactor() -> None:
    runs = BatchRuns(Cost(1e-4, 1e-4), is_inline=False, max_rows=64, short_rows=8)
    alone, beside = (meter() for _ in range(2))
    for at in range(30):
        n = 1000.0 * at
        own = VersionReading(KEY, runs, MeteredTotals(n, n, n, n, n * 2e-4, n * 2e-4), True)
        other = VersionReading(("n", "1"), RUNS, MeteredTotals(n / 100, n / 100, n / 100, n / 100, n * 1e-8, 0), True)
        alone.look(MeterReading(float(at), {7: at * 0.25}, None, [own]))
        beside.look(MeterReading(float(at), {7: at * 0.25}, None, [own, other]))
    assert beside.turn.turn_s > 2 * alone.turn.turn_s


def recorded(*batches: int, refused: tuple[str, ...] = ()) -> SharedCounters:
    counters = new_counters(CountersShape())
    recorder = Recorder(counters)
    for rows in batches:
        recorder.batch(arrived_s=[9.0], rows=rows, started_s=9.5, ended_s=10.0, features_s=0.25, infer_s=0.5)
    for reason in refused:
        recorder.refused(reason)
    return counters


def test_what_workers_counted_is_added_up() -> None:
    one, other = recorded(1, 8, 100, refused=REFUSALS), recorded(4)
    other.requests[0] += 2
    other.rows[0] += 20
    other.cache[1] += 20  # rows of answers that were kept
    found = counted([one, other], 8)
    assert found == MeteredTotals(asked=8, answered=6, rows=113, batches=4, model_s=3.0, short_s=2.25)


def test_limits_of_streams_are_known() -> None:
    found = [CapacityMeter(GUESS, workers=1, cores=1, max_streams=streams) for streams in (None, 2)]
    for each in found:
        each.look(Simulated().reading())
    free, bound = (each.known().models["m"].requests_per_s for each in found)
    assert bound < 0.7 * free
    assert inf > free > 0
