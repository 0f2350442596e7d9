import pytest

from bench.load.frames import ProtocolError
from bench.load.headers import OK
from bench.load.http1 import HttpCalls

CALLS = HttpCalls("/infer", "127.0.0.1:1", (b"{}", b"[1]"))
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def test_requests_are_sent_in_turn_with_their_length() -> None:
    connection = CALLS.connect(1)
    connection.submit(1.0)
    assert connection.in_flight == 1
    sent = connection.take_output()
    assert sent.startswith(b"POST /infer HTTP/1.1\r\nhost: 127.0.0.1:1\r\n")
    assert sent.endswith(b"content-length: 3\r\n\r\n[1]")
    assert connection.take_output() == b""


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
def test_an_answer_in_two_pieces_gives_one_outcome(cut) -> None:
    connection = CALLS.connect(0)
    connection.submit(5.0)
    assert connection.receive(ANSWER[:cut]) == []
    assert connection.receive(ANSWER[cut:]) == [(5.0, OK)]
    assert connection.in_flight == 0
    assert connection.close("lost") == []


def test_another_status_is_a_failure() -> None:
    connection = CALLS.connect(0)
    connection.submit(5.0)
    assert connection.receive(ANSWER.replace(b"200 OK", b"503 Busy")) == [(5.0, "HTTP status 503")]


def test_closing_fails_what_is_in_flight() -> None:
    connection = CALLS.connect(0)
    connection.submit(5.0)
    assert connection.close("lost") == [(5.0, "lost")]
    assert connection.is_closing


@pytest.mark.parametrize("wrong", [ANSWER, ANSWER.replace(b"Length", b"Range"), ANSWER + b"x", b"x" * 70_000])
def test_what_is_no_answer_is_refused(wrong) -> None:
    connection = CALLS.connect(0)
    if wrong is not ANSWER:
        connection.submit(1.0)
    with pytest.raises(ProtocolError):
        connection.receive(wrong)
