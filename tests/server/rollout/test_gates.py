import re
from math import inf

import numpy as np
import pytest

from penstock_server.rollout.evidence import Evidence
from penstock_server.rollout.gates import gate_of, interval_of
from penstock_server.rollout.shares import all_or_none, cell_of
from penstock_server.rollout.spec import Metric, RolloutSpec, parse

EDGES = (0.0, 0.01, 0.1, 1.0)
ALL = parse(
    '{"shadow": "1h", "gates": {"errors": 1.5, "p99": 2, "disagreement": 0.05, "distance": 0.1, "accuracy": 2, "value": 0.5}}'
)


def rates(
    metric: str, ours: int, theirs: int, requests: int = 10_000, *, first: tuple[int, int] | None = None
) -> Evidence:
    """At half of the traffic each; of errors so many are their key's first, or all."""
    events = {"requests": {"50": (requests, requests)}, metric: {"50": (ours, theirs)}}
    return Evidence(events | ({"first_errors": {"50": first or (ours, theirs)}} if metric == "errors" else {}))


def differing(agree: int, differ: int) -> Evidence:
    """Requests of one row."""
    return Evidence(differing=all_or_none(agree, differ))


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
        ("errors", rates("errors", 4000, 100, first=(100, 100)), False, False, "fails on 40 % .*: not shown to be within"),
        ("errors", rates("errors", 4000, 4000, first=(200, 100)), True, False, "proven worse"),
        ("disagreement", differing(990, 10), False, True, "from the champion's on up to 1 % of the rows, over 1,000 requests"),
        ("disagreement", differing(900, 100), True, False, "proven worse"),
        ("disagreement", differing(9, 0), False, False, "up to 0 % .* 9 requests: not shown to be within 5 % yet"),
        ("distance", Evidence(distances=(500, 400, 90, 10, 0)), False, True, "on average, over 1,000 requests"),
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
        ("disagreement", differing(950, 50), 0.05),
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


def test_a_fault_that_hits_some_keys_every_time_is_seen_by_their_fourth_errors() -> None:
    """Of 1,000 keys all fail once anyway, and forty of one version four times."""
    evidence = rates("errors", 620, 500, first=(500, 500))
    fourth = Evidence({"fourth_errors": {"50": (40, 0)}})
    assert not gate_of("errors", ALL, evidence, EDGES).is_worse
    assert gate_of("errors", ALL, evidence.plus(fourth), EDGES).is_worse


@pytest.mark.parametrize("metric", ["disagreement", "distance"])
def test_what_a_shadow_shows_is_divided_by_the_dispersion_too(metric: Metric) -> None:
    evidence = differing(900, 100) if metric == "disagreement" else Evidence(distances=(600, 0, 0, 0, 400))
    clumped = RolloutSpec(gates=ALL.gates, shadow_s=60.0, dispersion=50)
    assert gate_of(metric, ALL, evidence, EDGES).is_worse
    assert not gate_of(metric, clumped, evidence, EDGES).is_worse


def of_requests(shares: np.ndarray) -> Evidence:
    cells = np.bincount([cell_of(share) for share in shares], minlength=len(all_or_none(0, 0)))
    return Evidence(differing=tuple(cells.tolist()))


@pytest.mark.long
@pytest.mark.parametrize("alike", [0.0, 0.9, 1.0])
def test_rows_that_hang_together_within_a_request_are_no_reason_to_roll_back(alike: float) -> None:
    """Shadows that differ on as many rows as they may, of requests with 16 rows each, at ten looks: alpha are lost."""
    rng, runs, requests, rows, lost, lost_by_row = np.random.default_rng(1), 300, 400, 16, 0, 0
    spec = parse('{"shadow": "1h", "gates": {"disagreement": 0.05}, "false_rollbacks": 0.05}')
    for _ in range(runs):
        together = rng.random(requests) < alike
        rate = np.where(together, rng.random(requests) < 0.05, 0.05)
        differ = rng.binomial(rows, rate)
        looks = range(requests // 10, requests + 1, requests // 10)
        gates = [gate_of("disagreement", spec, of_requests(differ[:end] / rows), EDGES) for end in looks]
        lost += any(gate.is_worse for gate in gates)
        each = [differing(end * rows - differ[:end].sum(), differ[:end].sum()) for end in looks]
        lost_by_row += any(gate_of("disagreement", spec, one, EDGES).is_worse for one in each)
    most = runs * 0.05 + 3 * (runs * 0.05 * 0.95) ** 0.5
    assert lost <= most
    assert (lost_by_row > most) == (alike > 0)
