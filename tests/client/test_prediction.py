import numpy as np
import pytest

from penstock.inference_pb2 import InferParameter, InferTensorContents, ModelInferResponse
from penstock_client.errors import ServerError
from penstock_client.prediction import Prediction, Timing, prediction_of

Output = ModelInferResponse.InferOutputTensor


def read(**fields):
    return prediction_of(ModelInferResponse(**fields).SerializeToString(), round_trip_s=0.5)


def test_a_bare_reply_leaves_what_it_does_not_say_absent():
    prediction = read(model_name="m", model_version="2")
    assert (prediction.model, prediction.version) == ("m", "2")
    assert (prediction.role, prediction.request_id) == (None, None)
    timing = prediction.timing
    assert (timing.queue_s, timing.compute_s, timing.batch_rows, timing.round_trip_s) == (None, None, None, 0.5)
    assert dict(prediction) == {}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"penstock_queue_us": InferParameter(int64_param=0)}, 0.0),
        ({"penstock_queue_us": InferParameter(int64_param=1500)}, 0.0015),
        ({"penstock_queue_us": InferParameter(string_param="1500")}, None),
        ({"other": InferParameter(int64_param=3)}, None),
    ],
)
def test_a_parameter_counts_only_in_its_type(parameters, expected):
    assert read(parameters=parameters).timing.queue_s == expected


@pytest.mark.parametrize(
    ("datatype", "contents", "expected"),
    [
        ("BOOL", {"bool_contents": [True, False]}, [True, False]),
        ("INT8", {"int_contents": [-1, 2]}, [-1, 2]),
        ("INT64", {"int64_contents": [-1, 2]}, [-1, 2]),
        ("UINT16", {"uint_contents": [1, 2]}, [1, 2]),
        ("UINT64", {"uint64_contents": [1, 2**64 - 1]}, [1, 2**64 - 1]),
        ("FP32", {"fp32_contents": [0.5, 2]}, [0.5, 2]),
        ("FP64", {"fp64_contents": [0.1, 2]}, [0.1, 2]),
        ("BYTES", {"bytes_contents": [b"a", b"\xff"]}, ["a", b"\xff"]),
    ],
)
def test_typed_contents_are_read(datatype, contents, expected):
    output = Output(name="y", datatype=datatype, shape=[2], contents=InferTensorContents(**contents))
    assert read(outputs=[output])["y"].tolist() == expected


def test_raw_text_is_text_where_it_is_utf8():
    raw = b"\x02\x00\x00\x00\xc3\xa9\x01\x00\x00\x00\xff"
    reply = read(outputs=[Output(name="y", datatype="BYTES", shape=[1, 2])], raw_output_contents=[raw])
    assert reply["y"].tolist() == [["é", b"\xff"]]


@pytest.mark.parametrize(("datatype", "raw"), [("INT8", b"\x01"), ("BYTES", b"\x00\x00\x00\x00")])
def test_outputs_are_read_only(datatype, raw):
    reply = read(outputs=[Output(name="y", datatype=datatype, shape=[1])], raw_output_contents=[raw])
    with pytest.raises(ValueError, match="read-only"):
        reply["y"][0] = 1


def test_a_prediction_is_a_mapping_in_the_servers_order():
    outputs = [Output(name=name, datatype="INT8", shape=[1]) for name in "zay"]
    prediction = read(outputs=outputs, raw_output_contents=[b"\x01", b"\x02", b"\x03"])
    assert list(prediction) == ["z", "a", "y"]
    assert len(prediction) == 3
    assert np.array_equal(prediction["a"], [2])
    assert "b" not in prediction
    with pytest.raises(KeyError):
        prediction["b"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"outputs": [Output(name="y", datatype="INT8", shape=[2])], "raw_output_contents": [b"1"]}, "takes 2 bytes"),
        ({"outputs": [Output(name="y", datatype="INT8", shape=[1])], "raw_output_contents": [b"1", b"2"]}, "2 raw"),
        ({"outputs": [Output(name="y", datatype="QUBIT", shape=[1])], "raw_output_contents": [b"1"]}, "QUBIT"),
        ({"outputs": [Output(name="y", datatype="FP32", shape=[1])]}, "takes 1 elements, got 0"),
        ({"outputs": [Output(name="y", datatype="INT8", shape=[-1])], "raw_output_contents": [b"1"]}, "cannot be read"),
    ],
)
def test_a_malformed_reply_is_the_servers_fault(fields, words):
    with pytest.raises(ServerError) as failed:
        read(**fields)
    assert words in str(failed.value)


def test_bytes_that_are_no_message_are_the_servers_fault():
    with pytest.raises(ServerError, match="not a ModelInferResponse"):
        prediction_of(b"\xff\xff\xff", round_trip_s=0.0)


def given(**outputs):
    return Prediction(outputs, "m", "1", None, None, Timing(None, None, None, 0.0))


def test_outputs_are_columns():
    prediction = given(label=np.array(["a", "b"], object), one=np.array([[1], [2]]), p=np.arange(8.0).reshape(2, 2, 2))
    assert {name: values.tolist() for name, values in prediction.columns().items()} == {
        "label": ["a", "b"],
        "one": [1, 2],
        "p_0": [0, 4],
        "p_1": [1, 5],
        "p_2": [2, 6],
        "p_3": [3, 7],
    }


def test_no_rows_and_no_outputs_are_columns_too():
    assert {name: len(values) for name, values in given(p=np.zeros((0, 2))).columns().items()} == {"p_0": 0, "p_1": 0}
    assert given().columns() == {}


@pytest.mark.parametrize("outputs", [{"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.array(1.0)}])
def test_outputs_of_other_rows_are_no_columns(outputs):
    with pytest.raises(ValueError, match="same number of rows, got shapes"):
        given(**outputs).columns()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_has_the_columns_and_their_types(library):
    frame = given(label=np.array(["a", "b"], object), p=np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)).frame(library)
    assert type(frame).__module__.startswith(library)
    assert list(frame.columns) == ["label", "p_0", "p_1"]
    assert frame["p_1"].to_list() == [0.75, 0.5]
    assert frame["label"].to_list() == ["a", "b"]
    assert "32" in str(frame["p_0"].dtype)


def test_frames_of_other_libraries_are_refused():
    with pytest.raises(ValueError, match="'pandas' or 'polars', got 'spark'"):
        given().frame("spark")
