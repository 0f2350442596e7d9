import numpy as np
import pytest

from bench import inference, models, strings
from bench.servers.measured import BASELINE, SERVERS, running
from penstock import inference_pb2 as pb


def test_an_answer_is_compared_with_the_models_output(tmp_path) -> None:
    files = models.write(tmp_path, {"mlp"})
    outputs = inference.expected(files["mlp"], "mlp", rows=3)
    sent = inference.messages("mlp", rows=3)
    with running(SERVERS[BASELINE].command(tmp_path, files)) as server:
        inference.check(server.grpc, sent, outputs)
        wrong = [{"scores": array["scores"] + 1} for array in outputs]
        with pytest.raises(inference.WrongAnswerError, match="'scores' differs"):
            inference.check(server.grpc, sent, wrong)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ({"a": np.zeros(2)}, None),
        ({"a": np.full(2, 1e-6)}, None),
        ({"a": np.ones(2)}, "'a' differs"),
        ({"a": np.zeros((1, 2))}, r"shape [2], got [1, 2]"),
        ({"b": np.zeros(2)}, "expected outputs ['a'], got ['b']"),
        ({"a": np.full(2, np.nan)}, "'a' differs"),
    ],
)
def test_answers_are_compared_by_name_shape_and_value(got, said) -> None:
    difference = inference.compare({"a": np.zeros(2)}, got)
    assert difference is None if said is None else said in difference


def test_every_request_has_its_expected_rows() -> None:
    assert len(inference.messages(strings.NAME, rows=2)) == len(inference.tensors(strings.NAME, 2))
    assert {part.shape for part in inference.tensors(strings.NAME, 2)} == {(2, 115)}


def test_requests_get_ids_and_keys_of_their_own() -> None:
    plain = inference.messages("tabular", rows=2)
    found = [pb.ModelInferRequest.FromString(message) for message in inference.keyed(plain)]
    assert len({request.id for request in found}) == len({str(request.parameters) for request in found}) == len(plain)
    for request in found:
        request.ClearField("id")
        request.ClearField("parameters")
    assert [request.SerializeToString() for request in found] == list(plain)
