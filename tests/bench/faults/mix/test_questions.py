"""Whether a wrong answer is seen: right answers are made here from the request, and then spoiled."""

import numpy as np
import pytest

from bench.faults.mix.questions import ALIASED, MODELS, PROMOTED, Questions
from penstock import inference_pb2 as pb
from penstock.tensors import split_bytes

COLOURS = [b"red", b"green", b"blue"]
DTYPES = {"FP64": np.float64, "INT64": np.int64}


def answer(asked: pb.ModelInferRequest, version: int) -> pb.ModelInferResponse:
    """What a right server answers."""
    reply = pb.ModelInferResponse(model_name=asked.model_name, model_version=str(version), id=asked.id)
    if asked.model_name == "features":
        rows = asked.inputs[0].shape[0]
        high, low = (np.frombuffer(asked.raw_input_contents[at], np.float32) for at in (0, 1))
        codes = [COLOURS.index(bytes(text)) for text in split_bytes(asked.raw_input_contents[2], rows)]
        matrix = np.column_stack([high, low, np.eye(4, dtype=np.float32)[codes]]).astype(np.float32)
        reply.outputs.add(name="y", datatype="FP32", shape=[rows, 6])
        reply.raw_output_contents.append(matrix.tobytes())
        return reply
    tensor = asked.inputs[0]
    raw = asked.raw_input_contents[0]
    if tensor.datatype in DTYPES:
        raw = (np.frombuffer(raw, DTYPES[tensor.datatype]) + version).tobytes()
    reply.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
    reply.raw_output_contents.append(raw)
    return reply


@pytest.mark.parametrize("model", sorted(MODELS - {"features"}))
@pytest.mark.parametrize("rows", [1, 7])
def test_only_the_answer_of_the_row_asked_is_right(model, rows) -> None:
    questions = Questions(0)
    question, other = questions.of(model, rows), questions.of(model, rows)
    assert question.check(answer(question.request, 3)) is None
    assert question.check(answer(other.request, 3)) is not None


@pytest.mark.parametrize("model", [ALIASED, PROMOTED, "checked", "heavy"])
def test_an_answer_of_another_version_than_it_names_is_wrong(model) -> None:
    question = Questions(0).of(model, 2)
    reply = answer(question.request, 3)
    reply.model_version = "4"
    assert "expected" in str(question.check(reply))


def test_rows_of_two_requests_joined_wrongly_are_seen() -> None:
    questions = Questions(0)
    question, other = questions.of(PROMOTED, 3), questions.of(PROMOTED, 3)
    right, shifted = answer(question.request, 1), answer(question.request, 1)
    row = 16
    shifted.raw_output_contents[0] = (
        right.raw_output_contents[0][row:] + answer(other.request, 1).raw_output_contents[0][:row]
    )
    assert "row 0 of 3" in str(question.check(shifted))


def test_a_reply_of_another_shape_is_wrong() -> None:
    question = Questions(0).of("text", 2)
    reply = answer(question.request, 1)
    reply.outputs[0].shape[0] = 1
    assert "expected output 'y' of BYTES [2, 1]" in str(question.check(reply))


def test_features_are_checked_by_row() -> None:
    questions = Questions(0)
    question, other = questions.of("features", 5), questions.of("features", 5)
    assert question.check(answer(question.request, 5)) is None
    assert "features: row 0" in str(question.check(answer(other.request, 5)))


def test_a_marked_question_holds_one_marked_row() -> None:
    question = Questions(0).marked("heavy", 9)
    rows = np.frombuffer(question.request.raw_input_contents[0], np.int64)
    assert question.is_marked
    assert (rows < 0).sum() == 1
