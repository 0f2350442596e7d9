"""Random specifications and random rows for them, hostile ones too."""

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from penstock_server.features.spec import limits, steps
from penstock_server.features.spec.blocks import TIME_PARTS
from penstock_server.features.spec.spec import (
    Block,
    Categories,
    FeatureSpec,
    Hash,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
    Time,
    TimeColumn,
)
from penstock_server.features.spec.steps_compute import FUNCTIONS_OF_TWO
from penstock_server.features.spec.steps_value import FUNCTIONS

NAN, INF = float("nan"), float("inf")
NUMBERS, TIMES, STRINGS = ("a", "b", "c"), ("u",), ("s", "t")
REALS = st.floats(width=64) | st.sampled_from([NAN, INF, -INF, 0.0, -0.0, -1.0, 0.5, 2.0, 5e-324, 1e308, -1e308])
FINITE = st.floats(-1e6, 1e6, allow_nan=False, allow_infinity=False, width=32)
NEAR = st.floats(-4, 4, width=32)
WORDS = st.sampled_from(["", "a", "b", "ab", "abcdefgh", "abcdefghi", "é", "a\0", "x" * 300]) | st.text(max_size=12)
EXACT = (
    "abs",
    "ceil",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "logical_not",
    "negative",
    "reciprocal",
    "rint",
    "sign",
    "single",
    "sqrt",
    "square",
    "trunc",
)
EXACT_OF_TWO = tuple(name for name in FUNCTIONS_OF_TWO if name not in {"arctan2", "hypot", "power"})
MOMENTS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 0, -1, 86_400 * 10**9, 951_782_400 * 10**9])


def each(values: st.SearchStrategy[Any], width: int) -> st.SearchStrategy[Any]:
    """A parameter for each column, or one for all."""
    return st.lists(values, min_size=width, max_size=width).map(tuple) | values.map(lambda value: (value,))


