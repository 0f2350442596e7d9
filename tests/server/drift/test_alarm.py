import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift.alarm import AlarmState, after_window


def run(*windows: bool | None) -> list[bool]:
    """Whether the alarm of one column is on after each window, a second apart."""
    state, shown = AlarmState(), []
    for at, drifted in enumerate(windows):
        state = after_window(state, {"x": drifted}, float(at))
        shown.append("x" in state.since_s)
    return shown


@pytest.mark.parametrize(
    ("windows", "on"),
    [
        ([True], [False]),
        ([True, True], [False, True]),
        ([True, False, True], [False, False, False]),
        ([True, None, True], [False, False, True]),
        ([True, True, False], [False, True, True]),
        ([True, True, False, False], [False, True, True, False]),
        ([True, True, False, True, False], [False, True, True, True, True]),
        ([True, True, None, None], [False, True, True, True]),
        ([None, None, None], [False, False, False]),
    ],
)
def test_it_takes_two_windows_both_ways(windows: list[bool | None], on: list[bool]) -> None:
    assert run(*windows) == on


def test_it_says_since_when() -> None:
    state = AlarmState()
    for at in range(5):
        state = after_window(state, {"x": True, "y": at >= 3}, float(at))
    assert dict(state.since_s) == {"x": 1.0, "y": 4.0}


def test_a_column_that_is_gone_is_forgotten() -> None:
    state = after_window(after_window(AlarmState(), {"x": True}, 0.0), {"x": True}, 1.0)
    assert dict(after_window(state, {"y": False}, 2.0).since_s) == {}


@given(st.lists(st.none() | st.booleans(), max_size=40))
def test_a_change_needs_two_equal_windows_just_before(windows: list[bool | None]) -> None:
    shown = [False, *run(*windows)]
    for at in range(len(windows)):
        if shown[at + 1] != shown[at]:
            said = [one for one in windows[: at + 1] if one is not None]
            assert said[-2:] == [shown[at + 1]] * 2


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans(), min_size=3), max_size=20))
def test_columns_are_each_alone(windows: list[dict[str, bool | None]]) -> None:
    state = AlarmState()
    for at, drifted in enumerate(windows):
        state = after_window(state, drifted, float(at))
    for name in "abc":
        assert (name in state.since_s) is ([False, *run(*(one[name] for one in windows))][-1])
