import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.features.spec.blocks import Join, Take
from penstock_server.features.spec.steps import Linear, Select
from penstock_tools.sklearn_compiler.columns import (
    InGraph,
    Numbers,
    Strings,
    join,
    numbers,
    pick,
    singles,
    then,
    together,
)
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused

RAW = Take(("a", "b", "c"))
SCALED = then(Take(("d", "e")), Linear((2.0,)))
TEXT = Strings("t", {})
MADE = InGraph(RAW, lambda x, _: x, 2)


def names(parts):
    return [name.text for name in numbers(parts).names]


blocks = st.lists(st.integers(1, 4), min_size=1, max_size=4).flatmap(
    lambda widths: st.tuples(*(st.tuples(st.just(width), st.booleans()) for width in widths))
)


@given(blocks, st.data())
def test_the_picked_columns_are_the_named_ones_in_their_order(shapes, data):
    parts, known = [], []
    for at, (width, is_scaled) in enumerate(shapes):
        block = Take(tuple(f"c{at}_{column}" for column in range(width)))
        parts.append(Numbers(then(block, Linear((2.0,))) if is_scaled else block))
        known += block.columns
    chosen = data.draw(st.lists(st.integers(0, len(known) - 1), min_size=1, max_size=8))
    assert names(pick(parts, chosen)) == [known[at] for at in chosen]


def test_adjacent_numbers_are_one_part_and_raw_columns_one_block():
    assert together([Numbers(Take(("a",))), Numbers(Take(("b",))), TEXT, Numbers(RAW)]) == (
        Numbers(Take(("a", "b"))),
        TEXT,
        Numbers(RAW),
    )


def test_a_join_is_flat():
    assert join([Join((RAW, SCALED)), Take(("f",)), Take(("g",))]) == Join((RAW, SCALED, Take(("f", "g"))))


def test_a_step_selects_only_where_it_must():
    assert pick([Numbers(RAW)], [2, 0]) == (Numbers(Take(("c", "a"))),)
    assert pick([Numbers(SCALED)], [1]) == (Numbers(then(SCALED, Select((1,)))),)
    assert pick([Numbers(Join((RAW, SCALED)))], [3, 4]) == (Numbers(SCALED),)


def test_text_is_passed_on_whole_and_is_no_number():
    assert pick([Numbers(RAW), TEXT], [3, 1]) == (TEXT, Numbers(Take(("b",))))
    with pytest.raises(Refused, match="column 't' is picked more than once"):
        pick([TEXT], [0, 0])
    with pytest.raises(Refused, match="column 't' is text when it gets there"):
        numbers([TEXT])


def test_the_graph_chooses_from_what_it_makes():
    assert pick([MADE], [0, 1]) == (MADE,)
    (chosen,) = pick([MADE], [1])
    assert (chosen.block, chosen.width) == (RAW, 1)
    with pytest.raises(NotCompiled, match="what comes before it is in the graph"):
        numbers([MADE])


def test_no_columns_are_no_block():
    with pytest.raises(NotCompiled, match="no columns reach it"):
        numbers([])


def test_texts_are_known_by_what_they_stand_for():
    assert Strings("t", {"": "none"}).texts(["a", "none"]) == {"a": "a", "none": "none", "": "none"}
    assert Strings("t", {"": "none", "a": "a"}, "rare").texts(["a", "b", "rare"]) == {"": "none", "a": "a"}


def test_each_column_alone():
    assert singles([Numbers(RAW), TEXT]) == (*(Numbers(Take((name,))) for name in "abc"), TEXT)
    assert [part.width for part in singles([MADE])] == [1, 1]
