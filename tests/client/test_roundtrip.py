"""Every datatype, there and back through a real channel: what the model is sent is what the caller had."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.tensors import BF16, NUMPY_TYPES
from penstock_client import Client
from tests.examples import examples

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=4)
SHORT = st.integers(-256, 256).map(float) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 2.0**-130])
"""Floats that are BF16, of eight binary digits."""
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.fixture(scope="module")
def client(shared_server):
    with Client(shared_server.address) as client:
        yield client


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
@examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_numbers_come_back_bit_for_bit(client, datatype, data):
    elements = SHORT if datatype == BF16 else None
    values = data.draw(hnp.arrays(NUMPY_TYPES[datatype], SHAPES, elements=elements))
    answer = client.predict(datatype, {"x": values})["x"]
    assert answer.dtype == values.dtype
    assert answer.shape == values.shape
    assert answer.tobytes() == values.tobytes()


@examples(25)
@given(values=hnp.arrays(object, SHAPES, elements=TEXTS))
def test_text_comes_back(client, values):
    assert np.array_equal(client.predict("BYTES", values)["x"], values)


@examples(25)
@given(value=st.binary(max_size=8))
def test_bytes_come_back_as_text_only_where_they_are(client, value):
    answer = client.predict("BYTES", {"x": [[[value]]]})["x"][0, 0, 0]
    assert answer == value if isinstance(answer, bytes) else answer.encode() == value


@examples(25)
@given(rows=st.lists(st.tuples(st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=5))
def test_lists_of_dicts_come_back_as_columns(client, rows):
    answer = client.predict("numbers", [{"b": b, "a": a} for a, b in rows])
    assert answer["a"].tolist() == [a for a, _ in rows]
    assert answer["b"].ravel().tolist() == [b for _, b in rows]
