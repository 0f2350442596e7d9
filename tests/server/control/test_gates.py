from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.control.gates import NOISE_S, refusals
from penstock_server.control.settings import AirlockSettings
from penstock_server.control.verdict import Verdict
from penstock_server.errors import InvalidInputError

MIB = 1 << 20
FREE = AirlockSettings()


def verdict(mib: float = 0, base_ms: float = 0, row_ms: float = 0) -> Verdict:
    return Verdict(memory_bytes=int(mib * MIB), base_s=base_ms / 1e3, row_s=row_ms / 1e3)


A, B, C = ("a", "1"), ("a", "2"), ("b", "1")


def refused(
    verdicts: dict[Any, Verdict], settings: AirlockSettings, loaded: set[Any], answering: dict[str, str]
) -> dict[Any, str]:
    return refusals([A, B, C], verdicts, loaded=loaded, answering=answering, settings=settings)


BUDGET = AirlockSettings(memory_budget_mib=100)
FACTOR = AirlockSettings(latency_factor=2.0)


@pytest.mark.parametrize(
    ("verdicts", "settings", "loaded", "expected"),
    [
        ({A: verdict(60), B: verdict(60)}, FREE, set(), {}),
        (
            {A: verdict(60), B: verdict(60), C: verdict(40)},
            BUDGET,
            set(),
            {B: "needs about 60 MiB, and the other versions 60"},
        ),
        (
            {A: verdict(60), B: verdict(60), C: verdict(40)},
            BUDGET,
            {B},
            {A: "needs about 60 MiB, and the other versions 60"},
        ),
        ({A: verdict(101)}, BUDGET, set(), {A: "of the 100 MiB that airlock.memory_budget_mib allows"}),
        ({A: verdict(101)}, BUDGET, {A}, {}),  # what is loaded stays
        ({A: verdict(100), B: verdict(0)}, BUDGET, set(), {}),
        ({A: verdict(60)}, BUDGET, {B}, {}),  # nothing is known of what it takes
    ],
)
def test_what_does_not_fit_beside_the_others_stays_out(
    verdicts: Any, settings: AirlockSettings, loaded: Any, expected: Any
) -> None:
    found = refused(verdicts, settings, loaded, {})
    assert found.keys() == expected.keys()
    assert all(expected[key] in reason for key, reason in found.items())


@pytest.mark.parametrize(
    ("former", "new", "is_out"),
    [
        (verdict(0, 1.0, 0.1), verdict(0, 2.0, 0.2), False),
        (verdict(0, 1.0, 0.1), verdict(0, 2.5, 0.2), True),
        (verdict(0, 1.0, 0.1), verdict(0, 1.0, 0.3), True),  # only large batches
        (verdict(0, 0.01, 0.0), verdict(0, 0.01 + NOISE_S * 1e3, 0.0), False),
        (verdict(), verdict(0, 100.0, 1.0), False),  # nothing to compare it with
        (verdict(0, 1.0, 0.1), verdict(), False),
    ],
)
def test_what_is_slower_than_the_version_that_it_replaces_stays_out(
    former: Verdict, new: Verdict, is_out: bool
) -> None:
    verdicts = {A: former, B: new}
    found = refused(verdicts, FACTOR, {A}, {"a": "1"})
    assert set(found) == ({B} if is_out else set())
    assert all("version 1, which it is to replace" in reason for reason in found.values())
    assert refused(verdicts, FREE, {A}, {"a": "1"}) == {}
    assert refused(verdicts, FACTOR, {A}, {}) == {}
    assert refused(verdicts, FACTOR, {A, B}, {"a": "1"}) == {}


@given(
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=8),
    loaded=st.sets(st.integers(0, 7)),
    budget=st.integers(1, 400),
)
def test_what_is_let_in_never_passes_the_budget(sizes: list[int], loaded: set[int], budget: int) -> None:
    order = [("m", str(number)) for number in range(len(sizes))]
    verdicts = {key: verdict(size) for key, size in zip(order, sizes, strict=True)}
    held = {order[number] for number in loaded if number < len(order)}
    out = refusals(order, verdicts, loaded=held, answering={}, settings=AirlockSettings(memory_budget_mib=budget))
    assert not held & out.keys()
    used = sum(sizes[int(key[1])] for key in order if key not in out)
    assert used <= max(budget, sum(sizes[int(key[1])] for key in held))
    # Nobody is left out that would fit beside all that are in.
    assert all(
        used + sizes[int(key[1])] > budget
        for key in out
        if all(later in out or later in held for later in order[order.index(key) :])
    )


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"memory_budget_mib": 0}, "memory_budget_mib is 0"),
        ({"latency_factor": 0.9}, "latency_factor is 0.9"),
        ({"latency_factor": float("nan")}, "latency_factor is nan"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        AirlockSettings(**settings)
