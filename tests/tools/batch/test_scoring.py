import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from penstock.inference_pb2 import ModelInferRequest
from penstock.tensors import to_raw
from penstock_server.drift.reference import reference_of
from penstock_server.errors import InvalidInputError
from penstock_server.features.counting import counts_of
from penstock_server.models import artifact
from penstock_server.models.loader import load
from penstock_server.prediction.decode import decoder_of
from penstock_tools.batch.scoring import Scorer
from tests.examples import examples


@pytest.fixture(scope="module")
def scorer(version):
    scorer = Scorer(artifact.read(version), ("stay", "1"), keep=("id",))
    yield scorer
    scorer.close()


def batch_of(table):
    return table.combine_chunks().to_batches()[0]


def served(version, batch):
    """What a server answers to the rows as one request."""
    servable, _ = load(("stay", "1"), version, threads=None, max_rows=64)
    message = ModelInferRequest()
    for name, datatype in (("age", "FP64"), ("fare", "FP64"), ("city", "BYTES")):
        values = batch.column(name).to_numpy(zero_copy_only=False)
        message.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        message.raw_input_contents.append(to_raw(values, datatype))
    rows = decoder_of(servable).decode(message)
    return servable.predict(rows.blocks, rows.rows, rows.shapes, None).arrays


def test_answers_are_the_servers_to_the_bit(scorer, version, rows):
    batch = batch_of(rows)
    answers = scorer(batch)
    labels, probabilities = served(version, batch)
    assert answers.schema.names == ["id", "label", "probabilities_leaves", "probabilities_stays"]
    assert answers.column("id").equals(batch.column("id"))
    assert answers.column("label").to_pylist() == labels.tolist()
    for at, name in enumerate(("probabilities_leaves", "probabilities_stays")):
        assert answers.column(name).to_numpy().tobytes() == probabilities[:, at].tobytes()


def test_answers_are_the_pipelines(scorer, pipeline, rows):
    answers = scorer(batch_of(rows))
    frame = rows.to_pandas()
    frame["city"] = pd.Series(rows["city"].to_pylist(), dtype=object)
    assert answers.column("label").to_pylist() == pipeline.predict(frame).tolist()
    assert np.allclose(answers.column("probabilities_stays"), pipeline.predict_proba(frame)[:, 1], atol=1e-6)


@examples(10)
@given(st.integers(0, 5000), st.integers(2, 5000))
def test_rows_are_answered_alike_in_any_company(scorer, rows, first, count):
    whole = scorer(batch_of(rows))
    part = scorer(batch_of(rows).slice(first, count))
    assert part.equals(whole.slice(first, count))


def test_the_schema_is_known_before_any_row(scorer, rows):
    schema = scorer.schema(rows.schema)
    assert schema.equals(scorer(batch_of(rows)).schema)
    assert schema.metadata == {b"penstock.model": b"stay", b"penstock.version": b"1"}
    empty = scorer(pa.RecordBatch.from_pylist([], rows.schema))
    assert empty.num_rows == 0
    assert empty.schema.equals(schema)


@examples(10)
@given(st.sets(st.integers(0, 5999), max_size=20))
def test_bad_rows_are_set_aside_and_touch_no_others(scorer, rows, bad):
    batch = batch_of(rows).slice(0, 6000)
    fares = batch.column("fare").to_numpy().copy()
    fares[sorted(bad)] = np.nan
    damaged = batch.set_column(2, "fare", pa.array(fares))
    found = scorer.score(damaged)
    assert [(each.row, each.column) for each in found.bad] == [(row, "fare") for row in sorted(bad)]
    kept = np.setdiff1d(np.arange(6000), sorted(bad))
    assert found.answers.equals(scorer(batch).take(pa.array(kept)))
    if bad:
        with pytest.raises(InvalidInputError, match=f"^row {min(bad):,} has no value of 'fare', expected one"):
            scorer(damaged)


def test_rows_are_counted_for_drift_as_a_server_counts_them(version, rows):
    scorer = Scorer(artifact.read(version), ("stay", "1"))
    scorer.score(batch_of(rows).slice(0, 400))
    counted = scorer.take_counts()
    baseline = artifact.read(version).baseline
    cells = counts_of(counted.words).cells
    assert counted.rows == 400
    assert cells.sum(axis=1).tolist() == [400] * len(cells)
    assert len(reference_of(baseline).names) <= len(cells)
    assert sum(counted.classes.values()) == 400
    again = scorer.take_counts()
    assert (again.rows, again.words.sum(), again.classes) == (0, 0, {})
    scorer.score(batch_of(rows))
    assert scorer.take_counts().rows == 2 * 1024 + 1808 // 4
    scorer.close()


