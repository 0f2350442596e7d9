import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.frames import frame_start, scan
from penstock_client.http2.frames import DATA, HEADERS, ProtocolError, frame


@pytest.mark.parametrize(("kind", "flags", "payload"), [(HEADERS, 5, bytes(16_384)), (DATA, 1, b""), (DATA, 0, b"ab")])
def test_a_start_is_that_of_a_whole_frame(kind: int, flags: int, payload: bytes) -> None:
    assert frame(kind, flags, 7, payload).startswith(frame_start(kind, flags, len(payload)) + (7).to_bytes(4, "big"))


frames_in = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=40)), max_size=8
)


@given(frames_in, st.binary(max_size=8))
def test_scan_finds_what_was_built_and_leaves_a_torn_rest(wanted, rest) -> None:
    buffer = b"".join(frame(*each) for each in wanted)
    found, consumed = scan(buffer + rest)
    assert [(kind, flags, stream, buffer[start:end]) for kind, flags, stream, start, end in found] == wanted
    assert consumed == len(buffer)


@given(frames_in, st.data())
def test_scan_finds_the_same_frames_however_the_bytes_are_cut(wanted, data) -> None:
    buffer = b"".join(frame(*each) for each in wanted)
    cut = data.draw(st.integers(0, len(buffer)))
    first, consumed = scan(buffer[:cut])
    second, _ = scan(buffer[consumed:])
    assert len(first) + len(second) == len(wanted)


def test_scan_refuses_a_frame_longer_than_announced() -> None:
    with pytest.raises(ProtocolError, match="16385 bytes"):
        scan(frame_start(DATA, 0, 16_385) + bytes(4))


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    (found,), _ = scan(b"\x00\x00\x00\x00\x00\x80\x00\x00\x07")
    assert found[2] == 7
