"""Traced values as parts of a specification, given the parts that the function reads."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from penstock_server.features.spec.encoders import Categories
from penstock_server.features.spec.grams import CharacterGrams, Grams, Vocabulary
from penstock_server.features.spec.spec import Block
from penstock_server.features.spec.spec import Text as TextBlock
from penstock_server.features.spec.spec import Time as TimeBlock
from penstock_server.features.spec.steps import Lookup
from penstock_tools.sklearn_compiler.columns import Coded as CodedPart
from penstock_tools.sklearn_compiler.columns import (
    Numbers,
    Part,
    Parts,
    Strings,
    Times,
    join,
    numbers,
    pick,
    then,
)
from penstock_tools.sklearn_compiler.refusals import Refused
from penstock_tools.sklearn_compiler.tracing.compute import compute_of, sources_of
from penstock_tools.sklearn_compiler.tracing.trace import NotTraced, Traced
from penstock_tools.sklearn_compiler.tracing.values import (
    Coded,
    FromGram,
    FromNumber,
    FromText,
    FromTime,
    Number,
    Source,
    Text,
    Time,
)


def parts_of(made: Traced, parts: Parts) -> Parts:
    """What a function gives, as parts.

    Args:
        made: the trace.
        parts: what reaches the function; a traced source's place is a column's place among theirs.

    Raises:
        NotTraced: a column is a text or a time that was computed in a way that no step has.
        Refused: as `columns.pick`.
        ValueError: it exceeds a limit of specifications.
    """
    found: list[Part] = []
    names = made.names or ("",) * len(made.columns)
    required = list(made.required)
    pairs = list(zip(made.columns, names, strict=True))
    for is_computed, run in groupby(pairs, key=lambda pair: _is_computed(pair[0])):
        members = list(run)
        if is_computed:
            found.append(_computed(members, parts, required))
            required = []
        else:
            found += _passed([value for value, _ in members], parts)
    return tuple(found)


def _is_computed(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value.source, FromNumber)


def _passed(values: Sequence[Any], parts: Parts) -> Iterator[Part]:
    """Columns that come out as they came in, and texts that changed."""
    for is_number, run in groupby(values, key=lambda value: isinstance(value, Number)):
        members = list(run)
        if is_number:
            yield from pick(parts, [member.source.at for member in members])
        else:
            yield from (_column(member, parts) for member in members)


def _column(value: Any, parts: Parts) -> Part:
    if isinstance(value, Text):
        (part,) = pick(parts, [value.at])
        assert isinstance(part, Strings)
        return _changed(part, value)
    if isinstance(value, Time) and value.at is not None:
        (time,) = pick(parts, [value.at])
        return time
    if isinstance(value, Coded):
        return CodedPart(_computed([(value.code, "")], parts, ()).block, value.texts)
    raise NotTraced("its function gives a time that it computed; its parts work: .dt.hour, .dt.total_seconds()")


def _changed(part: Strings, value: Text) -> Part:
    """The text column with what its texts stand for now."""
    import dataclasses

    if dict(value.becomes) == dict(part.becomes) and not value.prepare:
        return part
    if part.otherwise is not None:
        raise NotTraced("its function changes texts that were replaced before")
    changes: dict[str, Any] = {"becomes": dict(value.becomes)}
    if value.prepare:
        changes["prepare"] = tuple(dict.fromkeys((*part.prepare, *value.prepare)))
    return dataclasses.replace(part, **changes)


def _computed(members: Sequence[tuple[Any, str]], parts: Parts, required: Sequence[Number]) -> Numbers:
    values, names = [value for value, _ in members], [name for _, name in members]
    sources = sources_of([*values, *required])
    if not sources:
        # A constant: some column says how many rows there are.
        sources = [_any_source(parts)]
    ordered = [source for source in sources if isinstance(source, FromNumber)]
    others = [source for source in sources if not isinstance(source, FromNumber)]
    blocks: list[Block] = []
    if ordered:
        blocks.append(numbers(pick(parts, [source.at for source in ordered])))
    blocks += [_block(source, parts) for source in others]
    step = compute_of(values, [*ordered, *others], names if all(names) else (), required)
    return Numbers(then(join(blocks), step))


def _any_source(parts: Parts) -> Source:
    at = 0
    for part in parts:
        if isinstance(part, Numbers):
            return FromNumber(at)
        if isinstance(part, Times):
            return FromTime(at, "days")
        if isinstance(part, Strings):
            return FromText(at, (), (), (), 0.0)
        at += part.width
    raise NotTraced("its function gives constants alone")


def _block(source: Source, parts: Parts) -> Block:
    (part,) = pick(parts, [source.at])
    if isinstance(source, FromTime) and isinstance(part, Times):
        return TimeBlock(part.column, (source.part,))  # type: ignore[arg-type]
    if isinstance(source, FromGram):
        return _searched(source, part)
    assert isinstance(source, FromText)
    if not isinstance(part, Strings):
        raise Refused("it reads text where there is none")
    if part.otherwise is not None:
        raise NotTraced("its function looks up texts that were replaced before")
    table = ((*((number,) for number in source.numbers), (source.other,)),)
    steps = (Lookup(table),)
    encode = Categories(source.texts)
    prepare: Any = tuple(dict.fromkeys((*part.prepare, *source.prepare)))
    return TextBlock(part.column, encode, steps, prepare)


def _searched(source: FromGram, part: Part) -> Block:
    """Grams of characters as long as the one that is looked for, of which that one alone is counted."""
    if not isinstance(part, Strings) or part.otherwise is not None:
        raise NotTraced("its function searches texts that were replaced before")
    prepare = tuple(dict.fromkeys((*part.prepare, *source.prepare)))
    if prepare not in {(), ("lower",)}:
        raise NotTraced(f"its function searches texts after .str.{prepare[-1]}; after .str.lower() alone it compiles")
    size = len(source.gram)
    grams = CharacterGrams(size, size, lowercase=bool(prepare))
    return TextBlock(part.column, Grams(grams, Vocabulary((source.gram,), binary=True)))
