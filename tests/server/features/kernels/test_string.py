from hypothesis import given
from hypothesis import strategies as st

from penstock.tensors import join_bytes
from penstock_server.features.pipeline import Pipeline, count_elements
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    StringColumn,
    Text,
)


def coded(categories: list[str]) -> Pipeline:
    return Pipeline(FeatureSpec((StringColumn("s"),), Text("s", Categories(tuple(categories)))))


def test_many_categories_are_each_found() -> None:
    categories = [f"category {at}" for at in range(20_000)]
    found = coded(categories).transform({"s": [*categories, "category 20000"]})
    assert found[:, 0].tolist() == list(range(20_001))


def test_a_huge_string_is_unseen() -> None:
    assert coded(["x"]).transform({"s": ["x" * 5_000_000, "x", ""]})[:, 0].tolist() == [1, 0, 1]


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_elements_are_counted(values: list[bytes]) -> None:
    raw = join_bytes(values)
    assert count_elements(raw) == len(values)
    if raw:
        assert count_elements(raw[:-1]) == -1
    assert count_elements(raw + b"\1") == -1
    assert count_elements(raw + b"\xff\xff\xff\xff") == -1
