import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from penstock_client.http2 import hpack as ours
from penstock_client.http2.frames import ProtocolError, header_block

NAMES = st.one_of(
    st.sampled_from([name for name, _ in ours._STATIC]), st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)
)
VALUES = st.one_of(st.sampled_from(["200", "0", "application/grpc"]), st.text(st.characters(max_codepoint=255)))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def encoded(fields, *, huffman):
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode([(name, value.encode("latin-1")) for name, value in fields], huffman=huffman)


@given(FIELDS, st.booleans())
def test_blocks_of_another_encoder_are_read(fields, huffman):
    assert ours.decoded(encoded(fields, huffman=huffman)) == tuple(fields)


@given(st.binary(max_size=60))
def test_what_another_decoder_reads_is_read_alike_or_refused(block):
    decoder = hpack.Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    try:
        expected = decoder.decode(block, raw=True)
    except hpack.HPACKError:
        expected = None
    try:
        found = ours.decoded(block)
    except ProtocolError:
        # The other one takes a text that is filled up with more than one byte, which RFC 7541 forbids.
        return
    assert expected is not None
    assert [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found] == [
        (bytes(name), bytes(value)) for name, value in expected
    ]


def test_the_tables_are_those_of_the_rfc():
    assert [(name.encode(), value.encode()) for name, value in ours._STATIC] == list(
        hpack.hpack.HeaderTable.STATIC_TABLE
    )
    codes = {
        (length, code): symbol
        for symbol, (length, code) in enumerate(zip(REQUEST_CODES_LENGTH, REQUEST_CODES, strict=True))
    }
    assert codes == ours._CODES


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.text("abc /", max_size=300)), max_size=5))
def test_what_is_written_is_read(fields):
    assert ours.decoded(header_block(fields)) == tuple(fields)
    assert [tuple(each) for each in hpack.Decoder().decode(header_block(fields))] == fields


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"\xbe", "entry 62"),
        (b"\x80", "entry 0"),
        (b"\x3f\xe1\x1f", "keeps a header table"),
        (b"\x00\x05ab", "torn"),
        (b"\x00\x81\x00\x00", "ends within a code"),
        (b"\x00\x84\xff\xff\xff\xff\x00", "code for its end|holds no code"),
        (b"\xff\xff\xff\xff\xff\xff\xff", "longer than 32 bits"),
        (b"\x88\x20", "amidst its fields"),
        (b"\x00", "torn"),
    ],
)
def test_what_cannot_be_read_is_refused(block, words):
    with pytest.raises(ProtocolError, match=words):
        ours.decoded(block)


def test_blocks_that_differ_each_time_do_not_fill_the_memory():
    reader = ours.HeaderReader()
    for number in range(3000):
        assert reader.read(header_block([("date", str(number))])) == (("date", str(number)),)
    assert len(reader._known) <= 1024
