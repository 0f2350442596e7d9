from collections.abc import Callable

import pytest

from penstock_server.features.spec import limits, steps
from penstock_server.features.spec.spec import Categories, Hash, Join, Take, Text, Time

NAN, INF = float("nan"), float("inf")
KNOTS = (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "make",
    [
        lambda bad: steps.Fill((bad,)),
        lambda bad: steps.Fill((0,), bad),
        steps.IsMissing,
        lambda bad: steps.Clip((bad,), None),
        lambda bad: steps.Clip(None, (bad,)),
        lambda bad: steps.Standardise((bad,), (1,)),
        lambda bad: steps.Linear(None, (bad,)),
        lambda bad: steps.Binarise((bad,)),
        lambda bad: steps.Cyclic((bad,)),
        lambda bad: steps.Power("box-cox", (bad,)),
        lambda bad: steps.Quantiles(((bad,),), (0,)),
        lambda bad: steps.Quantiles(((0,),), (bad,)),
        lambda bad: steps.Bucket(((bad,),)),
        lambda bad: steps.Match(((bad,),)),
        lambda bad: steps.Lookup((((bad,),),)),
        lambda bad: steps.Spline(((*KNOTS, bad),), 1),
    ],
)
def test_parameters_are_never_infinite(make: Callable[[float], object]) -> None:
    for bad in (INF, -INF):
        with pytest.raises(ValueError, match="expected a finite number"):
            make(bad)


