import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.features import limits
from penstock_server.features.spec import (
    Bucket,
    Clip,
    FeatureSpec,
    Fill,
    Log1p,
    NumberColumn,
    Standardise,
    StringColumn,
    decode,
    digest,
    encode,
)

SPEC = FeatureSpec(
    (
        NumberColumn("delay", (Fill(1.5), Clip(0, 90), Log1p(), Standardise(2, 3), Bucket((1, 2)))),
        StringColumn("carrier", ("AA", "B6"), "one_hot"),
        StringColumn("origin", ("JFK", ""), "ordinal"),
        NumberColumn("as_it_is"),
    ),
    "FP64",
)


def changed(*path: str | int, to: Any) -> bytes:
    """SPEC's JSON with one value replaced."""
    document = json.loads(encode(SPEC))
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = to
    return json.dumps(document).encode()


def test_decodes_what_it_encodes() -> None:
    assert decode(encode(SPEC)) == SPEC


def test_output_columns_have_names_in_order() -> None:
    expected = ("delay", "carrier=AA", "carrier=B6", "carrier=<unseen>", "origin", "as_it_is")
    assert SPEC.output_names == expected
    assert SPEC.width == len(expected)


def test_equal_specifications_have_one_digest_whatever_type_their_numbers_had() -> None:
    one = FeatureSpec((NumberColumn("x", (Fill(0), Bucket((1, 2)))),))
    other = FeatureSpec((NumberColumn("x", (Fill(np.float32(0.0)), Bucket((np.float64(1), 2.0)))),))
    assert digest(one) == digest(other) == digest(decode(encode(one)))
    assert digest(one) != digest(FeatureSpec((NumberColumn("x", (Fill(1), Bucket((1, 2)))),)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("format", to=2), "format 2 is unknown, expected 1"),
        (changed("datatype", to="FP16"), "FP16"),
        (changed("columns", to=[]), "no columns"),
        (changed("extra", to=1), "extra"),
        (changed("columns", 0, "kind", to="date"), "'delay'.*date"),
        (changed("columns", 0, "name", to="origin"), "column 'origin' is there twice"),
        (changed("columns", 0, "name", to=""), "column '', name ''"),
        (changed("columns", 0, "name", to="a\nb"), "printable"),
        (changed("columns", 0, "steps", 0, "value", to=None), r"'delay', step 0 \(fill\), Expected `float`"),
        (changed("columns", 0, "steps", 0, "step", to="sqrt"), r"'delay', step 0 \(sqrt\)"),
        (changed("columns", 0, "steps", 1, "low", to=91), r"'delay', step 1 \(clip\), low 91.0 is above high 90.0"),
        (changed("columns", 0, "steps", 1, to={"step": "clip"}), "neither low nor high"),
        (changed("columns", 0, "steps", 2, "base", to=2), r"step 2 \(log1p\).*base"),
        (changed("columns", 0, "steps", 3, "scale", to=0), r"'delay', step 3 \(standardise\), scale is 0.0"),
        (changed("columns", 0, "steps", 3, "scale", to=-1), "scale is -1.0"),
        (changed("columns", 0, "steps", 4, "edges", to=[1, 1]), r"step 4 \(bucket\), edges\[1\] is 1.0 after 1.0"),
        (changed("columns", 0, "steps", 4, "edges", to=[]), "no edges"),
        (changed("columns", 0, "steps", 4, "edges", to=list(range(5000))), "5000 edges, expected at most 4096"),
        (changed("columns", 0, "steps", to=[{"step": "log1p"}] * 33), "33 steps"),
        (changed("columns", 0, "steps", to=3), "'delay', "),
        (changed("columns", 1, "categories", to=["x", "y", "x"]), "'carrier', category 'x' is there twice"),
        (changed("columns", 1, "categories", to=["x" * 1025]), "takes 1025 bytes"),
        (changed("columns", 1, "encoding", to="hash"), "'carrier', .*hash"),
        (changed("columns", 1, to=7), "Expected `object`"),
        (encode(SPEC).replace(b"90.0", b"1e999"), "Number out of range"),
        (encode(SPEC).replace(b"90.0", b"NaN"), "malformed"),
        (encode(SPEC)[:-9], "truncated"),
        (encode(SPEC).replace(b'"datatype"', b'"columns": [], "datatype"').replace(b"90.0", b'"x"'), "Expected"),
        (b"", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 200_000, "refused"),
        (b'{"format":1,"deep":' + b"[" * 200_000, "recursion"),
        (b" " * (limits.MAX_BYTES + 1), "bytes, expected at most"),
    ],
)
def test_refuses_with_the_place_and_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decode(data)


def test_refuses_more_categories_and_columns_than_it_can_carry() -> None:
    with pytest.raises(ValueError, match="65537 categories"):
        StringColumn("x", tuple(map(str, range(limits.MAX_CATEGORIES + 1))))
    with pytest.raises(ValueError, match="4097 columns"):
        FeatureSpec(tuple(NumberColumn(str(at)) for at in range(4097)))
    wide = tuple(str(at) for at in range(40_000))
    with pytest.raises(ValueError, match="80002 output columns"):
        FeatureSpec((StringColumn("a", wide, "one_hot"), StringColumn("b", wide, "one_hot")))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_parameters_must_be_finite(bad: float) -> None:
    makers = [
        lambda: Fill(bad),
        lambda: Clip(bad, None),
        lambda: Clip(None, bad),
        lambda: Standardise(bad, 1),
        lambda: Standardise(0, bad),
        lambda: Bucket((bad,)),
    ]
    for make in makers:
        with pytest.raises(ValueError, match="expected a finite number"):
            make()


def test_a_category_must_have_a_form_in_utf8() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        StringColumn("x", ("\ud800",))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode(data)


PATHS = [("columns", 0, "steps", 3), ("columns", 1), ("columns", 0, "steps", 4, "edges"), ("columns",), ("format",)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "steps", "kind"]), inner),
    max_leaves=5,
)


@given(st.sampled_from(PATHS), JSON)
def test_a_value_of_any_form_decodes_to_a_sound_specification_or_is_refused(
    path: tuple[str | int, ...], value: Any
) -> None:
    try:
        spec = decode(changed(*path, to=value))
    except InvalidInputError:
        return
    assert decode(msgspec.json.encode(spec)) == spec
