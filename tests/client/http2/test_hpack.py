import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from penstock_client.http2 import hpack as ours
from penstock_client.http2.frames import ProtocolError, header_block
from penstock_client.http2.hpack import HeaderReader, KnownBlocks

NAMES = st.one_of(
    st.sampled_from([name for name, _ in ours._STATIC]), st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)
)
VALUES = st.one_of(st.sampled_from(["200", "0", "application/grpc"]), st.text(st.characters(max_codepoint=255)))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def reader():
    return HeaderReader(KnownBlocks())


def encoded(encoder, fields, *, huffman=True):
    return encoder.encode([(name, value.encode("latin-1")) for name, value in fields], huffman=huffman)


def without_table():
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder


@given(FIELDS, st.booleans())
def test_blocks_of_another_encoder_are_read(fields, huffman):
    assert reader().read(encoded(without_table(), fields, huffman=huffman)) == tuple(fields)


@pytest.mark.long
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            FIELDS,
            st.booleans(),
            st.lists(st.sampled_from([0, 33, 100, 1000, 4096]), max_size=2),
        ),
        max_size=30,
    )
)
def test_each_connection_has_a_table_of_its_own_whatever_they_have_learnt_of_blocks(sent):
    """Servers that keep tables of any size, or none, and change it as they like."""
    known = KnownBlocks()
    ends = [(hpack.Encoder(), HeaderReader(known)) for _ in range(3)]
    for which, fields, huffman, sizes in sent:
        encoder, each = ends[which]
        for size in sizes:
            encoder.header_table_size = size
        block = encoded(encoder, fields, huffman=huffman)
        assert each.read(block) == tuple(fields)
        each.learn(block, is_end=True)
        # What is looked up without being read has nothing to do with the table.
        for one in each.usual:
            assert each.read(one) == HeaderReader(KnownBlocks()).read(one)
        assert sum(len(name) + len(value) + 32 for name, value in each._table) == each._size_bytes <= each._most_bytes


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_what_another_decoder_reads_is_read_alike_or_refused(blocks):
    decoder, own = hpack.Decoder(), reader()
    for block in blocks:
        try:
            expected = decoder.decode(block, raw=True)
        except hpack.HPACKError:
            expected = None
        try:
            found = own.read(block)
        except ProtocolError:
            # The other one takes a text that is filled up with more than one byte, which RFC 7541 forbids.
            return
        assert expected is not None
        assert [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found] == [
            (bytes(name), bytes(value)) for name, value in expected
        ]


def test_a_block_is_decoded_once_for_all_connections_unless_the_table_has_part_in_it(monkeypatch):
    decoded = []
    monkeypatch.setattr(
        HeaderReader,
        "_decoded",
        lambda self, block, before=HeaderReader._decoded: decoded.append(block) or before(self, block),
    )
    known = KnownBlocks()
    alone, status = header_block([("grpc-status", "0")]), [("grpc-status", "0")]
    for _ in range(3):
        # Nothing is known of this server's table: it may keep one.
        each, encoder = HeaderReader(known), hpack.Encoder()
        for _ in range(3):
            assert each.read(alone) == tuple(status)
        first, again = encoded(encoder, status), encoded(encoder, status)
        assert [each.read(block) for block in (first, again, again)] == [tuple(status)] * 3
    assert decoded == [alone] + [first, again, again] * 3
    decoded.clear()
    for _ in range(3):
        # This one says that it keeps none.
        each, encoder = HeaderReader(known), without_table()
        opening = encoded(encoder, status)
        assert opening[0] == 0x20
        for block in (opening, first, first, alone, encoded(encoder, status)):
            assert each.read(block) == tuple(status)
    assert decoded == [opening, first, alone, opening, opening]


def test_an_entry_larger_than_the_table_empties_it():
    own = reader()
    small = b"\x40\x01a\x01b"
    assert own.read(small + b"\xbe") == (("a", "b"), ("a", "b"))
    assert own.read(b"\x40\x01a" + b"\x7f\xe1\x1f" + b"c" * 4192)[0][1] == "c" * 4192
    with pytest.raises(ProtocolError, match="entry 62 of a table that has 61"):
        own.read(b"\xbe")


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
    assert reader().read(header_block(fields)) == tuple(fields)
    assert [tuple(each) for each in hpack.Decoder().decode(header_block(fields))] == fields


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"\xbe", "entry 62"),
        (b"\x80", "entry 0"),
        (b"\x3f\xe2\x1f", "keeps a header table of 4097 bytes"),
        (b"\x40\x01a\x01b\xbf", "entry 63 of a table that has 62"),
        (b"\x40\x01a\x01b\x20", "amidst its fields"),
        (b"\x20\x40\x01a\x01b\xbe", "entry 62 of a table that has 61"),
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
        reader().read(block)


@pytest.mark.parametrize("has_table", [False, True])
def test_blocks_that_differ_each_time_do_not_fill_the_memory(has_table):
    known = KnownBlocks()
    own = HeaderReader(known)
    if not has_table:
        own.read(b"\x20")
    kept = known.with_table if has_table else known.without_table
    for number in range(3000):
        block = header_block([("date", str(number))])
        assert own.read(block) == (("date", str(number)),)
        own.learn(block, is_end=False)
        assert own.usual.get(block) is False
    assert len(kept.usual) == len(kept.fields) <= 1024
    long = b"\x88" * 5000
    assert len(own.read(long)) == 5000
    own.learn(long, is_end=False)
    assert long not in own.usual
    assert long not in kept.fields
