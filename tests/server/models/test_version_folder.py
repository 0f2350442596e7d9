import contextlib
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.models import version_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version's folder with a secret beside it."""
    (tmp_path / "secret").write_text("key")
    folder = tmp_path / "version"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("A")
    (folder / "sub" / "b").write_text("B")
    return folder


@pytest.mark.parametrize("name", ["a", "sub/b"])
def test_files_of_the_folder_are_found(folder: Path, name: str) -> None:
    assert version_folder.locate(folder, name) == (folder / name).resolve()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../secret", "sub/../../secret", "/etc/hostname", "sub//b", "a\0", "a\n", "..\\secret", "x" * 2000],
)
def test_names_that_are_no_plain_path_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a plain path inside"):
        version_folder.locate(folder, name)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("../secret", "leaves the version's folder"),
        ("/etc/hostname", "leaves the version's folder"),
        ("nowhere", "is missing"),
        ("link", "cannot be read"),
        ("sub", "not a regular file"),
    ],
)
def test_links_may_not_lead_out_or_nowhere(folder: Path, target: str, said: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(InvalidInputError, match=f"file 'link'.*{said}"):
        version_folder.locate(folder, "link")


def test_links_within_the_folder_and_to_it_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to("sub/b")
    (tmp_path / "mounted").symlink_to(folder)
    assert version_folder.read_bytes(tmp_path / "mounted", "link", max_bytes=9) == b"B"


def test_a_pipe_is_refused_instead_of_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInputError, match="not a regular file"):
        version_folder.read_bytes(folder, "pipe", max_bytes=9)


def test_what_is_missing_is_told_with_what_is_there(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"file 'model.onnx' is missing; the folder holds 'a', 'sub'$"):
        version_folder.locate(folder, "model.onnx")
    with pytest.raises(InvalidInputError, match="holds nothing that can be listed"):
        version_folder.locate(folder / "gone", "a")


def test_larger_files_than_expected_are_refused(folder: Path) -> None:
    (folder / "a").write_bytes(b"12345")
    assert version_folder.read_bytes(folder, "a", max_bytes=5) == b"12345"
    with pytest.raises(InvalidInputError, match="file 'a' is too large; expected at most 4 bytes"):
        version_folder.read_bytes(folder, "a", max_bytes=4)


@given(content=st.binary(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_digests_are_sha256(folder: Path, content: bytes) -> None:
    (folder / "a").write_bytes(content)
    expected = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert version_folder.digest_of(content) == version_folder.file_digest(folder, "a") == expected


@given(name=st.text(alphabet=st.characters(), max_size=20) | st.sampled_from(["a/..", "sub/./b", "sub/b/", "~", "a/b"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_leads_out_or_raises_anything_else(folder: Path, name: str) -> None:
    with contextlib.suppress(InvalidInputError):
        assert version_folder.locate(folder, name).is_relative_to(folder.resolve())


def test_file_names_are_relative_and_in_order(folder: Path) -> None:
    assert list(version_folder.file_names(folder)) == ["a", "sub/b"]
    assert list(version_folder.file_names(folder / "gone")) == []
