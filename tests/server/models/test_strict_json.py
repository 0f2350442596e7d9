import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.models.strict_json import decode


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    value: int
    format: int = 1


THINGS = msgspec.json.Decoder(Thing)


def test_a_thing_of_this_format_is_decoded() -> None:
    assert decode(b'{"format": 1, "value": 3}', THINGS) == Thing(value=3)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not the expected JSON"),
        (b"{", "not the expected JSON"),
        (b"[]", "not the expected JSON"),
        (b'"\xff"', "not the expected JSON"),
        (b'{"value": 3}', "format"),
        (b'{"format": 2, "value": 3, "new": 4}', "format is 2; this release reads format 1"),
        (b'{"format": 1, "value": "3"}', "Expected `int`, got `str`"),
        (b'{"format": 1, "value": 3, "other": 4}', "unknown field `other`"),
        (b'{"format": 1, "value": 1e999}', "not the expected JSON"),
        (b'{"format": 1, "value": ' + b"[" * 100_000, "not the expected JSON"),
    ],
)
def test_anything_else_is_one_sentence(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decode(raw, THINGS)


@given(st.binary() | st.text().map(lambda text: b'{"format":1,"value":' + text.encode() + b"}"))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        decode(raw, THINGS)