def increasing(least: int, most: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.sets(NEAR.map(lambda value: value + 0.0), min_size=least, max_size=most).map(
        lambda found: tuple(sorted(found))
    )


def maps(width: int) -> st.SearchStrategy[steps.Step]:
    """What makes columns of codes."""
    places = st.integers(1, 4).flatmap(
        lambda size: st.tuples(st.lists(st.integers(-1, size - 1), min_size=1, max_size=5).map(tuple), st.just(size))
    )
    hot = each(places, width).map(lambda found: steps.OneHot(tuple(f[0] for f in found), tuple(f[1] for f in found)))
    rows = st.integers(1, 3).flatmap(
        lambda size: st.lists(st.tuples(*[FINITE | st.none()] * size), min_size=1, max_size=5).map(tuple)
    )
    return hot | each(rows, width).map(steps.Lookup)


def knots() -> st.SearchStrategy[steps.Spline]:
    def make(degree: int, inner: tuple[float, ...], kind: Any, bias: bool, missing: Any) -> steps.Spline:
        before = [inner[0] - at - 1 for at in range(degree)][::-1]
        after = [inner[-1] + at + 1 for at in range(degree)]
        return steps.Spline(((*before, *inner, *after),), degree, kind, bias, missing)

    kinds = st.sampled_from(["constant", "linear", "continue", "periodic", "refuse"])
    inner = increasing(5, 8).filter(lambda found: all(b - a > 1e-3 for a, b in pairwise(found)))
    return st.builds(make, st.integers(1, 3), inner, kinds, st.booleans(), st.sampled_from(["nan", "zeros"]))


def quantiles(width: int) -> st.SearchStrategy[steps.Step]:
    def make(count: int) -> st.SearchStrategy[steps.Step]:
        values = st.lists(NEAR, min_size=count, max_size=count).map(lambda found: tuple(sorted(found)))
        shares = tuple(at / (count - 1) for at in range(count))
        kinds = st.sampled_from(["uniform", "normal"])
        return st.builds(lambda known, kind: steps.Quantiles(known, shares, kind), each(values, width), kinds)

    return st.integers(2, 7).flatmap(make)


@st.composite
def expressions(draw: Any, width: int) -> steps.Compute:
    """Exact functions of columns and of each other."""
    operations: list[steps.Operation] = []
    for at in range(draw(st.integers(0, 6))):
        earlier = st.integers(0, width + at - 1)
        operations.append(
            draw(
                st.one_of(
                    st.builds(steps.Operation, st.just("constant"), st.just(()), FINITE | st.none()),
                    st.builds(steps.Operation, st.sampled_from(EXACT), st.tuples(earlier)),
                    st.builds(steps.Operation, st.sampled_from(EXACT_OF_TWO), st.tuples(earlier, earlier)),
                    st.builds(steps.Operation, st.just("where"), st.tuples(earlier, earlier, earlier)),
                )
            )
        )
    places = st.integers(0, width + len(operations) - 1)
    required = [at + width for at, each in enumerate(operations) if each.function == "isfinite"]
    outputs = tuple(draw(st.lists(places, min_size=1, max_size=4)))
    return steps.Compute(tuple(operations), outputs, (), tuple(required[:1]) if draw(st.booleans()) else ())


def exact_steps(width: int) -> st.SearchStrategy[steps.Step]:
    """The steps whose results are the same to the last bit."""
    terms = st.lists(
        st.lists(st.integers(0, width - 1), max_size=3).map(lambda f: tuple(sorted(f))), min_size=1, max_size=5
    )
    optional = each(FINITE, width) | st.none()
    positive = each(st.floats(1e-3, 1e6), width) | st.none()
    either = st.tuples(optional, positive).filter(lambda found: found != (None, None))
    values = st.lists(st.sampled_from([None, 0.0, 1.0, 2.0, -3.5]), unique=True, max_size=4).map(tuple)
    return st.one_of(
        st.lists(st.integers(0, width - 1), min_size=1, max_size=4).map(lambda found: steps.Select(tuple(found))),
        st.builds(steps.Fill, each(FINITE | st.none(), width), st.none() | st.sampled_from([0.0, -1.0])),
        st.builds(steps.IsMissing, st.none() | st.sampled_from([0.0, -1.0])),
        each(st.tuples(FINITE, FINITE).map(sorted), width).map(
            lambda found: steps.Clip(tuple(f[0] for f in found), tuple(f[1] for f in found))
        ),
        each(FINITE | st.none(), width).map(lambda low: steps.Clip(low=low)),
        either.map(lambda found: steps.Standardise(*found)),
        either.map(lambda found: steps.Linear(found[1], found[0])),
        st.sampled_from(EXACT).map(steps.Apply),
        st.sampled_from([steps.Refuse(missing=True), steps.Refuse(largest=2.5), steps.Refuse(True, 1e300)]),
        each(FINITE, width).map(steps.Binarise),
        each(increasing(0, 9), width).map(steps.Bucket),
        st.just(steps.Bucket((tuple(at / 10 for at in range(80)),))),
        st.builds(steps.Match, each(values, width), st.sampled_from(["code", "code", "refuse"])),
        maps(width),
        terms.map(lambda found: steps.Polynomial(tuple(found))),
        expressions(width),
    )


def near_steps(width: int) -> st.SearchStrategy[steps.Step]:
    """The steps whose results may differ in their last bits."""
    return st.one_of(
        st.sampled_from([name for name in FUNCTIONS if name not in EXACT]).map(steps.Apply),
        each(st.floats(0.5, 50), width).map(steps.Cyclic),
        st.builds(steps.Power, st.just("yeo-johnson"), each(st.floats(-3, 3), width)),
        st.builds(steps.Power, st.just("box-cox"), each(st.floats(-3, 3), width)),
        quantiles(width),
        knots(),
        st.builds(steps.Normalise, st.sampled_from(["l1", "l2", "max"])),
    )


@st.composite
def with_steps(draw: Any, width: int, most: int) -> tuple[steps.Step, ...]:
    """Some steps, one after another."""
    found: list[steps.Step] = []
    for _ in range(draw(st.integers(0, most))):
        if not 0 < width <= 40:
            break
        step = draw(exact_steps(width))
        found.append(step)
        width = step.width(width)
    return tuple(found)


@st.composite
def blocks(draw: Any, depth: int = 2) -> Block:
    kind = draw(st.sampled_from(["take", "text", "time", "join"] if depth else ["take", "text", "time"]))
    if kind == "time":
        parts = tuple(draw(st.lists(st.sampled_from(TIME_PARTS), min_size=1, max_size=4)))
        return Time(draw(st.sampled_from(TIMES)), parts, draw(with_steps(len(parts), 2)))
    if kind == "take":
        columns = tuple(draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4)))
        return Take(columns, draw(with_steps(len(columns), 4)))
    if kind == "join":
        inside = tuple(draw(st.lists(blocks(depth - 1), min_size=1, max_size=3)))
        return Join(inside, draw(with_steps(sum(block.width for block in inside), 2)))
    values = draw(st.lists(WORDS, unique=True, max_size=5).map(tuple))
    missing = draw(st.none() | st.integers(0, len(values))) if "" not in values else None
    encode = draw(
        st.just(Categories(values, missing, draw(st.sampled_from(["code", "code", "refuse"]))))
        | st.builds(
            Hash,
            st.integers(1, 6),
            st.booleans(),
            st.sampled_from(["", "s=", "a long prefix"]),
            st.sampled_from(["hash", "zeros"]),
        )
    )
    return Text(draw(st.sampled_from(STRINGS)), encode, draw(with_steps(encode.width, 3)))


NUMBER = st.sampled_from([(), (), ("accept",), ("refuse",), (None, 1e6), ("refuse", 3.5)])
TIME = st.sampled_from([(), (), ("accept",), ("refuse",)])
STRING = st.sampled_from([(), (), ("refuse",), ("text",)])
COLUMNS = st.tuples(
    *(NUMBER.map(lambda accepts, name=name: NumberColumn(name, *accepts)) for name in NUMBERS),
    *(TIME.map(lambda accepts, name=name: TimeColumn(name, *accepts)) for name in TIMES),
    *(STRING.map(lambda accepts, name=name: StringColumn(name, *accepts)) for name in STRINGS),
)
SPECS = st.builds(
    lambda columns, block: FeatureSpec(columns, block, "FP64"),
    COLUMNS,
    blocks().filter(lambda block: 0 < block.width <= limits.MAX_WIDTH),
)
ROWS = st.lists(st.tuples(REALS, REALS, REALS, MOMENTS, WORDS, WORDS), max_size=20)


def table_of(rows: list[tuple[float, float, float, int, str, str]]) -> dict[str, list[Any]]:
    """The rows as columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    return dict(zip((*NUMBERS, *TIMES, *STRINGS), map(list, columns), strict=True))
