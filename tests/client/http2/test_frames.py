import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_client.http2 import frames
from penstock_client.http2.frames import ProtocolError, header_block

TEXTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (frames.frame(frames.DATA, frames.END_STREAM, 3, b"ab"), "000002 00 01 00000003 6162"),
        (frames.frame(frames.SETTINGS, frames.ACK, 0), "000000 04 01 00000000"),
        (frames.settings({frames.HEADER_TABLE_SIZE: 0}), "000006 04 00 00000000 0001 00000000"),
        (frames.settings({2: 0, 4: 2**31 - 1}), "00000c 04 00 00000000 0002 00000000 0004 7fffffff"),
        (frames.window_update(0, 65_536), "000004 08 00 00000000 00010000"),
        (frames.reset(5), "000004 03 00 00000005 00000008"),
    ],
)
def test_frames_are_built_as_rfc_9113_writes_them(built, expected):
    assert built == bytes.fromhex(expected)


def test_settings_are_read_back_and_the_last_of_a_kind_holds():
    built = frames.settings({3: 100, 4: 7})
    assert frames.parsed_settings(built[9:] + built[9:15]) == {3: 100, 4: 7}
    with pytest.raises(ProtocolError, match="7 bytes"):
        frames.parsed_settings(bytes(7))


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "expected"),
    [
        (frames.DATA, 0, b"abc", b"abc"),
        (frames.DATA, frames.PADDED, b"\x02abc\x00\x00", b"abc"),
        (frames.HEADERS, frames.PRIORITY, b"\x00\x00\x00\x00\x10abc", b"abc"),
        (frames.HEADERS, frames.PADDED | frames.PRIORITY, b"\x01\x00\x00\x00\x00\x10abc\x00", b"abc"),
    ],
)
def test_padding_and_priority_are_dropped(kind, flags, payload, expected):
    assert frames.unpadded(b"?" + payload + b"?", kind, flags, 1, 1 + len(payload)) == expected


@pytest.mark.parametrize(
    ("flags", "payload"),
    [(frames.PADDED, b""), (frames.PADDED, b"\x05abc"), (frames.PRIORITY, b"abc")],
)
def test_padding_or_priority_beyond_the_frame_is_refused(flags, payload):
    with pytest.raises(ProtocolError):
        frames.unpadded(payload + bytes(20), frames.HEADERS, flags, 0, len(payload))


@given(TEXTS, TEXTS)
def test_a_header_is_read_back_and_not_remembered(name, value):
    decoder = hpack.Decoder()
    assert decoder.decode(header_block([(name.lower(), value)])) == [(name.lower(), value)]
    assert not decoder.header_table.dynamic_entries