@pytest.mark.parametrize(
    ("keep", "schema", "sentence"),
    [
        (("id",), {"age": pa.float64(), "fare": pa.float64()}, "lacks column 'city'"),
        (("number",), {"age": pa.float64(), "fare": pa.float64(), "city": pa.string()}, "no column 'number' to keep"),
        (
            ("label",),
            {"age": pa.float64(), "fare": pa.float64(), "city": pa.string(), "label": pa.string()},
            "an answer has the same name",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(version, keep, schema, sentence):
    scorer = Scorer(artifact.read(version), ("stay", "1"), keep=keep)
    with pytest.raises(InvalidInputError, match=sentence):
        scorer.schema(pa.schema(schema.items()))
    scorer.close()


def graph(folder, nodes, inputs, outputs):
    made = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return artifact.read(folder)


def test_a_plain_graph_takes_lists_or_named_columns(tmp_path):
    value = helper.make_tensor_value_info
    found = graph(
        tmp_path,
        [helper.make_node("Neg", ["X"], ["Y"])],
        [value("X", TensorProto.FLOAT, ["N", 2])],
        [value("Y", TensorProto.FLOAT, ["N", 2])],
    )
    lists = Scorer(found, ("neg", "1"))
    batch = pa.RecordBatch.from_pydict({"X": [[1.0, 2.0], [3.0, 4.0], [5.0]]})
    scored = lists.score(batch)
    assert scored.answers.to_pydict() == {"Y_0": [-1.0, -3.0], "Y_1": [-2.0, -4.0]}
    assert [each.told(100) for each in scored.bad] == ["column 'X' of row 102 is no list of 2 values"]
    named = Scorer(found, ("neg", "1"), columns=("b", "a"), prefix="minus_")
    answers = named(pa.RecordBatch.from_pydict({"a": [1, 2], "b": [3, 4]}))
    assert answers.to_pydict() == {"minus_Y_0": [-3.0, -4.0], "minus_Y_1": [-1.0, -2.0]}


def test_rows_that_depend_on_each_other_run_alone(tmp_path):
    value = helper.make_tensor_value_info
    found = graph(
        tmp_path,
        [helper.make_node("Softmax", ["X"], ["Y"], axis=0)],
        [value("X", TensorProto.FLOAT, ["N", 1])],
        [value("Y", TensorProto.FLOAT, ["N", 1])],
    )
    answers = Scorer(found, ("soft", "1"))(pa.RecordBatch.from_pydict({"X": [1.0, 2.0, 3.0]}))
    assert answers.to_pydict() == {"Y": [1.0, 1.0, 1.0]}


def test_rows_of_any_length_are_lists(tmp_path):
    value = helper.make_tensor_value_info
    found = graph(
        tmp_path,
        [helper.make_node("Neg", ["X"], ["Y"])],
        [value("X", TensorProto.FLOAT, ["N", "K"])],
        [value("Y", TensorProto.FLOAT, ["N", "K"])],
    )
    scorer = Scorer(found, ("neg", "1"))
    scored = scorer.score(pa.RecordBatch.from_pydict({"X": [[1.0, 2.0], [3.0], []]}))
    assert scored.answers.to_pydict() == {"Y": [[-1.0, -2.0], [-3.0], []]}
    assert [row.tolist() for row in scored.outputs[0]] == [[-1.0, -2.0], [-3.0], []]


def test_classes_that_are_no_utf_8_are_texts_all_the_same(tmp_path):
    value = helper.make_tensor_value_info
    found = graph(
        tmp_path,
        [helper.make_node("Identity", ["X"], ["Y"])],
        [value("X", TensorProto.STRING, ["N", 1])],
        [value("Y", TensorProto.STRING, ["N", 1])],
    )
    texts = pa.array([b"a", "é".encode(), b""], pa.binary())
    answers = Scorer(found, ("same", "1"))(pa.RecordBatch.from_arrays([texts], ["X"]))
    assert answers.to_pydict() == {"Y": ["a", "é", ""]}
