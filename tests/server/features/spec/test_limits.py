from math import inf, nan
from typing import Any

import pytest

from penstock_server.features.spec import limits


def test_increasing_numbers_are_plain_floats() -> None:
    found = limits.increasing_of("edges", (1, 2.5, True + 2))
    assert found == (1.0, 2.5, 3.0)
    assert {type(value) for value in found} == {float}
    assert limits.increasing_of("edges", (1, 1), strictly=False) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1, 1), r"edges\[1\] is 1.0 after 1.0, expected them to increase"),
        ((2, 1), r"edges\[1\] is 1.0 after 2.0"),
        ((0, inf), r"edges\[1\] is inf, expected a finite number"),
        ((nan,), r"edges\[0\] is nan"),
        ((0,) * (limits.MAX_EDGES + 1), f"{limits.MAX_EDGES + 1} edges, expected at most {limits.MAX_EDGES}"),
    ],
)
def test_numbers_that_do_not_increase(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        limits.increasing_of("edges", values)


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (None, None), (nan, None), (-0.0, 0.0)])
def test_nan_is_none(value: float | None, expected: float | None) -> None:
    assert limits.real_of("value", value) == expected


@pytest.mark.parametrize("name", ["", "a\nb", "a" * (limits.MAX_NAME + 1)])
def test_names_that_do_not_fit_a_label(name: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 256 printable characters"):
        limits.name(name)


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (limits.at_most, ("steps", 3, 2), "3 steps, expected at most 2"),
        (limits.between, ("degree", 8, 0, 7), "degree is 8, expected 0 to 7"),
        (limits.distinct, ("column", ("a", "b", "a")), "column 'a' appears twice, expected it once"),
        (limits.utf8, ("category", "\ud800", 9), "cannot be written as UTF-8"),
        (limits.utf8, ("category", "ääää", 7), "takes 8 bytes, expected at most 7"),
    ],
)
def test_a_limit_names_what_exceeds_it(check: Any, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(*arguments)


def test_the_last_value_within_each_limit_is_allowed() -> None:
    limits.at_most("steps", 2, 2)
    limits.between("degree", 7, 0, 7)
    limits.distinct("column", ("a", "b"))
    limits.name("a" * limits.MAX_NAME)
    assert limits.utf8("category", "ääää", 8) == "ääää".encode()


def test_three_names_are_listed() -> None:
    assert limits.listed("abc") == "'a', 'b', 'c'"
    assert limits.listed("abcd") == "'a', 'b', 'c', ... (4 columns)"
