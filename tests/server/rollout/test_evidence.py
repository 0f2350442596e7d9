from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.evidence import (
    Evidence,
    LabelCounts,
    ShadowTotals,
    Snapshot,
    VersionTotals,
    between,
    fresh,
    percent_text,
    read_evidence,
    weight_key,
    write_evidence,
)
from penstock_server.rollout.sequential import Split
from penstock_server.rollout.shares import all_or_none

NOW_S = 1000.0


def looked(requests: int, errors: int = 0, slow: int = 0, weight: str = "5", instance: str = "a") -> Snapshot:
    """A server that sent so many requests to the version, and twenty times as many to the champion."""

    def totals(times: int) -> VersionTotals:
        by_key = times * errors // 2, times * errors // 3, times * errors
        return VersionTotals(times * requests, times * errors, (times * (requests - slow), times * slow, 0), by_key)

    return Snapshot(instance, weight, 0.0, totals(1), totals(20))


def test_what_was_counted_between_two_looks_is_evidence_for_the_weight_in_force() -> None:
    found = between(looked(100, 2, 3), looked(150, 8, 9), {"p99": 0}, NOW_S)
    assert found.events == {
        "requests": {"5": (50, 1000)},
        "errors": {"5": (6, 120)},
        "first_errors": {"5": (3, 60)},
        "fourth_errors": {"5": (2, 40)},
        "p99": {"5": (6, 120)},
    }
    assert found.splits("errors") == [Split(0.05, 6, 120)]
    assert found.at("requests", 0.05) == (50, 1000)
    assert found.updated_s == NOW_S


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (looked(100, weight="5"), looked(150, weight="25")),  # the weight changed in between
        (looked(100, weight="5"), looked(150, weight="")),  # it is changing
        (looked(100, weight=""), looked(150, weight="")),
        (looked(100, instance="a"), looked(150, instance="b")),  # the server was started again
        (looked(150), looked(100)),  # the version was unloaded and loaded again
    ],
)
def test_what_cannot_be_told_apart_is_no_evidence(before: Snapshot, after: Snapshot) -> None:
    assert between(before, after, {"p99": 0}, NOW_S) == Evidence(updated_s=NOW_S)


def test_a_server_that_has_just_started_counted_nothing_before() -> None:
    found = between(fresh(looked(30, 1)), looked(30, 1), {}, NOW_S)
    assert found.events["requests"] == {"5": (30, 600)}


def test_the_shadow_counts_whatever_the_weight() -> None:
    before = Snapshot("a", "", shadow=ShadowTotals(10, 1, 0, (9, 2), (1, 1, 0)))
    after = Snapshot("a", "", shadow=ShadowTotals(30, 4, 2, (20, 14), (3, 1, 1)))
    found = between(before, after, {}, NOW_S)
    assert (found.shadow, found.distances, found.differing) == ((20, 3, 2), (11, 12), (2, 0, 1))
    started = Snapshot("b", "", shadow=ShadowTotals(5, 0, 0, (5, 0)))
    assert between(before, started, {}, NOW_S).shadow == (0, 0, 0)


def test_what_an_older_server_does_not_tell_by_key_and_by_request_counts_one_by_one() -> None:
    older = [
        Snapshot("a", "5", version=VersionTotals(n, e), champion=VersionTotals(n, e), shadow=ShadowTotals(n, e, e))
        for n, e in ((10, 1), (30, 5))
    ]
    found = between(*older, {}, NOW_S)
    assert found.events["first_errors"] == found.events["fourth_errors"] == found.events["errors"] == {"5": (4, 4)}
    assert found.differing == all_or_none(20, 8)