def test_nan_is_none_where_it_has_a_meaning() -> None:
    assert steps.Fill((NAN, 1)) == steps.Fill((None, 1.0))
    assert steps.Match(((NAN, -0.0),)) == steps.Match(((None, 0.0),))
    assert steps.Lookup((((NAN,),),)).values == (((None,),),)
    assert steps.Clip((NAN, 0), (1,)).low == (None, 0.0)
    for make in (lambda: steps.Binarise((NAN,)), lambda: steps.Standardise((NAN,)), lambda: steps.Bucket(((NAN,),))):
        with pytest.raises(ValueError, match="expected a finite number"):
            make()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (steps.Standardise, "neither mean nor scale"),
        (lambda: steps.Standardise((0,), (1, 0)), r"scale\[1\] is 0"),
        (steps.Linear, "neither scale nor offset"),
        (lambda: steps.Clip((1, 5), (2,)), "low 5.0 is above high 2.0"),
        (lambda: steps.Apply("gamma"), "'gamma' is unknown, expected one of abs, "),  # type: ignore[arg-type]
        (lambda: steps.Cyclic((0,)), "period is 0.0, expected a number above 0"),
        (lambda: steps.Quantiles(((1, 2),), (0, 0.5, 1)), r"quantiles\[0\] has 2 numbers, expected 3"),
        (lambda: steps.Quantiles(((2, 1),), (0, 1)), r"quantiles\[0\]\[1\] is 1.0 after 2.0"),
        (lambda: steps.Quantiles(((1, 2),), (0, 2)), "references go from 0.0 to 2.0, expected shares from 0 to 1"),
        (lambda: steps.Quantiles(((),), ()), "references is empty"),
        (lambda: steps.Spline((KNOTS,), 9), "degree is 9, expected 0 to 7"),
        (lambda: steps.Spline((KNOTS[:3],), 2), "too few for the degree 2"),
        (lambda: steps.Spline((KNOTS,), 2, "periodic"), "too few for the degree 2"),
        (lambda: steps.Spline((KNOTS, KNOTS[1:]), 1), r"knots\[1\] has 5 numbers, expected 6"),
        (lambda: steps.Spline(((0, 1, 1, 2, 3),), 1), "repeat inside the domain"),
        (lambda: steps.Match(((1, 2, 1),)), r"values\[0\]: the number '1' appears twice, expected it once"),
        (lambda: steps.Match(((None, NAN),)), "'nan' appears twice, expected it once"),
        (lambda: steps.OneHot(((0, 1),), (1,)), r"a position in columns\[0\] is 1, expected -1 to 0"),
        (lambda: steps.OneHot(((),), (1,)), r"columns\[0\] is empty"),
        (lambda: steps.OneHot(((0,),), (1, 2)), "columns has 1 entries and widths 2"),
        (lambda: steps.OneHot(((0,),), (limits.MAX_WIDTH + 1,)), "widths is 65537"),
        (lambda: steps.Lookup(((),)), r"values\[0\] is empty"),
        (lambda: steps.Lookup((((1,), (1, 2)),)), "rows of 1 and 2 numbers"),
        (lambda: steps.Polynomial(((1, 0),)), r"terms\[0\] is \[1, 0\], expected its factors in increasing order"),
        (lambda: steps.Polynomial(((0,) * 17,)), r"17 factors in terms\[0\]"),
        (lambda: steps.Select(()), "columns is empty"),
        (lambda: steps.Operation("eval", ()), "function 'eval' is unknown"),
        (lambda: steps.Operation("add", (0,)), "add takes 2 values, got 1"),
        (lambda: steps.Operation("abs", (0,), 1.0), "abs has a value, which only a constant has"),
        (lambda: steps.Operation("constant", (), float("inf")), "value is inf, expected a finite number"),
        (lambda: steps.Compute((), ()), "outputs is empty"),
        (lambda: steps.Compute((), (0,), ("a", "b")), "labels has 2 entries for 1 outputs"),
        (lambda: steps.Compute((steps.Operation("constant"),) * 8193, (0,)), "8193 operations, expected at most 8192"),
        (lambda: Time("t", ()), "parts is empty"),
        (lambda: Time("t", ("era",)), "part 'era' is unknown"),  # type: ignore[arg-type]
        (lambda: Hash(0), "width is 0, expected 1 to 65536"),
        (lambda: Hash(2, prefix="x" * 2000), "takes 2000 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused_at_birth(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            steps.Fill((1, 2, 3)),
            r"the block of 'a', 'b', step 0 \(fill\): values has 3 entries for 2 columns, expected 2 or 1",
        ),
        (steps.Standardise((1, 2), (1, 2, 3)), "scale has 3 entries for 2 columns"),
        (steps.Select((2,)), r"step 0 \(select\): columns\[0\] is 2, expected 0 to 1"),
        (steps.Select((-1,)), r"columns\[0\] is -1"),
        (steps.Polynomial(((0, 2),)), r"a factor in terms\[0\] is 2, expected 0 to 1"),
        (steps.OneHot(((0,),), (40_000,)), r"step 0 \(one_hot\): 80000 columns, expected at most 65536"),
        (steps.Lookup((((1,),),) * 3), "values has 3 entries for 2 columns"),
        (
            steps.Compute((steps.Operation("abs", (2,)),), (2,)),
            r"step 0 \(compute\): a value of operations\[0\] \(abs\) is 2, expected 0 to 1",
        ),
        (steps.Compute((steps.Operation("abs", (-1,)),), (2,)), "is -1, expected 0 to 1"),
        (steps.Compute((), (2,)), "a value in outputs is 2, expected 0 to 1"),
        (steps.Compute((), (0,), (), (5,)), "a value in required is 5, expected 0 to 1"),
    ],
)
def test_a_step_that_does_not_fit_its_block_is_refused_with_columns_and_step(step: steps.Step, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Take(("a", "b"), (step,))


def test_an_error_in_a_join_names_the_columns_below_it() -> None:
    inside = tuple(Take((name,)) for name in "abcd")
    with pytest.raises(ValueError, match=r"the block of 'a', 'b', 'c', ... \(4 columns\), step 0 \(fill\)"):
        Join(inside, (steps.Fill((1, 2)),))


NAMED = Text("s", Categories(("x", "y")), ())


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (steps.OneHot(((0, 1, 2),), (3,)), ["s=x", "s=y", "s=<unseen>"]),
        (steps.OneHot(((0, -1, -1),), (1,)), ["s=x"]),
        (steps.OneHot(((0, 0, 1),), (3,)), ["s=<x and 1 more>", "s=<unseen>", "s=<none>"]),
        (steps.Lookup((((1,), (2,), (3,)),)), ["s"]),
        (steps.Lookup((((1, 0), (2, 0), (3, 0)),)), ["s_0", "s_1"]),
        (steps.Cyclic((7,)), ["sin(s)", "cos(s)"]),
        (
            steps.Compute((steps.Operation("constant", (), 2.0), steps.Operation("power", (0, 1))), (0, 2, 1)),
            ["s", "power(s, ...)", "2.0"],
        ),
        (steps.Compute((), (0,), ("of people",)), ["of people"]),
        (steps.Polynomial(((), (0,), (0, 0))), ["1", "s", "s^2"]),
        (steps.Spline((KNOTS,), 2), ["s_sp_0", "s_sp_1", "s_sp_2"]),
    ],
)
def test_columns_are_named_for_people(step: steps.Step, expected: list[str]) -> None:
    assert [name.text for name in Text("s", Categories(("x", "y")), (step,)).names] == expected


def test_codes_of_numbers_are_named_by_what_they_stand_for() -> None:
    hot = steps.OneHot(((0, 1, 2, 3),), (4,))
    bucket = Take(("a",), (steps.Bucket(((0, 2.5),)), hot))
    assert [name.text for name in bucket.names] == ["a=[-inf,0)", "a=[0,2.5)", "a=[2.5,inf)", "a=<unseen>"]
    match = Take(("a",), (steps.Match(((1, None, 0.5),)), hot))
    assert [name.text for name in match.names] == ["a=1", "a=nan", "a=0.5", "a=<unseen>"]
    assert [name.text for name in Text("s", Hash(2)).names] == ["s_0", "s_1"]
