import pytest
from hypothesis import given

from penstock_server.features.compiler import layout, passes
from penstock_server.features.compiler.instructions import Entry, Instruction
from penstock_server.features.compiler.lower import lower
from penstock_server.features.compiler.passes import assign_registers, merge_instructions
from penstock_server.features.spec.spec import FeatureSpec, Join, NumberColumn, Take
from penstock_server.features.spec.steps import Fill, Normalise
from tests.server.features.random_specs import SPECS


def column_by_column(*steps: object) -> FeatureSpec:
    names = tuple(f"n{at}" for at in range(10))
    blocks = tuple(Take((name,), steps) for name in names)  # type: ignore[arg-type]
    return FeatureSpec(tuple(map(NumberColumn, names)), Join(blocks))


def test_steps_that_were_written_column_by_column_are_one_instruction() -> None:
    draft = lower(column_by_column(Fill((1.0,))), None)
    found = merge_instructions(draft.instructions, draft.values)
    assert [each.operation for each in found] == [layout.LOAD, layout.FILL, layout.STORE]
    assert [len(each.entries) for each in found] == [10, 10, 10]


def test_rows_that_are_normed_apart_stay_apart() -> None:
    draft = lower(column_by_column(Normalise()), None)
    found = merge_instructions(draft.instructions, draft.values)
    assert [each.operation for each in found].count(layout.NORMALISE) == 10


def test_large_programs_stay_as_they_are() -> None:
    instructions = [Instruction(layout.VALUE, (Entry((), (at,)),)) for at in range(passes.MOST_VALUES + 1)]
    assert merge_instructions(instructions, len(instructions)) == instructions


@pytest.mark.long
@given(SPECS)
def test_everything_is_written_before_it_is_read_and_lives_until_it_was(spec: FeatureSpec) -> None:
    draft = lower(spec, None)
    found = merge_instructions(draft.instructions, draft.values)
    entries = [entry for each in found for entry in each.entries]
    assert sorted(map(id, entries)) == sorted(id(entry) for each in draft.instructions for entry in each.entries)
    registers, height = assign_registers(found, draft.values)
    holds: dict[int, int] = {}
    for instruction in found:
        for entry in instruction.entries:
            assert all(holds.get(registers[value]) == value for value in entry.reads)
            places = [registers[value] for value in entry.writes]
            assert places == list(range(places[0], places[0] + len(places))) if places else True
            assert all(0 < place < height for place in places)
            holds |= {registers[value]: value for value in entry.writes}
