import pytest

from penstock_server.features.compiler.missing import reaching
from penstock_server.features.spec import steps
from penstock_server.features.spec.spec import (
    Block,
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
    Time,
    TimeColumn,
)

A, B = Take(("a",)), Take(("b",))
BOTH = ("a", "b")
KNOTS = (tuple(float(at) for at in range(8)),)


def computed(function: str, *of: int) -> steps.Compute:
    return steps.Compute((steps.Operation(function, of),), (2,))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (A, "a"),
        (Take(BOTH, (steps.Fill((0,)),)), ""),
        (Take(BOTH, (steps.Fill((0,), missing=-1),)), "ab"),
        (Take(BOTH, (steps.Fill((None,)),)), "ab"),
        (Take(BOTH, (steps.Standardise((0,), (1,)), steps.Apply("log1p"))), "ab"),
        (Take(BOTH, (steps.Select((1, 1)),)), "b"),
        (Take(BOTH, (steps.Select((1,)), steps.Cyclic((24,)))), "b"),
        (Take(BOTH, (steps.Polynomial(((), (0, 0))),)), "a"),
        (Take(BOTH, (steps.Polynomial(((0, 1),)),)), "ab"),
        (Take(BOTH, (steps.Normalise(), steps.Select((0,)))), "ab"),
        (Take(BOTH, (steps.Bucket(((0,),)),)), ""),
        (Take(BOTH, (steps.Binarise(),)), ""),
        (Take(BOTH, (steps.IsMissing(),)), ""),
        (Take(BOTH, (steps.Apply("isnan"),)), ""),
        (Take(BOTH, (steps.Match(((1,),)), steps.Lookup((((1,), (2,)),)))), ""),
        (Take(BOTH, (steps.Spline(KNOTS, 2, missing="zeros"),)), ""),
        (Take(BOTH, (steps.Spline(KNOTS, 2),)), "ab"),
        (Join((A, Take(("a",), (steps.Fill((0,)),)))), "a"),
        (Take(BOTH, (computed("add", 0, 1),)), "ab"),
        (Take(BOTH, (computed("less", 0, 1),)), ""),
        (Take(BOTH, (computed("fmax", 0, 1),)), ""),
        (
            Take(BOTH, (steps.Compute((steps.Operation("isnan", (0,)), steps.Operation("where", (2, 1, 0))), (3,)),)),
            "b",
        ),
        (
            Take(BOTH, (steps.Compute((steps.Operation("isnan", (1,)), steps.Operation("where", (2, 1, 0))), (3,)),)),
            "ab",
        ),
        (Time("u", ("hour", "is_month_end")), "u"),
        (Time("u", ("is_month_end",)), ""),
        (Join((A, B), (steps.Fill((0,)),)), ""),
        (Join((Text("s", Categories(())), Join((B,))), (steps.Select((1,)),)), "b"),
        (Text("s", Categories(()), (steps.OneHot(((-1,),), (0,)), steps.Fill((0,)))), ""),
    ],
)
def test_what_fills_asks_or_encodes_lets_no_nan_through(block: Block, expected: str) -> None:
    join = Join((block, Text("s", Categories(()))))
    spec = FeatureSpec((NumberColumn("a"), NumberColumn("b"), StringColumn("s"), TimeColumn("u")), join)
    assert reaching(spec) == set(expected)
