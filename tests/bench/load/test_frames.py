import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import frames
from bench.load.frames import ProtocolError


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (frames.frame(frames.DATA, frames.END_STREAM, 3, b"ab"), "000002 00 01 00000003 6162"),
        (frames.frame(frames.SETTINGS, frames.ACK, 0), "000000 04 01 00000000"),
        (frames.settings({frames.HEADER_TABLE_SIZE: 0}), "000006 04 00 00000000 0001 00000000"),
        (frames.settings({2: 0, 4: 2**31 - 1}), "00000c 04 00 00000000 0002 00000000 0004 7fffffff"),
        (frames.window_update(0, 65_536), "000004 08 00 00000000 00010000"),
        (frames.frame_start(frames.HEADERS, 5, 16_384), "004000 01 05"),
    ],
)
def test_frames_are_built_as_rfc_9113_writes_them(built: bytes, expected: str) -> None:
    assert built == bytes.fromhex(expected)


frames_in = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=40)), max_size=8
)


@given(frames_in, st.binary(max_size=8))
def test_scan_finds_what_was_built_and_leaves_a_torn_rest(wanted, rest) -> None:
    buffer = b"".join(frames.frame(*each) for each in wanted)
    found, consumed = frames.scan(buffer + rest)
    assert [(kind, flags, stream, buffer[start:end]) for kind, flags, stream, start, end in found] == wanted
    assert consumed == len(buffer)


@given(frames_in, st.data())
def test_scan_finds_the_same_frames_however_the_bytes_are_cut(wanted, data) -> None:
    buffer = b"".join(frames.frame(*each) for each in wanted)
    cut = data.draw(st.integers(0, len(buffer)))
    first, consumed = frames.scan(buffer[:cut])
    second, _ = frames.scan(buffer[consumed:])
    assert len(first) + len(second) == len(wanted)


def test_scan_refuses_a_frame_longer_than_announced() -> None:
    with pytest.raises(ProtocolError, match="16385 bytes"):
        frames.scan(frames.frame_start(frames.DATA, 0, 16_385) + bytes(4))


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    (found,), _ = frames.scan(b"\x00\x00\x00\x00\x00\x80\x00\x00\x07")
    assert found[2] == 7


def test_settings_are_read_back_and_the_last_of_a_kind_holds() -> None:
    built = frames.settings({3: 100, 4: 7}) + b""
    assert frames.parse_settings(built[9:] + built[9:15]) == {3: 100, 4: 7}
    with pytest.raises(ProtocolError, match="7 bytes"):
        frames.parse_settings(bytes(7))


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "expected"),
    [
        (frames.DATA, 0, b"abc", b"abc"),
        (frames.DATA, frames.PADDED, b"\x02abc\x00\x00", b"abc"),
        (frames.HEADERS, frames.PRIORITY, b"\x00\x00\x00\x00\x10abc", b"abc"),
        (frames.HEADERS, frames.PADDED | frames.PRIORITY, b"\x01\x00\x00\x00\x00\x10abc\x00", b"abc"),
    ],
)
def test_fragment_drops_padding_and_priority(kind, flags, payload, expected) -> None:
    buffer = frames.frame(kind, flags, 1, payload)
    (found,), _ = frames.scan(buffer)
    assert frames.fragment(buffer, found) == expected


@pytest.mark.parametrize(
    ("flags", "payload"),
    [(frames.PADDED, b""), (frames.PADDED, b"\x05abc"), (frames.PRIORITY, b"abc")],
)
def test_fragment_refuses_padding_or_priority_beyond_the_frame(flags, payload) -> None:
    buffer = frames.frame(frames.HEADERS, flags, 1, payload)
    (found,), _ = frames.scan(buffer)
    with pytest.raises(ProtocolError):
        frames.fragment(buffer, found)
