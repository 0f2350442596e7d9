import re
from math import inf

import pytest

from penstock_server.rollout.evidence import Evidence
from penstock_server.rollout.gates import gate_of, interval_of
from penstock_server.rollout.spec import Metric, RolloutSpec, parse

EDGES = (0.0, 0.01, 0.1, 1.0)
ALL = parse(
    '{"shadow": "1h", "gates": {"errors": 1.5, "p99": 2, "disagreement": 0.05, "distance": 0.1, "accuracy": 2, "value": 0.5}}'
)


def rates(metric: str, ours: int, theirs: int, requests: int = 10_000) -> Evidence:
    """At half of the traffic each."""
    return Evidence({"requests": {"50": (requests, requests)}, metric: {"50": (ours, theirs)}})


@pytest.mark.parametrize(
    ("metric", "evidence", "is_worse", "is_within", "said"),
    [
        ("errors", Evidence(), False, False, "fails on none of 0 requests, the champion on none: not shown"),
        ("errors", rates("errors", 300, 300, 30_000), False, True, "of 30,000 requests, .* 1 %: shown to be within 1.5"),
        ("errors", rates("errors", 200, 100), True, False, "fails on 2 % .*: proven worse"),
        ("errors", rates("errors", 3, 2), False, False, "not shown to be within"),
        ("errors", rates("errors", 0, 0, 20_000), False, True, "fails on 0 %"),  # below the floor, with nothing to compare
        ("p99", rates("p99", 100, 100), False, True, "longer than the champion's p99 did on 1 %"),
        ("p99", rates("p99", 300, 100), True, False, "proven worse"),
        ("disagreement", Evidence(shadow=(990, 8, 2)), False, True, "differ from the champion's on 1 % of 1,000 rows"),
        ("disagreement", Evidence(shadow=(900, 100, 0)), True, False, "proven worse"),
        ("disagreement", Evidence(shadow=(9, 0, 0)), False, False, "on 0 % of 9 rows: not shown to be within 5 % yet"),
        ("distance", Evidence(distances=(500, 400, 90, 10, 0)), False, True, "on average, over 1,000 rows"),
        ("distance", Evidence(distances=(0, 0, 0, 0, 1000)), True, False, "proven worse"),
        ("accuracy", Evidence(pairs=(9000, 100, 100, 800)), False, True, "91 % of 10,000 labelled requests"),
        ("accuracy", Evidence(pairs=(8000, 900, 300, 800)), True, False, "proven worse"),
        ("accuracy", Evidence({"labelled": {"50": (9000, 9000)}, "wrong": {"50": (1800, 900)}}), True, False, "80 %"),
        ("accuracy", Evidence({"labelled": {"50": (90_000, 90_000)}, "wrong": {"50": (9000, 9000)}}), False, True, "90 %"),
        ("value", Evidence(values=(5000, 10_000.0, 25_000.0, 5000, 10_000.0, 25_000.0)), False, True, "worth 2 on average"),
        ("value", Evidence(values=(5000, 5000.0, 10_000.0, 5000, 10_000.0, 25_000.0)), True, False, "worth 1 on average"),
        ("value", Evidence(), False, False, "worth unknown on average"),
    ],
)  # fmt: skip
def test_what_a_metric_says(metric: Metric, evidence: Evidence, is_worse: bool, is_within: bool, said: str) -> None:
    gate = gate_of(metric, ALL, evidence, EDGES)
    assert (gate.is_worse, gate.is_within) == (is_worse, is_within), gate
    assert gate.sentence.startswith(f"{metric}: ")
    assert re.search(said, gate.sentence), gate.sentence


@pytest.mark.parametrize("metric", list(ALL.gates))
def test_nothing_is_known_without_evidence(metric: Metric) -> None:
    gate = gate_of(metric, ALL, Evidence(), EDGES)
    assert (gate.worse, gate.within, gate.version, gate.champion) == (0.0, 0.0, None, None)
    low, high = interval_of(metric, ALL, Evidence(), EDGES)
    assert low <= 0 < 1 <= high


def test_the_interval_holds_the_ratio_and_narrows() -> None:
    few, many = (interval_of("errors", ALL, rates("errors", 10 * n, 10 * n, 1000 * n), EDGES) for n in (1, 100))
    assert few[0] < many[0] < 1 < many[1] < few[1] < inf


@pytest.mark.parametrize(
    ("metric", "evidence", "truth"),
    [
        ("disagreement", Evidence(shadow=(950, 40, 10)), 0.05),
        ("distance", Evidence(distances=(0, 0, 1000, 0, 0)), 0.05),
        ("accuracy", Evidence(pairs=(9000, 300, 100, 600)), -2),
        ("accuracy", Evidence({"wrong": {"50": (100, 100)}}), 1),
        ("value", Evidence(values=(5000, 10_000.0, 25_000.0, 5000, 15_000.0, 50_000.0)), -1),
    ],
)
def test_an_interval_holds_what_it_is_about(metric: Metric, evidence: Evidence, truth: float) -> None:
    low, high = interval_of(metric, ALL, evidence, EDGES)
    assert low < truth < high


def test_each_of_more_gates_has_a_smaller_part_of_the_false_alarms() -> None:
    alone, among = parse('{"gates": {"errors": 1.5}}'), ALL
    evidence = rates("errors", 145, 100)
    assert gate_of("errors", alone, evidence, EDGES).worse > gate_of("errors", among, evidence, EDGES).worse > 0


def test_counts_that_hang_together_say_less() -> None:
    evidence = rates("errors", 200, 100)
    clumped = RolloutSpec(gates={"errors": 1.5}, dispersion=20)
    assert gate_of("errors", RolloutSpec(gates={"errors": 1.5}), evidence, EDGES).is_worse
    assert not gate_of("errors", clumped, evidence, EDGES).is_worse
