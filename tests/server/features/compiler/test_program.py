import time

import numpy as np
import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.features.compiler import layout, program
from penstock_server.features.compiler.program import block_rows, compile_program
from penstock_server.features.pipeline import Pipeline
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
from penstock_server.features.spec.steps import Fill, Lookup, OneHot, Polynomial, Standardise

NUMBERS = ("a", "b", "c")
COLUMNS = (*map(NumberColumn, NUMBERS), StringColumn("s"))


def operations(block: Block) -> list[int]:
    words = compile_program(FeatureSpec(COLUMNS, block), None).words
    found, at = [], int(words[layout.CODE])
    while words[at] != layout.END:
        found.append(int(words[at]))
        at = int(words[at + layout.NEXT])
    return found


def header(block: Block, word: int) -> int:
    return int(compile_program(FeatureSpec(COLUMNS, block), None).words[word])


SCALED = Take(NUMBERS, (Fill((0,)), Standardise((1, 2, 3), (4,))))
TEXT = Text("s", Categories(("x", "y")), (OneHot(((0, 1, -1),), (2,)),))


def test_a_step_of_many_columns_is_one_instruction_and_works_in_place() -> None:
    assert operations(SCALED) == [layout.LOAD, layout.FILL, layout.STANDARDISE, layout.STORE]
    assert header(SCALED, layout.REGISTERS) == 1 + 3


def test_a_raw_column_is_brought_in_once_however_many_blocks_read_it() -> None:
    both = Join((SCALED, Take(("b", "b")), TEXT, Text("s", Categories(("z",)))))
    assert operations(both).count(layout.LOAD) == 1
    assert operations(both).count(layout.FIND) == 1


def test_codes_that_become_columns_at_the_end_are_written_there() -> None:
    assert operations(TEXT) == [layout.FIND, layout.ONE_HOT_OUT]
    table = Text("s", Categories(("x", "y")), (Lookup((((1,), (2,), (3,)),)), OneHot(((0, 1),), (2,))))
    assert operations(table) == [layout.FIND, layout.ONE_HOT_OUT]
    assert layout.ONE_HOT in operations(Join((TEXT,), (Fill((0,)),)))


def test_what_nobody_reads_is_not_brought_in() -> None:
    assert operations(Take(("a",))) == [layout.LOAD, layout.STORE]


def test_products_share_what_they_have_in_common() -> None:
    terms = ((0,), (0, 1), (0, 0, 1), (1, 1, 2), (0, 1, 2), (1, 2))
    entries = compile_program(FeatureSpec(COLUMNS, Take(NUMBERS, (Polynomial(terms),))), None).words
    at, made = int(entries[layout.CODE]), 0
    while entries[at] != layout.END:
        if entries[at] == layout.PRODUCT:
            made += (int(entries[at + layout.NEXT]) - at - layout.ENTRIES) // layout.ENTRY_WORDS[layout.PRODUCT]
        at = int(entries[at + layout.NEXT])
    assert made == len({term[start:] for term in terms for start in range(len(term) - 1)})


def test_blocks_have_fewer_rows_where_there_are_more_registers() -> None:
    rows = [block_rows(height) for height in (1, 64, 100, 1000, 5000, 300_000)]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] == 256
    assert rows[-1] == 16
    assert all(count & (count - 1) == 0 for count in rows)


def test_thousands_of_registers_work() -> None:
    names = tuple(f"n{at}" for at in range(200))
    places = tuple(range(21))
    scaled = Take(names, (Fill((0,)),))
    hot = Join(
        tuple(
            Take((name,), (Lookup((tuple((float(at),) for at in range(21)),)), OneHot((places,), (21,))))
            for name in names
        )
    )
    spec = FeatureSpec(tuple(map(NumberColumn, names)), Join((scaled, Join((hot,), (Standardise((0,), (2,)),)))))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 23, (300, 200)).astype(float)
    found = Pipeline(spec).transform(dict(zip(names, codes.T, strict=True)))
    expected = np.eye(21)[np.minimum(codes, 20).astype(int)].reshape(300, -1) / 2
    np.testing.assert_array_equal(found, np.concatenate([codes, expected], axis=1).astype(np.float32))


def test_thirty_columns_to_the_second_degree() -> None:
    names = tuple(f"n{at}" for at in range(30))
    terms = tuple((left, right) for left in range(30) for right in range(left, 30))
    spec = FeatureSpec(tuple(map(NumberColumn, names)), Take(names, (Polynomial(terms),)), "FP64")
    x = np.random.default_rng(0).normal(size=(1000, 30))
    found = Pipeline(spec).transform(dict(zip(names, x.T, strict=True)))
    np.testing.assert_array_equal(found, np.stack([x[:, a] * x[:, b] for a, b in terms], axis=1))


def hostile_texts() -> Block:
    """Encoders that each know little, of a column of which all together know much."""
    encoders = (tuple(f"{at}-{each}" for each in range(40)) for at in range(1200))
    return Join(tuple(Text("s", Categories(values)) for values in encoders))


def hostile_steps() -> Block:
    block = Take(tuple("abc"[at % 3] for at in range(4096)), (Fill((0,)),) * 32)
    return Join((block,) * 4)


@pytest.mark.long
@pytest.mark.parametrize("make", [hostile_texts, hostile_steps])
def test_what_would_take_too_much_is_refused_before_it_is_taken(make: object) -> None:
    spec = FeatureSpec(COLUMNS, make())  # type: ignore[operator]
    started = time.process_time()
    with pytest.raises(InvalidInputError, match=r"the feature specification is too large: .* expected at most"):
        program.compile_program(spec, None)
    assert time.process_time() - started < 20
