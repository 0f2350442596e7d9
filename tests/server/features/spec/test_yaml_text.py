from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock_server.features.spec import yaml_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
TREES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_", min_size=1, max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(TREES)
@example("0E0")
def test_a_tree_is_read_as_it_was_written(tree: Any) -> None:
    assert yaml_text.load(yaml_text.dump(tree)) == tree


def test_plain_lists_are_on_one_line_and_nothing_is_an_alias() -> None:
    values = [1.0, 2.5]
    text = yaml_text.dump({"b": values, "a": [{"values": values}]}).decode()
    assert text == "b: [1.0, 2.5]\na:\n- values: [1.0, 2.5]\n"


@pytest.mark.parametrize(("text", "value"), [(b"1e-3", 0.001), (b"-2E6", -2e6), (b"1.5e+3", 1500.0), (b"e-3", "e-3")])
def test_an_exponent_makes_a_number(text: bytes, value: object) -> None:
    assert yaml_text.load(text) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: &x [1]\nb: *x", "it has an alias, expected it written out"),
        (b"a: 1\na: 2", "the key 'a' appears twice, expected it once"),
        (b"!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"[", "it is not YAML as expected"),
        (b"#" * (yaml_text.MAX_YAML_BYTES + 1), f"{yaml_text.MAX_YAML_BYTES + 1} bytes of YAML, expected at most"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        yaml_text.load(data)
