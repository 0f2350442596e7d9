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
)

A, B = Take(("a",)), Take(("b",))
BOTH = ("a", "b")
KNOTS = (tuple(float(at) for at in range(8)),)


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
        (Join((A, B), (steps.Fill((0,)),)), ""),
        (Join((Text("s", Categories(())), Join((B,))), (steps.Select((1,)),)), "b"),
        (Text("s", Categories(()), (steps.OneHot(((-1,),), (0,)), steps.Fill((0,)))), ""),
    ],
)
def test_what_fills_asks_or_encodes_lets_no_nan_through(block: Block, expected: str) -> None:
    join = Join((block, Text("s", Categories(()))))
    spec = FeatureSpec((NumberColumn("a"), NumberColumn("b"), StringColumn("s")), join)
    assert reaching(spec) == set(expected)
