from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_server import leases
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.sources.version_cache import VersionCache


def files(content: bytes, below: str = "model") -> Callable[[Path], Path]:
    """A download of one file, into a folder below the one it is given."""

    def download(folder: Path) -> Path:
        (folder / below).mkdir(exist_ok=True)
        (folder / below / "model.onnx").write_bytes(content)
        return folder / below

    return download


@pytest.fixture
def cache(tmp_path: Path) -> VersionCache:
    return VersionCache(tmp_path)


def test_a_copy_is_found_by_name_and_by_identity(cache: VersionCache) -> None:
    assert cache.find("m", "1") is None
    assert cache.identity("m", "1") is None
    copy = cache.store("m", "1", "id", files(b"x"))
    assert (copy / "model.onnx").read_bytes() == b"x"
    assert cache.find("m", "1") == cache.find("m", "1", "id") == copy
    assert cache.identity("m", "1") == "id"
    assert cache.find("m", "1", "other") is None
    assert cache.find("m", "2") is None
    assert cache.find("M", "1") is None


def test_files_may_lie_in_the_given_folder_itself(cache: VersionCache) -> None:
    copy = cache.store("m", "1", "id", files(b"x", below=""))
    assert (copy / "model.onnx").read_bytes() == b"x"


def test_copies_of_both_identities_are_kept(cache: VersionCache) -> None:
    cache.store("m", "1", "old", files(b"old"))
    copy = cache.store("m", "1", "new", files(b"new"))
    assert cache.find("m", "1") == copy
    assert (copy / "model.onnx").read_bytes() == b"new"
    old = cache.find("m", "1", "old")
    assert old is not None
    assert (old / "model.onnx").read_bytes() == b"old"
    assert cache.identity("m", "1") == "old"  # used last


def test_a_damaged_copy_is_no_copy_and_is_replaced(cache: VersionCache) -> None:
    copy = cache.store("m", "1", "id", files(b"whole"))
    (copy / "model.onnx").write_bytes(b"who")
    assert cache.find("m", "1") is None
    copy = cache.store("m", "1", "id", files(b"whole"))
    assert (copy / "model.onnx").read_bytes() == b"whole"
    assert cache.find("m", "1") == copy


@pytest.mark.parametrize("content", [b"", b"{", b'{"format":2}', b'{"format":1,"identity":"id","sizes_bytes":{}}'])
def test_a_damaged_record_is_no_copy(content: bytes, cache: VersionCache, tmp_path: Path) -> None:
    cache.store("m", "1", "id", files(b"x"))
    (record,) = tmp_path.rglob("*.json")
    record.write_bytes(content)
    assert cache.find("m", "1") is None


def test_a_failed_download_leaves_nothing(cache: VersionCache, tmp_path: Path) -> None:
    def fail(folder: Path) -> Path:
        (folder / "half").write_text("half")
        raise UnavailableError("the connection broke")

    with pytest.raises(UnavailableError, match="the connection broke"):
        cache.store("m", "1", "id", fail)
    assert cache.find("m", "1") is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_empty_download_is_refused(cache: VersionCache) -> None:
    with pytest.raises(InvalidInputError, match="there are no files"):
        cache.store("m", "1", "id", lambda folder: folder)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot be written to the cache folder"):
        VersionCache(tmp_path / "file").store("m", "1", "id", files(b"x"))


def test_what_is_being_downloaded_has_a_lease(cache: VersionCache) -> None:
    def download(folder: Path) -> Path:
        with leases.for_deleting(folder.parent) as is_free:
            assert not is_free
        return files(b"x")(folder)

    cache.store("m", "1", "id", download)


def test_concurrent_downloads_of_one_version_end_in_one_copy(cache: VersionCache) -> None:
    start = Barrier(4)
    copies: list[Path] = []

    def download(folder: Path) -> Path:
        start.wait(timeout=30)
        return files(b"x")(folder)

    threads = [Thread(target=lambda: copies.append(cache.store("m", "1", "id", download))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copies) == 4
    assert {cache.find("m", "1")} == set(copies)
    assert not list(copies[0].parent.glob(".partial-*"))


@given(model=st.text(max_size=300), version=st.text(max_size=20), identity=st.text(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_no_name_leaves_the_folder(model: str, version: str, identity: str, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    copy = VersionCache(root).store(model, version, identity, files(b"x"))
    assert copy.resolve().is_relative_to(root.resolve())
    assert len(copy.resolve().relative_to(root.resolve()).parts) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
