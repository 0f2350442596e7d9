"""The record of calls in a tag: short enough for MLflow, and nothing that holds a rule back is lost in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.retraining.record import MAX_TAG_BYTES, MAX_TEXT, read_calls, write_calls
from penstock_server.retraining.settings import DAY_S
from penstock_server.retraining.state import RetrainingCall

NOW_S = 1_800_000_000.0


def call(number: int, at_s: float, *, is_open: bool = False, text: str = "") -> RetrainingCall:
    return RetrainingCall(
        f"{number:032x}", "rule", "action", "3", "i" * 64, ("3",), text, at_s, "sent" if is_open else "done", text,
        ended_s=None if is_open else at_s + 1,
    )  # fmt: skip


ages = st.lists(st.floats(0, 3 * DAY_S), max_size=60).map(lambda found: sorted(found, reverse=True))


@given(ages, st.booleans(), st.text(max_size=300))
def test_a_tag_has_all_calls_of_a_day_and_the_open_one_or_there_is_none(
    found: list[float], is_open: bool, text: str
) -> None:
    calls = [
        call(number, NOW_S - age, is_open=is_open and age == found[-1], text=text) for number, age in enumerate(found)
    ]
    recent = [each for each in calls if each.is_open or NOW_S - each.at_s < DAY_S]
    if len(write_calls(recent, NOW_S, 10**6).encode()) > MAX_TAG_BYTES:
        with pytest.raises(InvalidInputError, match=r"set a lower retraining.per_day"):
            write_calls(calls, NOW_S)
        return
    written = write_calls(calls, NOW_S)
    assert len(written.encode()) <= MAX_TAG_BYTES
    kept = read_calls(written)
    assert [each.id for each in kept] == [each.id for each in calls[len(calls) - len(kept) :]]
    assert {each.id for each in recent} <= {each.id for each in kept}
    assert write_calls(kept, NOW_S) == written  # whoever reads it finds nothing to write


def test_the_default_cap_of_a_day_fits_with_long_texts() -> None:
    calls = [call(number, NOW_S - 60, is_open=number == 3, text="\u00e4" * 1000) for number in range(4)]
    kept = read_calls(write_calls(calls, NOW_S))
    assert len(kept) == 4
    assert {len(each.reason) for each in kept} == {MAX_TEXT}


@pytest.mark.parametrize("text", ["nonsense", "{}", '[{"id": 3}]', "[" * 100_000])
def test_a_tag_that_holds_something_else_is_named(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"'penstock.retraining' is no record of calls"):
        read_calls(text)


def test_no_tag_is_no_call() -> None:
    assert read_calls("") == ()
    assert not write_calls((), NOW_S)
