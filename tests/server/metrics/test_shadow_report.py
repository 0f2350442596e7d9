import json
from collections.abc import Callable

import numpy as np
import pytest

from penstock_server.metrics.counters import MAX_PAIRED, SharedCounters
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.shadow_report import ClassPair, report, reports, to_json

NewCounters = Callable[..., SharedCounters]


def compare(counters: SharedCounters, champion: list[int], shadow: list[int], shadow_s: float = 0.2) -> None:
    left, right = np.array(champion), np.array(shadow)
    Recorder(counters).shadow_compared(
        agree=left == right, distance=np.zeros(len(left)), champion_s=0.1, shadow_s=shadow_s, classes=(left, right)
    )


def snapshot(
    *counters: SharedCounters, names: tuple[str, ...] = ("ham", "spam"), shadow: bool = True
) -> VersionSnapshot:
    roles = ("shadow",) if shadow else ()
    return VersionSnapshot("m", "2", roles, None, counters, names, fraction=0.05 if shadow else None)


def test_totals_are_those_of_all_workers(new_counters: NewCounters) -> None:
    one, two = new_counters(), new_counters()
    compare(one, [0, 0, 1], [0, 1, 1])
    compare(two, [1, 1], [1, 0], shadow_s=0.05)
    Recorder(one).shadow_failed(4)
    Recorder(two).shadow_refused(3)
    Recorder(two).shadow_dropped("sampled_out", 90)
    found = report(snapshot(one, two))
    assert (found.is_shadow, found.sample, found.agreement) == (True, 5.0, 0.6)
    assert found.rows == {"agree": 3, "disagree": 2, "failed": 4, "refused": 3}
    assert found.dropped == {"busy": 0, "incompatible": 0, "sampled_out": 90}
    assert found.classes[0] == ClassPair("spam", "spam", 2)
    assert set(found.classes[1:]) == {
        ClassPair("ham", "ham", 1),
        ClassPair("ham", "spam", 1),
        ClassPair("spam", "ham", 1),
    }
    assert found.time_ratio == pytest.approx(1.25)
    assert found.slower == 0.5
    assert [(cell.at_most, cell.count) for cell in found.time_ratios if cell.count] == [(0.5, 1), (2.0, 1)]
    assert [(cell.at_most, cell.count) for cell in found.score_distance if cell.count] == [(0.0, 5)]


def test_before_the_first_copy_there_are_no_ratios(new_counters: NewCounters) -> None:
    found = report(snapshot(new_counters()))
    assert (found.agreement, found.time_ratio, found.slower, found.classes) == (None, None, None, ())


def test_classes_beyond_the_bound_are_others(new_counters: NewCounters) -> None:
    counters = new_counters()
    labels = list(range(MAX_PAIRED + 3))
    compare(counters, labels, labels)
    found = report(snapshot(counters, names=()))
    assert found.classes[0] == ClassPair("other", "other", 3)
    assert len(found.classes) == MAX_PAIRED + 1


def test_only_shadows_and_former_ones_are_reported(new_counters: NewCounters) -> None:
    never, former, now = (new_counters() for _ in range(3))
    compare(former, [1], [1])
    versions = [snapshot(never, shadow=False), snapshot(former, shadow=False), snapshot(now)]
    assert [(one.is_shadow, one.sample) for one in reports(versions)] == [(False, None), (True, 5.0)]
    (first, _) = json.loads(to_json(versions))["shadows"]
    assert (first["model"], first["version"], first["rows"]["agree"]) == ("m", "2", 1)
