"""Makes the encoding of a specification depend on its values alone.

msgspec leaves out a field that holds its default, and finds out by identity. A text that came out of a pickle, a file or
a concatenation equals the default and is another object, so it would be written: equal specifications would have other
bytes, and another digest. `spec` calls this before it encodes.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec


def with_own_defaults(struct: msgspec.Struct) -> None:
    """Puts the default's own object where a text of `struct`, or of a struct inside it, equals it; no value changes."""
    for field, default in _text_defaults(type(struct)):
        if getattr(struct, field) == default:
            msgspec.structs.force_setattr(struct, field, default)
    for inner in _inside(struct):
        with_own_defaults(inner)


@cache
def _text_defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, field.default) for field in msgspec.structs.fields(kind) if type(field.default) is str)


def _inside(struct: msgspec.Struct) -> Iterator[msgspec.Struct]:
    for field in struct.__struct_fields__:
        value: Any = getattr(struct, field)
        if isinstance(value, msgspec.Struct):
            yield value
        # The members of a tuple are all structs or none is, and tuples of numbers and texts are long.
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            yield from value
