"""The watch over real workers, with a clock of the test's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock_server.drift.alarm import AlarmState
from penstock_server.drift.baseline import Baseline, ClassBaseline, StringBaseline
from penstock_server.drift.fit import with_predictions
from penstock_server.drift.monitor import PREDICTIONS, DriftMonitor, Watched
from penstock_server.drift.reference import reference_of
from penstock_server.drift.report import DriftRules
from penstock_server.features import counting
from penstock_server.metrics.counters import CountersShape, SharedCounters
from penstock_server.metrics.recorder import Recorder

NewCounters = Callable[..., SharedCounters]
BASELINE = with_predictions(
    Baseline((StringBaseline("word", ("a", "b"), (5000, 5000)),), "digest"),
    ClassBaseline("label", (0, 1), (9000, 1000)),
)
REFERENCE = reference_of(BASELINE)
WINDOW_ROWS = 1000
SHAPE = CountersShape(1, counting.row_words(BASELINE.bins))
KEY = ("m", "1")


class Story:
    """Two workers, a watch, and what it told."""

    def __init__(self, new_counters: NewCounters, clock: Any) -> None:
        self.workers = [new_counters(SHAPE), new_counters(SHAPE)]
        self.recorders = [Recorder(counters, WINDOW_ROWS, BASELINE.cells.predictions) for counters in self.workers]
        self.told: list[tuple[Any, AlarmState]] = []
        self.watch = DriftMonitor(
            DriftRules(), WINDOW_ROWS, clock=clock, changed=lambda key, alarm: self.told.append((key, alarm))
        )

    def serve(self, rows: int, share: float, worker: int = 0, label: int = 0) -> None:
        """Batches of ten rows, this share of them "b"; nine in ten are class `label`."""
        recorder, words = self.recorders[worker], np.zeros(SHAPE.cells, np.int64)
        words[0], words[1] = round(10 * (1 - share)), round(10 * share)
        for _ in range(rows // 10):
            cells: Any = recorder.drift_cells()
            cells += words
            recorder.classes(np.array([label] * 9 + [1 - label]))
            recorder.drift_counted(10)

    def watched(self) -> Watched:
        return Watched(KEY, ("champion",), self.workers, REFERENCE)

    def look(self) -> tuple[str, ...]:
        self.watch.look([self.watched()])
        return self.watch.drift_of(self.watched()).alarmed or ()


@pytest.fixture
def story(new_counters: NewCounters, fake_clock: Any) -> Story:
    return Story(new_counters, fake_clock())


def test_the_sliding_window_is_over_all_workers(story: Story) -> None:
    story.serve(600, 0.5)
    story.serve(600, 1.0, worker=1)
    found = story.watch.drift_of(story.watched())
    assert (found.rows, found.columns[0].rows, found.columns[0].current[:2]) == (1200, 1200, (0.25, 0.75))
    assert found.predictions is not None
    assert (found.predictions.rows, found.predictions.current) == (1200, (0.9, 0.1))
    assert (found.roles, found.window_rows, found.alarmed) == (("champion",), WINDOW_ROWS, ())


def test_an_alarm_takes_two_windows_that_share_no_row(story: Story) -> None:
    story.serve(1000, 1.0)
    assert story.look() == ()
    story.serve(500, 1.0)
    assert story.look() == ()  # half of what it would look at was looked at before
    story.serve(600, 1.0)
    assert story.look() == ("word",)
    assert [dict(alarm.since_s).keys() for _, alarm in story.told] == [{"word"}]


def test_a_burst_in_one_window_raises_no_alarm_however_often_it_is_looked_at(story: Story) -> None:
    story.serve(1000, 1.0)
    for _ in range(20):
        assert story.look() == ()
    story.serve(1100, 1.0)
    assert story.look() == ("word",)


def test_an_alarm_goes_off_after_two_quiet_windows(story: Story) -> None:
    for _ in range(2):
        story.serve(1100, 1.0)
        story.look()
    assert story.look() == ("word",)
    story.serve(1100, 0.5)
    assert story.look() == ("word",)
    story.serve(1100, 0.5)
    assert story.look() == ()
    assert len(story.told) == 2


def test_predictions_raise_an_alarm_of_their_own(story: Story) -> None:
    for _ in range(2):
        story.serve(1100, 0.5, label=1)
        story.look()
    assert story.look() == (PREDICTIONS,)


def test_workers_together_fill_an_alarms_window(story: Story) -> None:
    for _ in range(2):
        # Of each worker half a window, and the sub-window that the last look found open.
        story.serve(600, 1.0)
        story.serve(600, 1.0, worker=1)
        story.look()
    assert story.watch.drift_of(story.watched()).alarmed == ("word",)


def test_nothing_new_is_evaluated_once(story: Story) -> None:
    story.serve(1000, 0.5)
    first = story.watch.drift_of(story.watched())
    assert story.watch.drift_of(story.watched()).columns is first.columns
    story.serve(10, 0.5)
    assert story.watch.drift_of(story.watched()).columns is not first.columns


def test_a_version_that_is_gone_is_forgotten(story: Story) -> None:
    for _ in range(2):
        story.serve(1100, 1.0)
        story.look()
    story.watch.look([])
    assert story.watch.drift_of(story.watched()).alarmed == ()


def test_what_is_told_by_default_is_logged(capsys: Any, story: Story, fake_clock: Any) -> None:
    watch = DriftMonitor(DriftRules(), WINDOW_ROWS, clock=fake_clock())
    for share in (1.0, 1.0, 0.5, 0.5):
        story.serve(1100, share)
        watch.look([story.watched()])
    said = capsys.readouterr()
    assert "drift alarm" in said.out + said.err
    assert "drift alarm is over" in said.out + said.err
