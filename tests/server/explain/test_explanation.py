"""The file of an explanation: what is written is read, and nothing hostile gets to the kernel."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.explain import explanation as explanation_file
from penstock_server.explain.explanation import LinearExplanation, Meaning, Origins, TreesExplanation, Unexplained
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take

SPEC = FeatureSpec((NumberColumn("a"), NumberColumn("b")), Take(("a", "b")))


def int32(*values):
    return np.array(values, "<i4").tobytes()


def float64(*values):
    return np.array(values, "<f8").tobytes()


ORIGINS = Origins(int32(0, 1), ((0,), (1,)))
LINEAR = LinearExplanation(Meaning("the prediction", (2.0,)), ORIGINS, float64(3.0, -1.0), float64(1.0, 0.5), 10)
# a <= 0.5 ? (b <= 2 ? 1 : 3) : (a <= 1 ? 5 : 7)
TREES = TreesExplanation(
    meaning=Meaning("the prediction", (3.5,)),
    origins=ORIGINS,
    node_counts=int32(3),
    leaf_counts=int32(4),
    paths=int32(2),
    first_outputs=int32(0),
    output_counts=int32(1),
    feature=int32(0, 1, 0),
    threshold=float64(0.5, 2.0, 1.0),
    left=int32(1, -1, -3),
    right=int32(2, -2, -4),
    before=int32(-1, -1, 1),
    flags=bytes(3),
    share_left=float64(0.5, 0.25, 0.2),
    share_right=float64(0.5, 0.75, 0.3),
    values=float64(1.0, 3.0, 5.0, 7.0),
    categories=b"",
    is_strict=False,
    is_single=False,
)


@pytest.mark.parametrize("explanation", [LINEAR, TREES, Unexplained("it is no sum")], ids=["linear", "trees", "none"])
def test_reads_what_it_writes(explanation):
    found = explanation_file.decode(explanation_file.encode(explanation))
    assert found == explanation
    explanation_file.check(found, SPEC)


HOSTILE = {
    "no tree": {"node_counts": b"", "leaf_counts": b"", "paths": b"", "first_outputs": b"", "output_counts": b""},
    "a negative count": {"node_counts": int32(-3)},
    "more nodes than there are": {"node_counts": int32(4), "leaf_counts": int32(5)},
    "leaves that are not there": {"leaf_counts": int32(9)},
    "a feature beyond the matrix": {"feature": int32(0, 2, 0)},
    "a negative feature": {"feature": int32(0, -1, 0)},
    "a child before its parent": {"left": int32(1, 0, -3)},
    "a child that is itself": {"left": int32(0, -1, -3)},
    "a child beyond the tree": {"left": int32(3, -1, -3)},
    "a leaf beyond the tree": {"right": int32(2, -2, -5)},
    "a leaf with two parents": {"right": int32(2, -1, -4)},
    "an earlier node that comes later": {"before": int32(-1, -1, 4)},
    "an earlier node that is itself": {"before": int32(0, -1, -1)},
    "an earlier node below all": {"before": int32(-2, -1, -1)},
    "a share of nothing": {"share_left": float64(0.5, 0.0, 0.2)},
    "a share of all": {"share_right": float64(0.5, 1.0, 0.3)},
    "a share that is no number": {"share_right": float64(0.5, np.nan, 0.3)},
    "a value that is infinite": {"values": float64(1.0, 3.0, np.inf, 7.0)},
    "too few values": {"values": float64(1.0)},
    "an output beyond all": {"first_outputs": int32(1)},
    "no output": {"output_counts": int32(0), "values": b""},
    "a path of no features": {"paths": int32(0)},
    "a path of too many features": {"paths": int32(explanation_file.MAX_PATH + 1)},
    "an unknown flag": {"flags": bytes([8, 0, 0])},
    "a threshold that is no number": {"threshold": float64(np.nan, 2.0, 1.0)},
    "bytes that are not whole": {"threshold": b"123"},
    "arrays of different lengths": {"threshold": float64(0.5)},
    "categories that are nowhere": {"flags": bytes([2, 0, 0])},
    "categories beyond those given": {"flags": bytes([2, 0, 0]), "categories": np.array([65, 1], "<i8").tobytes()},
    "a negative number of categories": {"flags": bytes([2, 0, 0]), "categories": np.array([-1], "<i8").tobytes()},
    "half a category": {"flags": bytes([2, 0, 0]), "threshold": float64(0.5, 2, 1), "categories": bytes(16)},
    "a group that is not there": {"origins": Origins(int32(0, 2), ((0,), (1,)))},
    "a column that is not there": {"origins": Origins(int32(0, 1), ((0,), (2,)))},
    "an empty group": {"origins": Origins(int32(0, 1), ((0,), ()))},
    "origins of other features": {"origins": Origins(int32(0), ((0,), (1,)))},
    "no output at all": {"meaning": Meaning("x", ())},
    "too many outputs": {"meaning": Meaning("x", (0.0,) * (explanation_file.MAX_VALUES // 2 + 1))},
    "a base that is no number": {"meaning": Meaning("x", (np.nan,))},
    "labels of other outputs": {"meaning": Meaning("x", (1.0,), ("a", "b"))},
    "a sentence that is not printable": {"meaning": Meaning("\x1b[31m", (1.0,))},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_refuses_what_the_kernel_must_not_get(change):
    with pytest.raises(InvalidInputError, match="the explanation is refused"):
        explanation_file.check(msgspec.structs.replace(TREES, **change), SPEC)


@pytest.mark.parametrize(
    "change",
    [
        {"coefficients": float64(1.0)},
        {"means": float64(1.0, np.inf)},
        {"coefficients": float64(np.nan, 1.0)},
        {"means": b"1"},
    ],
)
def test_refuses_linear_models_that_are_not_whole(change):
    with pytest.raises(InvalidInputError, match="the explanation is refused"):
        explanation_file.check(msgspec.structs.replace(LINEAR, **change), SPEC)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_sentence(data):
    with pytest.raises(InvalidInputError, match="the explanation is refused"):
        explanation_file.decode(data)


@given(at=st.integers(0, len(explanation_file.encode(TREES)) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_harmless(at, bit):
    """What passes the check can be laid out; the kernel gets only that."""
    from penstock_server.explain import trees

    data = bytearray(explanation_file.encode(TREES))
    data[at] ^= 1 << bit
    try:
        found = explanation_file.decode(bytes(data))
        explanation_file.check(found, SPEC)
    except InvalidInputError:
        return
    if isinstance(found, TreesExplanation):
        assert trees.program(found, 2).nodes == 3


def test_another_format_is_refused_by_its_number():
    data = msgspec.msgpack.encode({"format": 2, "explanation": {"type": "else"}})
    with pytest.raises(InvalidInputError, match="format 2 is unknown, expected 1"):
        explanation_file.decode(data)
