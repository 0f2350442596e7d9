import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.durations import duration_in_words, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        (" 5m ", 300),
        ("7", 7),
        (7, 7),
        (0, 0),
    ],
)
def test_it_reads_what_people_write(text: object, seconds: float) -> None:
    assert parse_duration(text, "hold") == seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "10 m", "10min", "-5m", "1h-30m", "5m3", "1e9", "367d", math.nan, math.inf, -1, True, None, [], {}],
)
def test_what_is_no_duration_is_refused_by_its_name(text: object) -> None:
    with pytest.raises(InvalidInputError, match=r"hold is .*, expected a duration such as"):
        parse_duration(text, "hold")


@given(st.integers(0, 366 * 86400))
def test_words_say_the_number_of_seconds(seconds: int) -> None:
    number, unit = duration_in_words(float(seconds)).split()
    unit_s = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[unit.removesuffix("s")]
    assert float(number) * unit_s == pytest.approx(seconds, rel=1e-5)
