"""Attributions against the definition: the Shapley value as a mean over all orders in which features are given."""

import itertools
import math

import msgspec
import numpy as np
import pytest

from penstock_server.explain.attributor import attributor_of
from penstock_server.explain.explanation import Meaning, Origins, TreesExplanation
from tests.server.explain.test_explanation import LINEAR, TREES, float64, int32

ROWS = np.array([[0.0, 1.0], [0.5, 2.5], [0.75, 2.0], [3.0, np.nan]])


def worth(given, row):
    """What the tree of `TREES` is expected to answer when some features of the row are given."""
    a, b = row
    left = (1.0 if a <= 0.5 else 0.0) if 0 in given else 0.5
    low = 1.0 * (1.0 if b <= 2 else 0.0) + 3.0 * (0.0 if b <= 2 else 1.0) if 1 in given else 0.25 * 1 + 0.75 * 3
    high = (5.0 if a <= 1 else 7.0) if 0 in given else (0.2 * 5 + 0.3 * 7) / 0.5
    return left * low + (1 - left) * high


def shapley(row, features=2):
    """By the definition."""
    values = np.zeros(features)
    for order in itertools.permutations(range(features)):
        for at, feature in enumerate(order):
            values[feature] += worth(order[: at + 1], row) - worth(order[:at], row)
    return values / math.factorial(features)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_trees_give_shapley_values(dtype):
    found = attributor_of(TREES, ("a", "b")).run(ROWS.astype(dtype))
    np.testing.assert_allclose(found, [shapley(row) for row in ROWS], atol=1e-12)


def test_base_and_attributions_add_up():
    found = attributor_of(TREES, ("a", "b")).run(ROWS)
    np.testing.assert_allclose(worth((), ROWS[0]) + found.sum(axis=1), [worth((0, 1), row) for row in ROWS], atol=1e-12)


def test_features_of_several_columns_share_what_they_are_worth():
    shared = msgspec.structs.replace(TREES, origins=Origins(int32(0, 1), ((0, 1), (1,))))
    found, apart = (attributor_of(each, ("a", "b")).run(ROWS) for each in (shared, TREES))
    np.testing.assert_allclose(found[:, 0], apart[:, 0] / 2)
    np.testing.assert_allclose(found[:, 1], apart[:, 0] / 2 + apart[:, 1])


def test_features_of_one_column_are_summed():
    summed = msgspec.structs.replace(TREES, origins=Origins(int32(0, 0), ((0,),)))
    found, apart = (attributor_of(each, ("a", "b")).run(ROWS) for each in (summed, TREES))
    np.testing.assert_allclose(found[:, 0], apart.sum(axis=1))
    assert not found[:, 1].any()


def test_missing_values_go_as_the_flag_says():
    left = msgspec.structs.replace(TREES, flags=bytes([0, 1, 0]))
    row = np.array([[0.0, np.nan]])
    assert worth((), ROWS[0]) + attributor_of(left, ("a", "b")).run(row).sum() == pytest.approx(1.0)
    assert worth((), ROWS[0]) + attributor_of(TREES, ("a", "b")).run(row).sum() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("value", "answer"),
    [(0.0, 1.0), (1.0, 3.0), (63.0, 1.0), (64.0, 1.0), (65.0, 3.0), (-1.0, 3.0), (1e300, 3.0), (64.9, 1.0)],
)
def test_categories_go_left_if_they_are_in_the_set(value, answer):
    words = np.array([65, 1 | (1 << 63) - (1 << 64), 1], "<i8").tobytes()
    chosen = msgspec.structs.replace(TREES, flags=bytes([0, 2, 0]), threshold=float64(0.5, 0.0, 1.0), categories=words)
    found = attributor_of(chosen, ("a", "b")).run(np.array([[0.0, value]]))
    assert worth((), ROWS[0]) + found.sum() == pytest.approx(answer)


def test_small_numbers_are_missing_where_zeros_are():
    zeros = msgspec.structs.replace(TREES, flags=bytes([0, 4, 0]), threshold=float64(0.5, 2.0, 1.0))
    found = attributor_of(zeros, ("a", "b")).run(np.array([[0.0, 1e-36], [0.0, 1e-34]]))
    np.testing.assert_allclose(worth((), ROWS[0]) + found.sum(axis=1), [3.0, 1.0])


@pytest.mark.parametrize(
    ("is_strict", "is_single", "answer"),
    [(False, False, 5.0), (True, False, 5.0), (False, True, 1.0), (True, True, 5.0)],
)
def test_values_are_compared_as_the_library_compares_them(is_strict, is_single, answer):
    """Half and a bit is above half in double precision, and half in single precision."""
    chosen = msgspec.structs.replace(TREES, is_strict=is_strict, is_single=is_single)
    found = attributor_of(chosen, ("a", "b")).run(np.array([[0.5 + 1e-9, 1.0]]))
    assert worth((), ROWS[0]) + found.sum() == pytest.approx(answer)


def test_classes_have_values_of_their_own():
    two = msgspec.structs.replace(
        TREES,
        meaning=Meaning("x", (0.0, 0.0), ("n", "y")),
        output_counts=int32(2),
        values=float64(1, 10, 3, 30, 5, 50, 7, 70),
    )
    found, one = attributor_of(two, ("a", "b")).run(ROWS), attributor_of(TREES, ("a", "b")).run(ROWS)
    assert found.shape == (4, 2, 2)
    np.testing.assert_allclose(found, np.stack([one, 10 * one], axis=2))


def test_paths_of_many_features_are_exact():
    """A chain of 20 features takes more points than the kernel treats at once."""
    depth = 20
    chain = TreesExplanation(
        meaning=Meaning("x", (0.0,)),
        origins=Origins(int32(*range(depth)), tuple((at,) for at in range(depth))),
        node_counts=int32(depth),
        leaf_counts=int32(depth + 1),
        paths=int32(depth),
        first_outputs=int32(0),
        output_counts=int32(1),
        feature=int32(*range(depth)),
        threshold=float64(*[0.0] * depth),
        left=int32(*range(1, depth), -1),
        right=int32(*[-2 - at for at in range(depth)]),
        before=int32(*[-1] * depth),
        flags=bytes(depth),
        share_left=float64(*[0.5] * depth),
        share_right=float64(*[0.5] * depth),
        values=float64(1.0, *[0.0] * depth),
        categories=b"",
        is_strict=False,
        is_single=False,
    )
    found = attributor_of(chain, tuple(map(str, range(depth)))).run(np.full((1, depth), -1.0))
    np.testing.assert_allclose(found, np.full((1, depth), (1 - 0.5**depth) / depth), rtol=1e-12)


def test_a_linear_model_is_worth_its_distance_from_the_mean():
    found = attributor_of(LINEAR, ("a", "b")).run(np.array([[2.0, 0.5], [1.0, 1.5]], np.float32))
    np.testing.assert_allclose(found, [[3.0, 0.0], [0.0, -1.0]])


def test_linear_models_treat_many_rows_in_parts(monkeypatch):
    from penstock_server.explain import attributor

    rows = np.random.default_rng(0).normal(size=(50, 2))
    whole = attributor_of(LINEAR, ("a", "b")).run(rows)
    monkeypatch.setattr(attributor, "_CHUNK_VALUES", 8)
    np.testing.assert_array_equal(attributor_of(LINEAR, ("a", "b")).run(rows), whole)


@pytest.mark.parametrize("explanation", [LINEAR, TREES], ids=["linear", "trees"])
def test_no_rows_have_no_attributions(explanation):
    assert attributor_of(explanation, ("a", "b")).run(np.empty((0, 2))).shape == (0, 2)
