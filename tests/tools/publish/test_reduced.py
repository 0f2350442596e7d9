import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.models import mlp
from penstock_server.errors import UnsupportedError
from penstock_tools.publish import onnx_graph, reduced

LAYERS = (6, 64, 64, 3)
ROWS = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def perceptron():
    return onnx.load_from_string(mlp(layers=LAYERS))


def answers(model, rows=ROWS):
    return onnx_graph.read(model).runtime.run({model.graph.input[0].name: rows})[0]


def operators(model):
    return {node.op_type for node in model.graph.node}


def with_constants(model):
    """The model with its weights in nodes, as some tools write them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [helper.make_node("Constant", [], [each.name], value=each) for each in copy.graph.initializer]
    others = list(copy.graph.node)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend([*nodes, *others])
    return copy


@pytest.mark.parametrize("change", [lambda model: model, with_constants])
@pytest.mark.parametrize(
    ("reduce", "tolerance"),
    [(lambda model: reduced.int8(model, ROWS), 0.1), (reduced.dynamic_int8, 0.1), (reduced.fp16, 5e-3)],
)
def test_a_form_answers_nearly_the_same_between_the_same_inputs_and_outputs(perceptron, change, reduce, tolerance):
    given = change(perceptron)
    before = given.SerializeToString()
    found = reduce(given)
    assert given.SerializeToString() == before, "the version itself stays as it is"
    assert onnx_graph.read(found).signature == onnx_graph.read(given).signature
    expected = answers(perceptron)
    difference = np.abs(answers(found) - expected).max() / np.abs(expected).max()
    assert 0 < difference < tolerance


def test_weights_become_whole_numbers_wherever_they_are(perceptron):
    for model in (perceptron, with_constants(perceptron)):
        found = reduced.int8(model, ROWS)
        kinds = [each.data_type for each in found.graph.initializer if len(each.dims) == 2]
        assert kinds == [TensorProto.INT8] * (len(LAYERS) - 1)


def test_seven_bits_are_safe_without_the_newest_instructions(perceptron):
    weights = [each for each in reduced.int8(perceptron, ROWS).graph.initializer if each.data_type == TensorProto.INT8]
    assert max(int(np.abs(numpy_helper.to_array(each).astype(int)).max()) for each in weights) <= 64


def test_a_row_gets_the_same_answer_alone_as_among_others(perceptron):
    found = reduced.int8(perceptron, ROWS)
    together = answers(found, ROWS * np.linspace(0.1, 3, len(ROWS), dtype=np.float32)[:, None])
    alone = [
        answers(found, (ROWS[at] * np.linspace(0.1, 3, len(ROWS), dtype=np.float32)[at])[None]) for at in (0, 150, 299)
    ]
    np.testing.assert_array_equal(np.concatenate(alone), together[[0, 150, 299]])


def test_ranges_of_the_batch_make_a_row_s_answer_depend_on_the_rows_beside_it(perceptron):
    found = reduced.dynamic_int8(perceptron)
    assert "MatMulInteger" in operators(found)
    beside = np.concatenate([ROWS[:1], 10 * ROWS[1:20]])
    assert np.abs(answers(found, ROWS[:1]) - answers(found, beside)[:1]).max() > 1e-2


def test_what_has_no_weights_is_refused(onnx_model):
    trees = helper.make_model(
        helper.make_graph(
            [helper.make_node("Abs", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        )
    )
    with pytest.raises(UnsupportedError, match="it has no product with weights"):
        reduced.int8(trees, ROWS)
    with pytest.raises(UnsupportedError, match="it has no weights of 32 bits"):
        reduced.fp16(trees)


def test_what_computes_in_64_bits_says_how_it_would_not():
    double = onnx.ModelProto()
    double.CopyFrom(onnx.load_from_string(mlp(layers=LAYERS)))
    for each in double.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each).astype(np.float64), each.name))
    for reduce in (lambda: reduced.int8(double, ROWS), lambda: reduced.fp16(double)):
        with pytest.raises(UnsupportedError, match="no weights of 32 bits; publish it with --precision FP32"):
            reduce()


def test_what_is_in_whole_numbers_already_is_left_alone(perceptron):
    found = reduced.int8(perceptron, ROWS)
    for reduce in (lambda: reduced.int8(found, ROWS), lambda: reduced.fp16(found)):
        with pytest.raises(UnsupportedError, match="it is in whole numbers already"):
            reduce()


def test_onnxruntime_s_own_refusal_is_told(perceptron, monkeypatch):
    from onnxruntime import quantization

    def refuse(*_, **__):
        raise ValueError("unknown shape\nand a dump")

    monkeypatch.setattr(quantization, "quantize_static", refuse)
    with pytest.raises(UnsupportedError, match="onnxruntime cannot quantize it: unknown shape"):
        reduced.int8(perceptron, ROWS)
