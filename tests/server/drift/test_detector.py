"""The rates and delays themselves are simulated in `bench.drift`."""

from typing import Any

import msgspec
import numpy as np
import pytest

from penstock_server.drift.baseline import AnswerBaseline, Baseline, ClassBaseline, NumberBaseline, StringBaseline
from penstock_server.drift.detector import Detector
from penstock_server.drift.reference import Reference, reference_of

BINS = 10
YEAR = 31_536_000.0


def reference(dispersion: float = 1.0, rows: int = 50_000, unseen: int = 0, finer: tuple[float, ...] = ()) -> Reference:
    """A number column of equal bins, and a string column of three values."""
    share = rows // BINS
    number = NumberBaseline(
        "delay", tuple(map(float, range(BINS - 1))), (share,) * BINS, (0.0,) * BINS,
        smallest=0.0, largest=9.0, dispersion=dispersion, finer=finer,
    )  # fmt: skip
    text = StringBaseline("carrier", ("A", "B", "C"), (rows // 2, rows // 4, rows // 4), unseen=unseen)
    return reference_of(Baseline((number, text), "digest"))


class Traffic:
    """Slices of rows, and the alarms that a detector raises."""

    def __init__(self, known: Reference, *, run_length: float = YEAR, seed: int = 0) -> None:
        self.known = known
        self.detector = Detector(known, known.minimum_effect, run_length)
        self.rng = np.random.default_rng(seed)
        self.at = 0
        self.usual = known.cells / known.cells.sum(axis=1, keepdims=True)

    def slices(self, number: int, shares: Any = None, rows: int = 100, once: int = 1) -> Any:
        """Some slices, `once` rows alike at a time; what is detected after them."""
        shares = self.usual if shares is None else shares
        for _ in range(number):
            cells = np.array([once * self.rng.multinomial(rows // once, one) for one in shares])
            self.detector.look(cells, float(self.at))
            self.at += 1
        return self.detector.detected

    def moved(self, share: float) -> Any:
        """The usual shares, with so much of the number column's in its first bin."""
        found = self.usual.copy()
        found[0, :BINS] = (1 - share) / (BINS - 1)
        found[0, 0] = share
        return found

    def with_unseen(self, share: float) -> Any:
        found = self.usual.copy()
        found[1] *= 1 - share
        found[1, -1] = share
        return found


def test_an_alarm_has_the_name_of_the_answer_that_drifts() -> None:
    number = NumberBaseline("delay", (0.0,), (5000, 5000), (0.0, 0.0), smallest=-1.0, largest=1.0)
    label = ClassBaseline("label", (0, 1), (5000, 5000))
    answer = AnswerBaseline("scores", "largest", msgspec.structs.replace(number, name="confidence"))
    for predictions, name in ((label, ""), (None, "delay")):
        known = reference_of(Baseline((number,), "digest", predictions, (answer,)))
        traffic = Traffic(known)
        for at, expected in ((len(known.names) - 1, "confidence"), (known.columns - (name != ""), name)):
            moved = traffic.usual.copy()
            moved[at, :2] = 0.05, 0.95
            traffic.slices(20)
            assert set(traffic.slices(8, moved).drifted) >= {expected}
            traffic = Traffic(known)


def test_usual_rows_raise_no_alarm() -> None:
    assert not Traffic(reference(), run_length=1000.0).slices(300).drifted


def test_an_alarm_comes_within_hundreds_of_rows_and_says_since_when() -> None:
    traffic = Traffic(reference())
    traffic.slices(100)
    found = traffic.slices(5, traffic.moved(0.5))
    assert found.drifted.keys() == {"delay"}
    alarm = found.drifted["delay"]
    assert alarm.since_s == 100
    assert alarm.once_in_looks > YEAR
    assert not found.unseen


@pytest.mark.long
def test_the_beginning_of_a_slow_alarm_is_found() -> None:
    traffic = Traffic(reference())
    traffic.slices(300)
    found = traffic.slices(100, traffic.moved(0.3))
    assert found.drifted["delay"].since_s == pytest.approx(300, abs=15)


def test_what_is_tolerated_raises_no_alarm() -> None:
    known = reference()
    traffic = Traffic(known, run_length=1000.0)
    tolerated = traffic.moved(0.17)
    index = float(
        ((tolerated - traffic.usual)[0, :BINS] * np.log((tolerated / np.maximum(traffic.usual, 1e-9))[0, :BINS])).sum()
    )
    assert 0.03 < index < 0.1
    assert not traffic.slices(300, tolerated).drifted


@pytest.mark.long
@pytest.mark.parametrize("once", [10, 50])
def test_rows_that_hang_together_raise_no_alarm(once: int) -> None:
    traffic = Traffic(reference(), run_length=1000.0)
    assert not traffic.slices(200, once=once).drifted


def test_rows_that_hang_together_drift_too() -> None:
    traffic = Traffic(reference())
    traffic.slices(100, once=10)
    assert traffic.slices(60, traffic.moved(0.5), once=10).drifted.keys() == {"delay"}


def test_nothing_is_said_before_it_is_known_how_rows_hang_together() -> None:
    traffic = Traffic(reference())
    assert not traffic.slices(5, traffic.moved(0.9)).drifted
    assert traffic.slices(7, traffic.moved(0.9)).drifted.keys() == {"delay"}


def test_training_rows_that_vary_in_time_are_tolerant() -> None:
    def delay(dispersion: float) -> int:
        traffic = Traffic(reference(dispersion))
        traffic.slices(50)
        shares = traffic.moved(0.4)
        while not traffic.slices(1, shares).drifted:
            assert traffic.at < 1000
        return traffic.at - 50

    assert 2 * delay(1.0) < delay(20.0) < 40 * delay(1.0)


def test_short_stretches_vary_as_they_did_in_training() -> None:
    """Blocks of 2,500 rows vary ten times as much as independent rows would; so do those of 625, in storms, or hardly."""

    def alarms(finer: tuple[float, ...]) -> bool:
        traffic = Traffic(reference(10.0, finer=finer))
        traffic.slices(100)
        return bool(traffic.slices(12, traffic.moved(0.4)).drifted)

    assert alarms((1.0, 1.0))
    assert not alarms((10.0, 10.0))


def test_an_alarm_ends_after_enough_quiet_rows_and_may_come_back() -> None:
    traffic = Traffic(reference())
    traffic.slices(50)
    assert traffic.slices(10, traffic.moved(0.5)).drifted
    assert traffic.slices(3).drifted
    assert not traffic.slices(10).drifted
    assert not traffic.slices(100).drifted
    found = traffic.slices(8, traffic.moved(0.5))
    assert found.drifted["delay"].since_s == 173


def test_an_alarm_stays_while_rows_drift() -> None:
    traffic = Traffic(reference())
    traffic.slices(50)
    traffic.slices(10, traffic.moved(0.5))
    for _ in range(100):
        assert traffic.slices(1, traffic.moved(0.5)).drifted["delay"].since_s == pytest.approx(50, abs=8)


def test_more_unseen_values_than_in_training_have_an_alarm_of_their_own() -> None:
    traffic = Traffic(reference(unseen=50))
    assert not traffic.slices(300, traffic.with_unseen(0.001)).unseen
    found = traffic.slices(40, traffic.with_unseen(0.02))
    assert found.unseen.keys() == {"carrier"}
    assert not found.drifted
    assert found.unseen["carrier"].since_s == pytest.approx(300, abs=12)
    assert not traffic.slices(40).unseen


def test_values_that_were_mostly_unseen_in_training_raise_no_alarm() -> None:
    """Of free texts, which are new all the time."""
    traffic = Traffic(reference(rows=1_000, unseen=9_000), run_length=1000.0)
    assert traffic.usual[1, -1] == 0.9
    assert not traffic.slices(200).unseen


def test_moments_that_speak_for_no_drift_add_nothing_to_an_alarm() -> None:
    traffic = Traffic(reference(), run_length=2.0)
    assert not traffic.slices(200).drifted


def test_slices_without_rows_of_a_column_say_nothing_of_it() -> None:
    traffic = Traffic(reference())
    for _ in range(30):
        traffic.detector.look(np.zeros_like(traffic.known.cells), float(traffic.at))
        traffic.at += 1
    assert not traffic.detector.detected.drifted
    traffic.slices(50)
    assert traffic.slices(6, traffic.moved(0.5)).drifted
