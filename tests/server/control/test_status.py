"""What is known of the whole server, from a fixed view, real counters and a real baseline."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock_server.control.status import ServerStatus
from penstock_server.control.view import ServerView, VersionView, WorkerView
from penstock_server.drift.baseline import Baseline, ClassBaseline, StringBaseline
from penstock_server.drift.fit import with_predictions
from penstock_server.drift.monitor import DriftMonitor
from penstock_server.drift.report import DriftRules
from penstock_server.features import counting
from penstock_server.metrics.counters import CountersShape, open_counters
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.sources.combined_source import SourceState

KEY, PLAIN = ("m", "1"), ("n", "7")
BASELINE = with_predictions(
    Baseline((StringBaseline("word", ("a", "b"), (500, 500)),), "digest"), ClassBaseline("label", (0, 1), (500, 500))
)
SHAPE = CountersShape(1, counting.row_words(BASELINE.bins))


class Known:
    """Two versions that one worker has loaded, and one that none has loaded yet."""

    def __init__(self) -> None:
        self.versions = [
            VersionView("m", "1", "READY", ("champion",)),
            VersionView("n", "7", "READY", ("canary",), 0.25),
            VersionView("n", "8", "LOADING"),
        ]
        self.workers = (WorkerView(0, 0, True, 3), WorkerView(1, 0, True, 0, "native", 6))
        self.identities: dict[Any, str] = {}
        self.artifacts: dict[Any, Any] = {
            KEY: Artifact(Path(), Path(), manifest=SimpleNamespace(classes=("no", "yes")), baseline=BASELINE),  # type: ignore[arg-type]
            PLAIN: Artifact(Path(), Path()),
        }

    def view(self) -> ServerView:
        return ServerView(
            versions=tuple(self.versions), problems={},
            workers=self.workers,
            reloads=5, failed_reloads=1, quarantined=2,
        )  # fmt: skip

    def identity(self, key: Any) -> str:
        return self.identities.get(key, "")

    def artifact(self, key: Any) -> Artifact | None:
        return self.artifacts.get(key)


@pytest.fixture
def counters() -> Iterator[CounterStore]:
    with CounterStore() as store:
        store.version(0, PLAIN, CountersShape())
        shared = open_counters(store.version(0, KEY, SHAPE), SHAPE)
        recorder = Recorder(shared, 1000, BASELINE.cells.answers)
        cells: Any = recorder.drift_cells()
        cells[0, 1] = 600
        recorder.classes(np.zeros(600, np.int64))
        recorder.drift_counted(600)
        yield store


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def status(known: Known, counters: CounterStore) -> ServerStatus:
    return ServerStatus(
        view=known.view,
        artifact=known.artifact,
        identity=known.identity,
        counters=counters,
        sources=lambda: (SourceState("models/", "answers", answered_s=1.5), SourceState("registry", "starting")),
        monitor=DriftMonitor(lambda model: DriftRules(window_rows=500)),
    )


def test_a_scrape_shows_the_versions_that_count(status: ServerStatus) -> None:
    found = status.metrics()
    watched, plain = found.versions
    assert (watched.model, watched.roles, watched.class_names) == ("m", ("champion",), ["no", "yes"])
    assert (plain.version, plain.weight, plain.class_names) == ("7", 0.25, [])
    assert (found.reloads, found.failed_reloads, found.quarantined) == (5, 1, 2)
    assert (found.restarts, found.connections) == ({0: 3, 1: 0}, {1: 6})
    assert found.sources == {"models/": True, "registry": False}
    assert found.answered_s == {"models/": 1.5}
    assert found.states == {("m", "1"): "READY", ("n", "7"): "READY", ("n", "8"): "LOADING"}
    assert found.is_ready


def test_a_worker_s_memory_and_cpu_are_those_of_its_process(known: Known, status: ServerStatus) -> None:
    assert (status.metrics().resident_bytes, status.metrics().cpu_s) == ({}, {})  # there is no process 0
    known.workers = (WorkerView(0, os.getpid(), True, 3), WorkerView(1, 0, True, 0, "native", 6))
    before_s, found, after_s = time.process_time(), status.metrics(), time.process_time()
    # The kernel counts in hundredths of a second, of this process's other threads too.
    assert before_s - 0.05 <= found.cpu_s[0] <= after_s + 0.05
    assert found.resident_bytes.keys() == {0}


def test_a_report_names_what_is_watched_and_what_is_not(status: ServerStatus) -> None:
    found = status.drift()
    assert [(one.model, one.version, one.roles) for one in found.versions] == [("m", "1", ("champion",))]
    (watched,) = found.versions
    assert (watched.rows, watched.columns[0].drifted) == (600, True)
    assert watched.predictions is not None
    assert watched.predictions.drifted
    assert [(one.model, one.version, one.roles) for one in found.unwatched] == [("n", "7", ("canary",))]


def test_a_version_loaded_again_is_compared_with_its_new_baseline(status: ServerStatus, known: Known) -> None:
    assert status.drift().versions[0].columns[0].drifted
    now = Baseline((StringBaseline("word", ("a", "b"), (0, 1000)),), "digest", BASELINE.predictions)
    known.artifacts[KEY] = Artifact(Path(), Path(), baseline=now)
    assert not status.drift().versions[0].columns[0].drifted


def test_files_that_do_not_answer_yet_are_not_compared_with_what_former_files_counted(
    status: ServerStatus, known: Known
) -> None:
    known.identities[KEY] = "new files"
    assert status.drift().versions == ()


def test_a_look_keeps_the_alarms_of_what_is_loaded(status: ServerStatus, known: Known) -> None:
    status.look()
    assert status.drift().versions[0].alarmed == ()
    known.versions = []
    status.look()
    assert status.drift().versions == ()
