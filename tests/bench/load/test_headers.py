import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from bench.load import headers
from penstock_client.http2.frames import ProtocolError, header_block

texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=300)


def test_the_request_block_says_what_grpc_asks_for() -> None:
    block = headers.request_block("/package.Service/Method", "127.0.0.1:8001", [("grpc-timeout", "1S")])
    assert [(str(name), str(value)) for name, value in Decoder().decode(block)] == [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/package.Service/Method"),
        (":authority", "127.0.0.1:8001"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", "1S"),
    ]


@given(st.lists(st.tuples(texts.map(str.lower), texts), max_size=6), st.booleans())
def test_decode_reads_any_block_of_an_encoder_without_a_table(fields, is_huffman) -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    first = encoder.encode(fields, huffman=is_huffman)
    assert headers.decode(first) == fields
    assert headers.decode(encoder.encode(fields, huffman=is_huffman)) == fields


@pytest.mark.parametrize("block", [b"\xbe", b"\x00\x05ab", b"\x3f\xe1\x1f"], ids=["dynamic", "torn", "table grows"])
def test_decode_refuses_what_an_empty_table_cannot_hold(block) -> None:
    with pytest.raises(ProtocolError, match="cannot be decoded"):
        headers.decode(block)


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ([("grpc-status", "0")], headers.OK),
        ([("grpc-status", "0"), ("grpc-message", "fine")], headers.OK),
        ([("grpc-status", "3"), ("grpc-message", "bad%20input")], "grpc-status 3: bad input"),
        ([(":status", "200"), ("grpc-status", "13")], "grpc-status 13"),
        ([(":status", "404")], "no grpc-status, HTTP status 404"),
        ([], "no grpc-status, HTTP status absent"),
    ],
)
def test_only_status_zero_is_ok(fields, verdict) -> None:
    assert headers.judge(fields) == verdict


def test_a_known_block_keeps_its_verdict_and_new_ones_do_not_fill_the_memory() -> None:
    verdicts = headers.Verdicts()
    for number in range(3000):
        assert verdicts.of(header_block([("grpc-status", "3"), ("n", str(number))])) == "grpc-status 3"
    assert len(verdicts._known) <= 1024
    assert verdicts.of(header_block([("grpc-status", "0")])) == verdicts.of(header_block([("grpc-status", "0")])) == ""
