import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec import limits
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
    decode,
    decode_yaml,
    digest,
    encode,
    encode_yaml,
)
from penstock_server.features.spec.steps import Apply, Bucket, Clip, Fill, OneHot, Standardise

DELAY = Take(("delay",), (Fill((1.5,)), Clip((0,), (90,)), Apply("log1p"), Standardise((2,), (3,)), Bucket(((1, 2),))))
SPEC = FeatureSpec(
    (NumberColumn("delay"), StringColumn("carrier"), StringColumn("origin"), NumberColumn("as_it_is")),
    Join(
        (
            DELAY,
            Text("carrier", Categories(("AA", "B6")), (OneHot(((0, 1, 2),), (3,)),)),
            Text("origin", Categories(("JFK", ""), unseen="refuse")),
            Take(("as_it_is",)),
        )
    ),
    "FP64",
)
STEPS = ("features", "blocks", 0, "steps")


def changed(*path: str | int, to: Any) -> bytes:
    """SPEC's JSON with one value replaced."""
    document = json.loads(encode(SPEC))
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = to
    return json.dumps(document).encode()


def nested(depth: int) -> Any:
    block: Any = {"block": "take", "columns": ["delay"]}
    for _ in range(depth):
        block = {"block": "join", "blocks": [block]}
    return block


def test_decodes_what_it_encodes() -> None:
    assert decode(encode(SPEC)) == SPEC
    assert decode_yaml(encode_yaml(SPEC)) == SPEC


def test_output_columns_have_names_in_order() -> None:
    expected = ("delay", "carrier=AA", "carrier=B6", "carrier=<unseen>", "origin", "as_it_is")
    assert SPEC.output_names == expected
    assert SPEC.width == len(expected)


@pytest.mark.parametrize(
    ("columns", "features", "expected"),
    [
        ("ab", Take(("a", "b")), True),
        ("ab", Take(("b", "a")), False),
        ("ab", Take(("a",)), False),
        ("a", Take(("a", "a")), False),
        ("ab", Take(("a", "b"), (Fill((0.0, 0.0)),)), False),
        ("ab", Join((Take(("a",)), Take(("b",)))), False),
    ],
)
def test_features_that_hand_every_column_on_are_the_identity(columns: str, features: Any, expected: bool) -> None:
    assert FeatureSpec(tuple(map(NumberColumn, columns)), features).is_identity == expected


def test_equal_specifications_have_one_digest_whatever_type_their_numbers_had() -> None:
    def of(*steps: Any) -> FeatureSpec:
        return FeatureSpec((NumberColumn("x"),), Take(("x",), steps))

    one = of(Fill((0, float("nan"))[:1]), Bucket(((1, 2),)))
    other = of(Fill((np.float32(0.0),)), Bucket(((np.float64(1), 2.0),)))
    assert digest(one) == digest(other) == digest(decode(encode(one)))
    assert digest(one) != digest(of(Fill((1,)), Bucket(((1, 2),))))
    assert of(Fill((np.nan,))) == of(Fill((None,)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("format", to=1), "format 1 is unknown, expected 2"),
        (changed("format", to=3), "format 3 is unknown, expected 2"),
        (changed("datatype", to="FP16"), "FP16"),
        (changed("columns", to=[]), "no columns"),
        (changed("extra", to=1), "extra"),
        (changed("columns", 0, "kind", to="date"), "'delay'.*date"),
        (changed("columns", 0, "name", to="origin"), "column 'origin' appears twice, expected it once"),
        (changed("columns", 0, "name", to=""), "column '', name ''"),
        (changed("columns", 0, "name", to="a\nb"), "printable"),
        (
            changed("columns", 0, "name", to="gone"),
            "a block reads 'delay', expected one of the columns 'gone', 'carrier'",
        ),
        (changed("columns", 0, "kind", to="string"), "'delay' as a number, expected a string"),
        (changed("columns", 1, to=7), "Expected `object`"),
        (changed(*STEPS, 0, "values", to=None), r"the block of 'delay', step 0 \(fill\), Expected `array`"),
        (changed(*STEPS, 0, "values", to=[]), r"step 0 \(fill\), values is empty"),
        (
            changed(*STEPS, 0, "values", to=[1, 2]),
            r"the block of 'delay', step 0 \(fill\): values has 2 entries for 1 columns",
        ),
        (changed(*STEPS, 0, "step", to="magic"), r"the block of 'delay', step 0 \(magic\)"),
        (changed(*STEPS, 1, "low", to=[91]), r"step 1 \(clip\), low 91.0 is above high 90.0"),
        (changed(*STEPS, 1, to={"step": "clip"}), "neither low nor high"),
        (changed(*STEPS, 2, "base", to=2), r"step 2 \(apply\).*base"),
        (changed(*STEPS, 2, "function", to="gamma"), r"step 2 \(apply\).*gamma"),
        (changed(*STEPS, 3, "scale", to=[0]), r"step 3 \(standardise\), scale\[0\] is 0, expected another"),
        (changed(*STEPS, 4, "edges", to=[[1, 1]]), r"step 4 \(bucket\), edges\[0\]\[1\] is 1.0 after 1.0"),
        (changed(*STEPS, 4, "edges", to=[list(range(5000))]), r"5000 edges\[0\], expected at most 4096"),
        (changed(*STEPS, to=[{"step": "apply", "function": "abs"}] * 33), "33 steps"),
        (changed(*STEPS, to=3), "the block of 'delay', "),
        (changed("features", to={"block": "heap"}), "heap"),
        (changed("features", to=nested(8)), "9 blocks in each other, expected at most 8"),
        (changed("features", "blocks", to=[]), "blocks is empty"),
        (changed("features", "blocks", 0, "columns", to=[]), "columns is empty"),
        (
            changed("features", "blocks", 1, "encode", "values", to=["x", "y", "x"]),
            "the block of 'carrier', .*'x' appears twice, expected it once",
        ),
        (changed("features", "blocks", 1, "encode", "values", to=["x" * 1025]), "takes 1025 bytes"),
        (changed("features", "blocks", 1, "encode", "missing", to=3), "missing is 3, expected 0 to 2"),
        (changed("features", "blocks", 2, "encode", "missing", to=0), 'missing is given, and "" is a category'),
        (changed("features", "blocks", 1, "encode", "encode", to="guess"), "'carrier', .*guess"),
        (encode(SPEC).replace(b"90.0", b"1e999"), "Number out of range"),
        (encode(SPEC).replace(b"90.0", b"NaN"), "malformed"),
        (encode(SPEC)[:-9], "truncated"),
        (b"", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 200_000, "refused"),
        (b'{"format":2,"deep":' + b"[" * 200_000, "recursion"),
        (b" " * (limits.MAX_BYTES + 1), "bytes, expected at most"),
    ],
)
def test_refuses_with_the_place_and_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decode(data)


