from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.control.residency import Changes, Held, changes

MIB = 1 << 20
NOW_S = 1000.0
LONG_AGO_S = 0.0


def held(size: int = 10, used_s: float = LONG_AGO_S, since_s: float = LONG_AGO_S, **more: Any) -> Held:
    return Held(size * MIB, used_s, since_s, **more)


def decided(models: dict[str, Held], asked: dict[str, int], *, used: int, budget: int = 100) -> Changes:
    asked = {name: size * MIB for name, size in asked.items()}
    return changes(models, asked, used_bytes=used * MIB, budget_bytes=budget * MIB, stay_s=10.0, now_s=NOW_S)


OLD, NEW = held(used_s=10), held(used_s=20)


@pytest.mark.parametrize(
    ("models", "asked", "used", "let_in", "evict"),
    [
        pytest.param({}, {"a": 10}, 90, ["a"], {}, id="it fits"),
        pytest.param({"old": OLD, "new": NEW}, {"a": 10}, 95, ["a"], {"old": "room"}, id="the least recently used leaves"),
        pytest.param(
            {"old": OLD, "new": NEW}, {"a": 10}, 97, ["a"], {"old": "room", "new": "room"}, id="with slack for the next"
        ),
        pytest.param(
            {"old": held(used_s=10, is_pinned=True), "new": NEW}, {"a": 10}, 95, ["a"], {"new": "room"}, id="none pinned"
        ),
        pytest.param(
            {"old": held(used_s=10, is_busy=True), "new": NEW}, {"a": 10}, 95, ["a"], {"new": "room"}, id="none with calls"
        ),
        pytest.param(
            {"old": held(used_s=10, since_s=NOW_S - 9), "new": NEW}, {"a": 10}, 95, ["a"], {"new": "room"}, id="none so new"
        ),
        pytest.param({"old": held(since_s=NOW_S - 9)}, {"a": 10}, 95, [], {}, id="it waits while nothing may leave"),
        pytest.param({"old": held(50, since_s=NOW_S)}, {"a": 40, "b": 1}, 80, [], {}, id="who comes later waits behind it"),
        pytest.param({"old": OLD}, {"a": 3, "b": 2}, 95, ["a", "b"], {}, id="several at once"),
        pytest.param({"old": OLD, "new": NEW}, {}, 101, [], {"old": "measured"}, id="the process has grown"),
        pytest.param({"old": held(used_s=NOW_S - 9)}, {}, 101, [], {}, id="what is in use does not leave for that"),
        pytest.param({"old": held(used_s=NOW_S - 9)}, {"a": 10}, 95, [], {}, id="nor for another one"),
    ],
)  # fmt: skip
def test_what_comes_and_goes(
    models: dict[str, Held], asked: dict[str, int], used: int, let_in: list[str], evict: dict[str, str]
) -> None:
    found = decided(models, asked, used=used)
    assert (list(found.let_in), dict(found.evict), dict(found.too_large)) == (let_in, evict, {})


def test_a_model_that_never_fits_is_told_so_and_holds_up_nobody() -> None:
    found = decided({"p": held(60, is_pinned=True), "old": OLD}, {"huge": 50, "a": 5}, used=80)
    assert found.let_in == ("a",)
    assert found.too_large == {
        "huge": "needs about 50 MiB, and the worker takes 70 MiB without the models that may leave; "
        "residency.memory_budget_mib leaves 100"
    }


MODELS = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(
        Held,
        st.integers(0, 50 * MIB),
        used_s=st.floats(0, NOW_S),
        since_s=st.floats(0, NOW_S),
        is_pinned=st.booleans(),
        is_busy=st.booleans(),
    ),
)
ASKED = st.dictionaries(st.sampled_from("stuvwxyz"), st.integers(0, 60 * MIB))


@given(MODELS, ASKED, st.integers(0, 50 * MIB), st.integers(1, 200 * MIB))
def test_what_holds_whatever_happens(models: dict[str, Held], asked: dict[str, int], rest: int, budget: int) -> None:
    used = rest + sum(one.size_bytes for one in models.values())
    found = changes(models, asked, used_bytes=used, budget_bytes=budget, stay_s=10.0, now_s=NOW_S)
    gone = sum(models[name].size_bytes for name in found.evict)
    come = sum(asked[name] for name in found.let_in)
    assert not any(models[name].is_pinned or models[name].is_busy for name in found.evict)
    assert not any(NOW_S - max(models[name].since_s, models[name].used_s) < 10 for name in found.evict)
    assert not come or used - gone + come <= budget
    # Those that are let in are the first of those that fit at all.
    assert list(found.let_in) == [name for name in asked if name not in found.too_large][: len(found.let_in)]
    # Nothing leaves that was used later than something that stays and might have left.
    may_go = {
        name
        for name, one in models.items()
        if not (one.is_pinned or one.is_busy or NOW_S - max(one.since_s, one.used_s) < 10)
    }
    stayed = [models[name].used_s for name in may_go - found.evict.keys()]
    assert not stayed or all(models[name].used_s <= min(stayed) for name in found.evict)


@given(MODELS, ASKED, st.integers(0, 50 * MIB), st.integers(1, 200 * MIB))
def test_a_second_look_changes_nothing(models: dict[str, Held], asked: dict[str, int], rest: int, budget: int) -> None:
    used = rest + sum(one.size_bytes for one in models.values())
    found = changes(models, asked, used_bytes=used, budget_bytes=budget, stay_s=10.0, now_s=NOW_S)
    left = {name: one for name, one in models.items() if name not in found.evict}
    left |= {name: Held(asked[name], NOW_S, NOW_S) for name in found.let_in}
    still_asked = {
        name: size for name, size in asked.items() if name not in found.let_in and name not in found.too_large
    }
    used = rest + sum(one.size_bytes for one in left.values())
    again = changes(left, still_asked, used_bytes=used, budget_bytes=budget, stay_s=10.0, now_s=NOW_S)
    # What was let in may have made another one too large, which is found out only now.
    assert (again.let_in, {name for name in again.evict if name in found.let_in}) == ((), set())
