import pytest

from bench.faults.mix.tally import ALWAYS, FAILED, NAMED, OK, SHORT, Tally
from penstock import inference_pb2 as pb


@pytest.mark.parametrize(
    ("code", "allowed", "is_fault"),
    [
        (OK, ALWAYS, False),
        ("RESOURCE_EXHAUSTED", ALWAYS, False),
        ("UNAVAILABLE", ALWAYS, True),
        ("UNAVAILABLE", ALWAYS | NAMED, False),
        (SHORT, ALWAYS, True),
        ("INTERNAL", ALWAYS, True),
        ("INTERNAL", FAILED, False),
        (OK, FAILED, True),
    ],
)
def test_an_ending_that_no_such_request_may_have_is_unexpected(code, allowed, is_fault) -> None:
    tally = Tally()
    tally.end("unary", code, allowed, "details")
    assert tally.codes["unary", code] == 1
    assert bool(tally.unexpected) == bool(tally.examples) == is_fault


@pytest.mark.parametrize(
    ("reply_id", "reply_version", "fault", "is_wrong"),
    [
        ("a", "1", None, False),
        ("a", "1", "row 0", True),
        ("b", "1", None, True),
        ("a", "2", None, True),
    ],
)
def test_an_answer_to_another_request_or_of_another_version_is_wrong(reply_id, reply_version, fault, is_wrong) -> None:
    tally = Tally()
    reply = pb.ModelInferResponse(id=reply_id, model_version=reply_version)
    tally.answer(reply, fault, expected_id="a", version="1")
    assert (tally.answers, tally.wrong) == (1, int(is_wrong))


def test_examples_are_bounded() -> None:
    tally = Tally()
    for _ in range(1000):
        tally.say("x" * 10_000)
    assert sum(map(len, tally.examples)) < 10_000
