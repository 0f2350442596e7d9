"""What is known of the whole server, from a supervisor's view, real boards and a real baseline."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock_server.control.status import ServerStatus, ServerView, VersionView, WorkerView
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


class FakeSupervisor:
    """Two versions loaded by one worker, and one that nobody has loaded yet."""

    def __init__(self) -> None:
        self.versions = [
            VersionView("m", "1", "READY", ("champion",)),
            VersionView("n", "7", "READY", ("canary",), 0.25),
            VersionView("n", "8", "LOADING"),
        ]
        self.artifacts: dict[Any, Any] = {
            KEY: Artifact(Path(), Path(), manifest=SimpleNamespace(classes=("no", "yes")), baseline=BASELINE),  # type: ignore[arg-type]
            PLAIN: Artifact(Path(), Path()),
        }

    def view(self) -> ServerView:
        return ServerView(
            versions=tuple(self.versions), workers=(WorkerView(0, 0, True, 3),), wanted={}, problems={}, is_ready=True,
            reloads=5, failed_reloads=1,
        )  # fmt: skip

    def artifact(self, key: Any) -> Artifact | None:
        return self.artifacts.get(key)


@pytest.fixture
def boards() -> Iterator[CounterStore]:
    with CounterStore() as store:
        store.version(0, PLAIN, CountersShape())
        board = open_counters(store.version(0, KEY, SHAPE), SHAPE)
        recorder = Recorder(board, 1000, BASELINE.cells.predictions)
        cells: Any = recorder.drift_cells()
        cells[0, 1] = 600
        recorder.classes(np.zeros(600, np.int64))
        recorder.drift_counted(600)
        yield store


@pytest.fixture
def supervisor() -> FakeSupervisor:
    return FakeSupervisor()


@pytest.fixture
def facts(supervisor: FakeSupervisor, boards: CounterStore) -> ServerStatus:
    return ServerStatus(
        view=supervisor.view,
        artifact=supervisor.artifact,
        boards=boards,
        sources=lambda: (SourceState("models/", "answers"), SourceState("registry", "starting")),
        watch=DriftMonitor(DriftRules(), 500),
    )


def test_a_scrape_shows_the_versions_that_count(facts: ServerStatus) -> None:
    found = facts.of_server()
    watched, plain = found.versions
    assert (watched.model, watched.roles, watched.class_names) == ("m", ("champion",), ["no", "yes"])
    assert (plain.version, plain.weight, plain.class_names) == ("7", 0.25, [])
    assert (found.reloads, found.failed_reloads) == (5, 1)
    assert (found.restarts, found.sources) == ({0: 3}, {"models/": True, "registry": False})


def test_a_report_names_what_is_watched_and_what_is_not(facts: ServerStatus) -> None:
    found = facts.drift()
    assert [(one.model, one.version, one.roles) for one in found.versions] == [("m", "1", ("champion",))]
    (watched,) = found.versions
    assert (watched.rows, watched.columns[0].drifted) == (600, True)
    assert watched.predictions is not None
    assert watched.predictions.drifted
    assert [(one.model, one.version, one.roles) for one in found.unwatched] == [("n", "7", ("canary",))]


def test_a_version_loaded_anew_is_held_against_its_new_baseline(
    facts: ServerStatus, supervisor: FakeSupervisor
) -> None:
    assert facts.drift().versions[0].columns[0].drifted
    now = Baseline((StringBaseline("word", ("a", "b"), (0, 1000)),), "digest", BASELINE.predictions)
    supervisor.artifacts[KEY] = Artifact(Path(), Path(), baseline=now)
    assert not facts.drift().versions[0].columns[0].drifted


def test_a_look_keeps_the_alarms_of_what_is_loaded(facts: ServerStatus, supervisor: FakeSupervisor) -> None:
    facts.look()
    assert facts.drift().versions[0].alarmed == ()
    supervisor.versions = []
    facts.look()
    assert facts.drift().versions == ()
