"""What a server tells a controller of its counters and of labels."""

from penstock_server.control.own_evidence import OwnEvidence, label_counts
from penstock_server.labels.totals import LabelTotals, PairLabels, PairTotals, SubjectTotals, VersionLabels
from penstock_server.metrics.counters import CountersShape
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.store import CounterStore


def labels(version: str, role: str, weight: float | None, labelled: int, wrong: int) -> VersionLabels:
    return VersionLabels(
        "m",
        version,
        "id",
        role,
        weight,
        SubjectTotals(8 * labelled, 8 * labelled, 8 * wrong, 0.0, 0.0, 9, 9.0, 9.0, labelled, wrong, 2, 3.0, 5.0),
    )


def test_labels_are_paired_by_the_weights_they_were_given_under() -> None:
    totals = LabelTotals(
        1,
        (
            labels("2", "canary", 0.05, 10, 1),
            labels("1", "champion", 0.95, 100, 15),
            labels("1", "champion", 0.95, 90, 5),  # of other files of the version
            labels("2", "canary", 0.25, 5, 0),
            labels("1", "champion", 0.75, 15, 2),
            labels("2", "canary", 0.5, 7, 0),  # no champion beside it yet
            labels("1", "champion", 1.0, 999, 99),  # before
            labels("2", "named", None, 99, 99),
            labels("3", "canary", 0.05, 99, 99),
        ),
        (
            PairLabels("m", "1", "2", PairTotals(80, 10, 20, 30, requests=(8, 1, 2, 3))),
            PairLabels("m", "1", "3", PairTotals(9, 9, 9, 9)),
        ),
    )
    found = label_counts(totals, "m", "2", "1")
    assert found.wrong == {"5": (10, 1, 190, 20), "25": (5, 0, 15, 2)}
    assert found.pairs == (8, 1, 2, 3)
    assert found.values == (4.0, 6.0, 10.0, 6.0, 9.0, 15.0)
    assert label_counts(totals, "other", "2", "1").wrong == {}


def test_counters_are_told_with_the_weight_in_force_and_begin_anew_with_their_version() -> None:
    with CounterStore() as store:
        for key in (("m", "1"), ("m", "2")):
            store.version(0, key, CountersShape())
        Recorder(store.of_version(("m", "2"))[0]).refused("model_failed")
        weights: list[tuple[float, float] | None] = [(0.05, 0.95), None, (1.0, 0.0)]
        own = OwnEvidence(instance="run", since_s=5.0, weights=lambda *_: weights[0], counters=store)
        first = own.snapshot("m", "2", "1")
        assert (first.weight, first.version.errors, first.champion.errors, first.since_s) == ("5", 1, 0, 5.0)
        del weights[0]
        assert own.snapshot("m", "2", "1").weight == ""
        del weights[0]
        assert own.snapshot("m", "2", "1").weight == ""  # the champion has no share to compare with
        store.forget(0, ("m", "2"))
        store.version(0, ("m", "2"), CountersShape())
        assert own.snapshot("m", "2", "1").instance != first.instance
        assert own.snapshot("m", "9", "1").version.requests == 0
