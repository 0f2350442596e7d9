import socket
import threading

import pytest

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.client_commands import http


def test_the_body_is_given(serving):
    serving.body = b"\x00anything"
    assert http.get(f"{serving.url}/a/b%20c?d=e") == b"\x00anything"
    assert serving.asked == ["/a/b%20c?d=e"]


def test_another_status_is_an_error_with_its_body(serving):
    serving.status, serving.body = 404, b"gone"
    with pytest.raises(http.StatusError) as caught:
        http.get(f"{serving.url}/v1/models")
    assert str(caught.value) == f"{serving.url} answers 404 to /v1/models; is it the --http-port of penstock?"
    assert (caught.value.status, caught.value.body) == (404, b"gone")


@pytest.mark.parametrize(("status", "hint"), [(401, "set PENSTOCK_TOKEN"), (403, "has no right to it")])
def test_who_is_refused_is_told_what_to_do(serving, status, hint):
    serving.status = status
    with pytest.raises(http.StatusError, match=hint):
        http.get(f"{serving.url}/v1/models")


def test_the_token_in_the_environment_is_shown(serving, monkeypatch):
    http.get(f"{serving.url}/v1/models")
    monkeypatch.setenv("PENSTOCK_TOKEN", "secret")
    http.get(f"{serving.url}/v1/models")
    assert serving.headers == [None, "Bearer secret"]


def test_nobody_there():
    expected = r"no server answers at http://127\.0\.0\.1:9 \(Connection refused\); start one with `penstock serve`"
    with pytest.raises(UnavailableError, match=expected):
        http.get("http://127.0.0.1:9/v1/models")


def test_who_does_not_answer_is_given_up():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(UnavailableError, match=r"no server answers at .* \(timed out\)"),
    ):
        http.get(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.05)


def test_another_protocol_is_recognised():
    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 mail ready\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(InvalidInputError, match="does not speak HTTP; is it the --http-port of penstock"):
            http.get(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8002", "file:///etc/passwd", "http://", "http://[::1", "http://a b/"])
def test_other_addresses_are_refused(url):
    with pytest.raises(InvalidInputError):
        http.get(url)
