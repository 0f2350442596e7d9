import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server import sealed

KIND = b"some kind\n"


@given(st.binary(max_size=50))
def test_what_is_written_is_read(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "sealed" / "file"
    sealed.write(path, KIND, content)
    assert sealed.read(path, KIND) == content
    assert sealed.read(path, b"another kind\n") is None
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("at", [0, len(KIND) + 1, -1])
def test_a_file_of_which_a_byte_changed_is_none(tmp_path, at):
    path = tmp_path / "file"
    sealed.write(path, KIND, b"content")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert sealed.read(path, KIND) is None
    path.write_bytes(data[:5])
    assert sealed.read(path, KIND) is None
    path.unlink()
    assert sealed.read(path, KIND) is None
