import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.rest.http import (
    HEAD_BYTES,
    HEAD_FIELDS,
    BadRequestError,
    Request,
    RequestReader,
    answer,
    encoding_for,
    packed,
    unpacked,
)

MOST = 100
TWO = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: 2\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
UPGRADES = (
    b"GET /u HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    b"POST /v HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi"
)


def read_all(reader: RequestReader, data: bytes, cuts: list[int]) -> list[Request]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    found: list[Request] = []
    for start, end in pairwise(places):
        found += reader.receive(data[start:end])
    return found


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_requests_are_the_same_wherever_their_bytes_are_cut(cuts: list[int]) -> None:
    first, second, third, fourth, fifth = read_all(
        RequestReader(MOST), TWO.replace(b"1.0", b"1.1") + CHUNKED + UPGRADES, cuts
    )
    assert first == Request(
        b"POST", b"/a?b=c", {b"host": b"x", b"x-one": b"1, 2", b"content-length": b"3"}, b"abc", is_kept=True
    )
    assert (second.method, second.target, second.body) == (b"GET", b"/", b"")
    assert (third.target, third.body) == (b"/c", b"abcde")
    assert (fourth.target, fourth.body, fifth.target, fifth.body) == (b"/u", b"", b"/v", b"hi")


def test_http_1_0_and_close_end_the_connection() -> None:
    assert [request.is_kept for request in RequestReader(MOST).receive(TWO)] == [True, False]
    (request,) = RequestReader(MOST).receive(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert not request.is_kept


def test_a_caller_that_waits_to_send_its_body_is_noticed() -> None:
    reader = RequestReader(MOST)
    assert reader.receive(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n") == []
    assert reader.wants_continue
    assert reader.is_reading
    (request,) = reader.receive(b"ab")
    assert (request.body, reader.wants_continue, reader.is_reading) == (b"ab", False, False)


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"\x16\x03\x01\x02\x00", 400, "no HTTP/1.1 request"),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
            413,
            "the body takes 101 bytes or more, expected at most 100",
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"a" * 101, 413, "expected at most 100"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (HEAD_FIELDS + 1) + b"\r\n", 431, "at most 100 fields"),
        (b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n", 431, "at most 16,384 bytes"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431, "at most 16,384 bytes"),
        (b"GET / HTTP/1.1\r\nAuthorization: a\r\nauthorization: b\r\n\r\n", 400, "'authorization' is given twice"),
        # What a proxy in front could read differently: request smuggling.
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Transfer-Encoding"),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400, "Content-Length"),
        (b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", 400, "Content-Length"),
        (b"POST / HTTP/1.1\r\nContent-Length : 3\r\n\r\n", 400, "no HTTP/1.1 request"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "no HTTP/1.1 request"),
        (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400, "no HTTP/1.1 request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 400, "no HTTP/1.1 request"),
        (
            b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
            "does not upgrade",
        ),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501, "does not upgrade"),
    ],
)
def test_what_is_no_request_or_too_much_is_refused(data: bytes, status: int, said: str) -> None:
    with pytest.raises(BadRequestError, match=said) as caught:
        RequestReader(MOST).receive(data)
    assert caught.value.status == status


def test_requests_before_a_bad_one_are_kept() -> None:
    reader = RequestReader(MOST)
    with pytest.raises(BadRequestError):
        reader.receive(b"GET /good HTTP/1.1\r\n\r\n\x00bad")
    assert [request.target for request in reader.taken()] == [b"/good"]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    reader = RequestReader(MOST)
    try:
        for request in reader.receive(data):
            assert len(request.body) <= MOST
    except BadRequestError as error:
        assert 400 <= error.status < 600  # noqa: PT017 - either outcome is right


@given(st.binary(max_size=MOST), st.sampled_from(["gzip", "deflate"]))
def test_a_body_is_the_same_after_its_compression(body: bytes, encoding: str) -> None:
    assert unpacked(packed(body, encoding), encoding, MOST) == body


@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (b"x", "br", 415, "'br', expected gzip or deflate"),
        (b"hello", "gzip", 400, "not gzip"),
        (gzip.compress(b"a" * 101, mtime=0), "gzip", 413, "larger than 100 bytes"),
        (gzip.compress(b"a" * 10_000_000, mtime=0), "gzip", 413, "larger than 100 bytes"),
        (gzip.compress(b"abc", mtime=0)[:-1], "gzip", 400, "cut short"),
        (zlib.compress(b"abc") + b"x", "deflate", 400, "goes on after its end"),
        (b"", "gzip", 400, "cut short"),
    ],
)
def test_a_body_whose_compression_is_wrong_is_refused(body: bytes, encoding: str, status: int, said: str) -> None:
    with pytest.raises(BadRequestError, match=said) as caught:
        unpacked(body, encoding, MOST)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (b"gzip, deflate", "gzip"),
        (b"GZIP", "gzip"),
        (b"gzip;q=0.1, deflate;q=0.9", "deflate"),
        (b"gzip;q=zero", ""),
        (b"", ""),
        (b"identity;q=1", ""),
    ],
)
def test_an_answer_is_compressed_as_its_caller_prefers(accepted: bytes, encoding: str) -> None:
    assert encoding_for(accepted) == encoding


def test_an_answer_has_its_length_and_says_when_it_is_the_last() -> None:
    assert answer(200, b"{}") == b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    last = answer(404, b"{}", b"text/plain", more=b"a: b\r\n", is_kept=False, with_body=False)
    assert last == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 2\r\na: b\r\nconnection: close\r\n\r\n"
    )
