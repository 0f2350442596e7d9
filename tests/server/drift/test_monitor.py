"""The watch over real workers, with a clock of the test's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from penstock_server.drift.baseline import Baseline, ClassBaseline, StringBaseline
from penstock_server.drift.dependence import joint_reference_of
from penstock_server.drift.fit import with_predictions
from penstock_server.drift.joint_baseline import GroupedColumn, JointBaseline, JointTable
from penstock_server.drift.keeping import DetectorKeeper
from penstock_server.drift.monitor import PREDICTIONS, DriftMonitor, Watched
from penstock_server.drift.reference import reference_of
from penstock_server.drift.report import DriftAlarm, DriftRules
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
        self.recorders = [Recorder(counters, WINDOW_ROWS, BASELINE.cells.answers) for counters in self.workers]
        self.clock = clock
        self.told: list[tuple[Any, tuple[DriftAlarm, ...]]] = []
        self.watch = DriftMonitor(
            lambda model: DriftRules(window_rows=WINDOW_ROWS, window_s=100.0),
            clock=clock,
            changed=lambda key, alarms: self.told.append((key, alarms)),
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
        """A second later."""
        self.clock.now += 1.0
        self.watch.look([self.watched()])
        return self.watch.drift_of(self.watched()).alarmed or ()

    def looks(self, number: int, share: float, **served: int) -> tuple[str, ...]:
        """Looks, after 100 rows each."""
        for _ in range(number):
            self.serve(100, share, **served)
            alarmed = self.look()
        return alarmed


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


def test_an_alarm_says_since_when(story: Story) -> None:
    assert story.looks(20, 0.5) == ()
    began_s = story.clock.now
    assert story.looks(5, 0.9) == ("word",)
    (alarm,) = story.watch.drift_of(story.watched()).alarms
    assert (alarm.column, alarm.kind, alarm.since) == ("word", "shares", began_s)
    assert alarm.once_in_looks > DriftRules().run_length
    assert [[one.column for one in alarms] for _, alarms in story.told] == [["word"]]


def test_a_look_waits_for_enough_rows(story: Story) -> None:
    story.looks(20, 0.5)
    began_s = story.clock.now
    for _ in range(9):
        story.serve(10, 1.0)
        assert story.look() == ()
    # Nine looks of ten rows are not yet a slice; the tenth makes it one.
    story.serve(10, 1.0)
    assert story.look() == ("word",)
    (alarm,) = story.watch.drift_of(story.watched()).alarms
    assert alarm.since == began_s


def test_an_alarm_goes_off_after_enough_quiet_rows(story: Story) -> None:
    story.looks(20, 0.5)
    assert story.looks(5, 0.9) == ("word",)
    assert story.looks(1, 0.5) == ("word",)
    assert story.looks(5, 0.5) == ()
    assert len(story.told) == 2


def test_predictions_raise_an_alarm_of_their_own(story: Story) -> None:
    story.looks(20, 0.5)
    assert story.looks(5, 0.5, label=1) == (PREDICTIONS,)


def test_the_rows_of_all_workers_are_looked_at_together(story: Story) -> None:
    story.looks(20, 0.5)
    for _ in range(5):
        story.serve(50, 0.9)
        story.serve(50, 0.9, worker=1)
        alarmed = story.look()
    assert alarmed == ("word",)


def test_rows_that_repeat_need_more_of_them(story: Story) -> None:
    """A window of bursts, each of one word, says less than as many independent rows."""
    for at in range(10):
        story.serve(100, float(at % 2))
    (column,) = story.watch.drift_of(story.watched()).columns
    assert column.dispersion == pytest.approx(112.5)
    assert (column.rows, column.effective_rows, column.rows_needed, column.enough_rows) == (900, 8, 50, True)
    assert column.p_value is column.drifted is None
    assert column.jensen_shannon is not None


def test_old_rows_leave_the_window(story: Story) -> None:
    story.looks(5, 0.5)
    story.clock.now += 50
    story.looks(1, 0.5, worker=1)
    assert story.watch.drift_of(story.watched()).rows == 600
    story.clock.now += 60
    assert story.watch.drift_of(story.watched()).rows == 100


def test_other_training_rows_begin_anew(story: Story) -> None:
    story.looks(20, 0.5)
    assert story.looks(5, 0.9) == ("word",)
    other = msgspec.structs.replace(BASELINE, columns=(StringBaseline("word", ("a", "b"), (5001, 5000)),))
    again = Watched(KEY, ("champion",), story.workers, reference_of(other))
    assert story.watch.drift_of(again).alarmed == ()


def test_nothing_new_is_evaluated_once(story: Story) -> None:
    story.serve(1000, 0.5)
    first = story.watch.drift_of(story.watched())
    assert story.watch.drift_of(story.watched()).columns is first.columns
    story.serve(10, 0.5)
    assert story.watch.drift_of(story.watched()).columns is not first.columns


def test_what_is_told_by_default_is_logged(capsys: Any, story: Story) -> None:
    story.watch = DriftMonitor(lambda model: DriftRules(), clock=story.clock)
    for share in (0.5,) * 20 + (0.9,) * 5 + (0.5,) * 10:
        story.serve(100, share)
        story.look()
    said = capsys.readouterr()
    assert "drift alarm" in said.out + said.err
    assert "1970-01-01T00:0" in said.out + said.err
    assert "drift alarm is over" in said.out + said.err


def test_a_version_that_comes_back_goes_on(story: Story) -> None:
    story.looks(20, 0.5)
    assert story.looks(5, 0.9) == ("word",)
    story.watch.look([])
    again = Watched(KEY, ("champion",), story.workers, reference_of(BASELINE))
    assert story.watch.drift_of(again).alarmed == ("word",)


def test_what_was_learnt_outlives_the_process(story: Story, tmp_path: Path) -> None:
    folder = tmp_path / "kept"

    def watch() -> DriftMonitor:
        return DriftMonitor(lambda model: DriftRules(), keeper=DetectorKeeper(folder), clock=story.clock)

    story.watch = watch()
    story.looks(20, 0.5)
    assert story.looks(5, 0.9) == ("word",)
    assert not folder.exists()
    story.looks(40, 0.9)
    (kept,) = folder.iterdir()  # a minute is over
    before = kept.stat().st_mtime_ns
    story.watch.save()
    assert kept.stat().st_mtime_ns > before
    written = kept.stat().st_mtime_ns
    story.watch.save()  # nothing new
    assert kept.stat().st_mtime_ns == written
    assert watch().drift_of(story.watched()).alarmed == ("word",)


def test_what_goes_together_is_told_of_the_sampled_rows(story: Story, new_counters: NewCounters) -> None:
    joint = JointBaseline(
        (
            GroupedColumn("word", (0, 1, -1, -1, -1, -1), ("a", "b")),
            GroupedColumn("", (0, 1, -1, -1, -1), ("no", "yes")),
        ),
        segments=(JointTable(0, 1, (4500, 500, 2500, 2500), (1.0, 1.0)),),
    )
    baseline = msgspec.structs.replace(BASELINE, joint=joint)
    workers = [new_counters(CountersShape(1, SHAPE.cells, joint=baseline.joint_words)) for _ in range(2)]
    reference = joint_reference_of(baseline)
    watched = Watched(KEY, ("champion",), workers, REFERENCE, reference)

    def found() -> Any:
        story.watch.look([watched])
        joint = story.watch.drift_of(watched).joint
        assert joint is not None
        return [joint.rows, *((one.rows, one.drifted) for one in joint.segments)]

    assert found() == [0, (0, None), (0, None)]
    workers[0].joint[:] = [300, 90, 10, 180, 20]
    workers[1].joint[:] = [300, 90, 10, 180, 20]
    assert found() == [600, (200, False), (400, True)]