def test_refuses_more_categories_and_columns_than_it_can_carry() -> None:
    with pytest.raises(ValueError, match="65537 values"):
        Categories(tuple(map(str, range(limits.MAX_CATEGORIES + 1))))
    with pytest.raises(ValueError, match="4097 columns"):
        FeatureSpec(tuple(NumberColumn(str(at)) for at in range(4097)), DELAY)
    wide = OneHot((tuple(range(40_000)),), (40_000,))
    texts = [Text(name, Categories(tuple(map(str, range(39_999)))), (wide,)) for name in ("a", "b")]
    with pytest.raises(ValueError, match="80000 columns"):
        Join(tuple(texts))


def test_a_category_must_have_a_form_in_utf8() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        Categories(("\ud800",))


def test_features_without_a_column_are_refused() -> None:
    nothing = Text("s", Categories(()), (OneHot(((-1,),), (0,)),))
    with pytest.raises(ValueError, match="the features have no columns"):
        FeatureSpec((StringColumn("s"),), nothing)


YAML = b"""
format: 2
columns:
  - {kind: number, name: delay}
features:
  block: take
  columns: [delay]
  steps:
    - {step: fill, values: [1e-3]}
    - {step: clip, low: [0], high: [.nan]}
"""


@pytest.mark.parametrize(
    "value", ["\x85", "a\x85", "\u2028", "\u2029b", "\n", " \r\n ", "\x85 \x85", "\t", "'", '"', "\\n"]
)
def test_a_category_survives_yaml(value: str) -> None:
    spec = FeatureSpec((StringColumn("s"),), Text("s", Categories(("", value))))
    assert decode_yaml(encode_yaml(spec)) == spec


def test_yaml_is_read_as_people_write_it() -> None:
    spec = decode_yaml(YAML)
    assert spec == FeatureSpec((NumberColumn("delay"),), Take(("delay",), (Fill((0.001,)), Clip((0,), (None,)))))


@pytest.mark.long
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (YAML.replace(b"[1e-3]", b"[one]"), r"the block of 'delay', step 0 \(fill\), Expected `float \| null`"),
        (YAML.replace(b"format: 2", b"format: 1"), "format 1 is unknown, expected 2"),
        (YAML.replace(b"format: 2", b"format: 2\nformat: 2"), "the key 'format' appears twice, expected it once"),
        (YAML.replace(b"[1e-3]", b"&x [1e-3]").replace(b"low: [0]", b"low: *x"), "has an alias"),
        (YAML.replace(b"[1e-3]", b"!!python/object/apply:os.getcwd []"), "could not determine a constructor"),
        (YAML.replace(b"take", b"[take"), "is not YAML"),
        (b"[" * 3000, "refused"),
        (b"", "Expected `object`"),
        (b"\xff", "is not YAML"),
        (b"? [a]\n: 1", "refused"),
        (b"#" * (2 << 20), "bytes of YAML, expected at most"),
    ],
)
def test_yaml_is_refused_with_the_place_and_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decode_yaml(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode(data)
    with pytest.raises(InvalidInputError):
        decode_yaml(data)


PATHS = [(*STEPS, 3), ("columns", 1), (*STEPS, 4, "edges"), ("columns",), ("format",), ("features",), STEPS]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "steps", "kind", "block"]), inner)
    ),
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