def test_a_record_of_an_earlier_server_goes_on_with_what_it_holds() -> None:
    found = read_evidence(
        '{"events":{"requests":{"5":[100,1900]},"errors":{"5":[3,40]}},"shadow":[90,8,2],"distances":[50,50],'
        '"pairs":[1,2,3,4],"values":[0.0,0.0,0.0,0.0,0.0,0.0],"updated_s":5.0}'
    )
    assert found.events["first_errors"] == found.events["fourth_errors"] == found.events["errors"] == {"5": (3, 40)}
    assert (found.shadow, found.distances, found.differing) == ((90, 8, 2), (50, 50), all_or_none(90, 10))
    more = found.plus(between(looked(100, 2), looked(150, 8), {}, NOW_S))
    assert more.events["first_errors"] == {"5": (6, 100)}
    assert read_evidence(write_evidence(more)) == more


def test_labels_count_by_the_weight_when_it_answered_and_outlive_the_server() -> None:
    before = Snapshot(
        "a", "25", labels=LabelCounts({"5": (10, 1, 190, 20)}, (5, 1, 1, 1), (10, 5.0, 4.0, 20, 9.0, 8.0))
    )
    after = Snapshot(
        "b",
        0.25,
        labels=LabelCounts({"5": (15, 3, 290, 29), "25": (4, 0, 12, 2)}, (8, 1, 3, 1), (12, 6.0, 5.0, 25, 9.5, 9.0)),
    )
    found = between(before, after, {}, NOW_S)
    assert found.events == {"labelled": {"5": (5, 100), "25": (4, 12)}, "wrong": {"5": (2, 9), "25": (0, 2)}}
    assert (found.pairs, found.values) == ((3, 0, 2, 0), (2, 1.0, 1.0, 5, 0.5, 1.0))


def test_beside_other_canaries_the_share_is_that_beside_the_champion() -> None:
    found = between(looked(100, weight="20:25"), looked(150, 1, weight="20:25"), {}, NOW_S)
    assert found.splits("requests") == [Split(0.25, 50, 1000)]
    assert found.at("requests", 0.2) == (50, 1000)
    assert found.plus(between(looked(0, weight="20"), looked(10, weight="20"), {}, NOW_S)).at("requests", 0.2) == (
        60,
        1200,
    )
    assert (weight_key(0.2, 0.6), weight_key(0.2, 0.8)) == ("20:25", "20")


def test_a_weight_is_written_without_an_exponent() -> None:
    assert [percent_text(weight) for weight in (0.05, 0.125, 1 / 3, 1e-6, 1.0)] == [
        "5",
        "12.5",
        "33.333333333",
        "0.0001",
        "100",
    ]


counts = st.integers(0, 10**6)
evidences = st.builds(
    Evidence,
    st.dictionaries(
        st.sampled_from(["requests", "first_errors", "p99"]),
        st.dictionaries(st.sampled_from(["5", "25", "25:30"]), st.tuples(counts, counts), max_size=3),
        max_size=3,
    ),
    st.tuples(counts, counts, counts),
    st.just(()) | st.tuples(counts, counts),
    st.tuples(counts, counts, counts, counts),
    st.tuples(*[counts.map(float)] * 6),
    st.floats(0, 1e9),
    st.lists(counts, min_size=24, max_size=24).map(tuple),
)


@given(evidences, evidences, evidences)
def test_evidence_adds_up_in_any_order(one: Evidence, two: Evidence, three: Evidence) -> None:
    assert one.plus(two).plus(three) == three.plus(one).plus(two) == one.plus(two.plus(three))


@given(evidences)
def test_evidence_is_read_as_it_was_written(evidence: Evidence) -> None:
    assert read_evidence(write_evidence(evidence)) == evidence


@given(st.lists(counts, min_size=2, max_size=6).map(sorted))
def test_many_looks_add_up_to_one(requests: list[int]) -> None:
    looks = [looked(each) for each in requests]
    parts = [between(a, b, {}, NOW_S) for a, b in pairwise(looks)]
    assert reduce(Evidence.plus, parts) == between(looks[0], looks[-1], {}, NOW_S)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"events": {"errors": {"five": [1, 2]}}}', '{"values": [1]}', '{"events": 3}', "[" * 5000]
)
def test_a_damaged_tag_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no evidence"):
        read_evidence(text)
