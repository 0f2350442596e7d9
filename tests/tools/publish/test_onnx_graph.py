import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock_server.errors import InvalidInputError
from penstock_tools.publish import onnx_graph
from penstock_tools.sklearn_compiler.graph.plain_attributes import plain_attributes

ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
NAMES = np.array(["cat", "dog", "eel"])
LABELS = np.arange(60) % 3


def converted(model, labels):
    with plain_attributes():  # protobuf 7 refuses what skl2onnx makes of boosted trees
        return to_onnx(model.fit(ROWS, labels), ROWS[:1], options={"zipmap": False} if labels.dtype != float else None)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        RandomForestClassifier(3),
        HistGradientBoostingClassifier(max_iter=2),
        MLPClassifier(4, max_iter=5),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("labels", "expected"),
    [(LABELS, (0, 1, 2)), (LABELS + 5, (5, 6, 7)), (NAMES[LABELS], ("cat", "dog", "eel"))],
    ids=["from zero", "from five", "text"],
)
def test_classes_are_read_from_the_graph(model, labels, expected):
    found = onnx_graph.read(converted(model, labels))
    assert found.classes == expected
    assert found.class_output == found.signature.outputs[0].name


def test_a_regression_has_no_classes():
    found = onnx_graph.read(to_onnx(LinearRegression().fit(ROWS, ROWS[:, 0]), ROWS[:1]))
    assert (found.classes, found.class_output) == (None, None)


def test_an_integer_output_of_another_node_is_no_class():
    found = onnx_graph.read(one_node("Shape", TensorProto.INT64))
    assert (found.classes, found.class_output) == (None, None)


def one_node(operator, output_type, *, domain=""):
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])]
    outputs = [helper.make_tensor_value_info("y", output_type, [None])]
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets, ir_version=9)


def test_a_file_reads_as_the_model_in_it(onnx_file, onnx_model):
    found = onnx_graph.read(onnx_file)
    assert found.model == onnx_model
    assert [(spec.name, spec.datatype, spec.shape) for spec in found.signature.inputs] == [("X", "FP32", (-1, 3))]


def test_weights_next_to_the_file_are_loaded(tmp_path):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3], np.ones(3, np.float32).tobytes(), raw=True)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [node],
        "g",
        [value("x", TensorProto.FLOAT, [None, 3])],
        [value("y", TensorProto.FLOAT, [None, 3])],
        [weights],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "m.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    (answer,) = onnx_graph.read(path).runtime.run({"x": np.zeros((1, 3), np.float32)})
    assert answer.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no file"), (b"not a protobuf", "is no ONNX model"), (b"", "not valid ONNX")],
    ids=["absent", "garbage", "empty"],
)
def test_a_file_that_is_no_model_is_refused(tmp_path, content, message):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        onnx_graph.read(path)


def test_a_model_that_the_checker_refuses(onnx_model):
    broken = onnx.ModelProto.FromString(onnx_model.SerializeToString())
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(InvalidInputError, match="not valid ONNX") as caught:
        onnx_graph.read(broken)
    assert "\n" not in str(caught.value)


def test_an_operator_that_onnxruntime_lacks():
    with pytest.raises(InvalidInputError, match="cannot be loaded by onnxruntime") as caught:
        onnx_graph.read(one_node("Unheard", TensorProto.FLOAT, domain="some.where"))
    assert "\n" not in str(caught.value)


def test_a_map_for_output_is_a_tensor(classifier):
    found = onnx_graph.read(to_onnx(classifier, np.zeros((1, 3), np.float32)))
    assert [(spec.name, spec.datatype, spec.shape) for spec in found.signature.outputs] == [
        ("output_label", "INT64", (-1,)),
        ("output_probability", "FP32", (-1, 2)),
    ]
    assert (found.class_output, found.classes) == ("output_label", (0, 1))


def test_an_opened_model_is_not_opened_again(onnx_model):
    found = onnx_graph.read(onnx_model)
    assert onnx_graph.read(found) is found
