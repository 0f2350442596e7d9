import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.tensors import join_bytes
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import steps
from penstock_server.features.spec.spec import (
    FeatureSpec,
    NumberColumn,
    Take,
    decode,
    decode_yaml,
    encode,
    encode_yaml,
)
from tests.examples import examples
from tests.server.features.meaning import meaning
from tests.server.features.random_specs import (
    NAN,
    NEAR,
    NUMBERS,
    REALS,
    ROWS,
    SPECS,
    STRINGS,
    TIMES,
    near_steps,
    table_of,
)

Rows = list[tuple[float, float, float, int, str, str]]


def run(spec: FeatureSpec, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    pipeline = Pipeline(spec)
    table = table_of(rows)
    numbers = np.array([table[name] for name in NUMBERS], np.float64).T.copy()
    others = [np.array(table[name], np.int64).tobytes() for name in TIMES]
    others += [join_bytes(table[name]) for name in STRINGS]
    out = np.full((len(rows), pipeline.width), 99, pipeline.dtype)
    refusal = pipeline.run(numbers, others, len(rows), out, None)
    return out, np.zeros(len(rows), bool) if refusal is None else refusal.found >= 0


@pytest.mark.long
@given(SPECS, ROWS)
def test_a_random_specification_does_what_it_means_to_the_last_bit(spec: FeatureSpec, rows: Rows) -> None:
    expected, refused = meaning(spec, table_of(rows))
    found, found_refused = run(spec, rows)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_refused, refused)


@pytest.mark.long
@given(SPECS)
def test_a_random_specification_has_a_name_for_each_output_and_survives_its_files(spec: FeatureSpec) -> None:
    assert len(spec.output_names) == spec.width
    assert decode(encode(spec)) == spec
    assert decode_yaml(encode_yaml(spec)) == spec


@given(SPECS, ROWS.filter(len), st.sampled_from([15, 16, 17, 255, 256, 257, 600]))
@examples(60)
def test_where_blocks_of_rows_meet_nothing_is_lost(spec: FeatureSpec, rows: Rows, count: int) -> None:
    many = (rows * count)[:count]
    found, refused = run(spec, many)
    once, once_refused = run(spec, rows)
    np.testing.assert_array_equal(found, np.resize(once, found.shape) if once.size else once)
    np.testing.assert_array_equal(refused, np.resize(once_refused, count))


@given(st.data(), st.lists(st.tuples(NEAR | REALS, NEAR | REALS), max_size=30))
def test_steps_of_the_c_library_are_near_their_meaning(data: st.DataObject, rows: list[tuple[float, float]]) -> None:
    step = data.draw(near_steps(2))
    spec = FeatureSpec((NumberColumn("a"), NumberColumn("b")), Take(("a", "b"), (step,)), "FP64")
    table = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    pipeline = Pipeline(spec)
    out = np.empty((len(rows), pipeline.width))
    pipeline.run(np.array(rows, np.float64).reshape(-1, 2), (), len(rows), out, None)
    expected, _ = meaning(spec, table)
    far = isinstance(step, steps.Spline) or (isinstance(step, steps.Apply) and step.function in {"sin", "cos", "tan"})
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12 if far else 1e-300)


@pytest.mark.parametrize("codes", [steps.Bucket(((-1, 0),)), steps.Match(((-1, 1),)), steps.Binarise((-1,))])
def test_codes_are_real_numbers_to_the_next_step(codes: steps.Step) -> None:
    rows: Rows = [(value, 0.0, 0.0, 0, "", "") for value in (-2.0, -1.0, 0.0, NAN)]
    spec = FeatureSpec((NumberColumn("a"),), Take(("a",), (codes, steps.Apply("reciprocal"))), "FP64")
    table = {"a": [row[0] for row in rows]}
    np.testing.assert_array_equal(Pipeline(spec).transform(table), meaning(spec, table)[0])


def test_the_reciprocal_of_a_bucket_is_no_whole_number() -> None:
    spec = FeatureSpec((NumberColumn("a"),), Take(("a",), (steps.Bucket(((-1, 0),)), steps.Apply("reciprocal"))))
    assert Pipeline(spec).transform({"a": [0.0]}).tolist() == [[0.5]]


def test_no_rows_are_no_work() -> None:
    spec = FeatureSpec((NumberColumn("a"),), Take(("a",)))
    assert Pipeline(spec).run(b"", (), 0, np.empty((0, 1), np.float32), None) is None


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_the_datatype_is_that_of_the_output(datatype: str) -> None:
    spec = FeatureSpec((NumberColumn("a"),), Take(("a",)), datatype)  # type: ignore[arg-type]
    assert Pipeline(spec).transform({"a": [0.1]})[0, 0] == (np.float32(0.1) if datatype == "FP32" else 0.1)
