import numpy as np
import pytest

from bench.drift import alarms
from bench.drift.alarms import COLUMNS, EQUAL, Clumps, Traffic


def test_clumps_are_as_long_as_they_say() -> None:
    taken = np.concatenate([Clumps(np.random.default_rng(0), 7).take(rows, EQUAL) for rows in (700,)])
    assert (taken.reshape(100, 7) == taken.reshape(100, 7)[:, :1]).all()
    clumps = Clumps(np.random.default_rng(0), 7)
    assert (np.concatenate([clumps.take(50, EQUAL) for _ in range(14)]) == taken).all()


def test_days_move_the_shares_by_as_much_as_they_say() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        moved = Traffic(day_rows=100, day_index=0.05)._day(rng, EQUAL)
        found.append(((moved - EQUAL) * np.log(moved / EQUAL)).sum())
    assert np.mean(found) == pytest.approx(0.05, rel=0.1)


@pytest.mark.long
def test_training_rows_in_the_order_of_time_know_their_days() -> None:
    traffic = Traffic(day_rows=2000, day_index=0.2)
    assert (alarms.reference(np.random.default_rng(0), traffic).dispersion > 5).all()
    shuffled = Traffic(day_rows=2000, day_index=0.2, is_shuffled=True)
    assert (alarms.reference(np.random.default_rng(0), shuffled).dispersion < 2).all()


@pytest.mark.long
def test_strong_drift_is_found_soon_and_quiet_rows_raise_no_alarm() -> None:
    found = alarms.delay(np.random.default_rng(0), 1.0, 1000.0, 1, 10)
    assert (found.rows <= 400, found.since_off) == (True, 0)
    assert alarms.false_alarms(np.random.default_rng(0), Traffic(), 100) == 0


@pytest.mark.long
def test_a_probe_is_no_drift_where_repeats_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "WEEK_S", 1500)
    assert alarms.week_of_probes(np.random.default_rng(0), skips_repeats=True) == 0
    assert alarms.week_of_probes(np.random.default_rng(0), skips_repeats=False) == COLUMNS
