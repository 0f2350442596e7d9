import os
from pathlib import Path

import pytest

from penstock_server.sources.shared_files import MIN_BYTES, SharedFiles, digest_of

CONTENT = b"penstock" * MIN_BYTES


@pytest.fixture
def shared(tmp_path: Path) -> SharedFiles:
    return SharedFiles(tmp_path / "files")


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(content)
    return path


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "files").iterdir())


def test_equal_files_become_one(shared: SharedFiles, tmp_path: Path) -> None:
    paths = [put(tmp_path / name) for name in "abc"]
    other = put(tmp_path / "d", b"other" * MIN_BYTES)
    assert len({shared.share(path) for path in paths}) == 1
    assert shared.share(paths[0]) == digest_of(paths[0])  # again
    assert shared.share(other) != shared.share(paths[0])
    assert len({path.stat().st_ino for path in paths}) == 1
    assert paths[0].stat().st_nlink == 4
    assert len(kept(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_small_files_are_not_shared(shared: SharedFiles, tmp_path: Path) -> None:
    paths = [put(tmp_path / name, b"x" * (MIN_BYTES - 1)) for name in "ab"]
    assert {shared.share(path) for path in paths} == {digest_of(paths[0])}
    assert not (tmp_path / "files").exists()


def test_a_file_is_taken_by_its_digest(shared: SharedFiles, tmp_path: Path) -> None:
    digest = shared.share(put(tmp_path / "a"))
    assert shared.take(digest, tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    assert not shared.take("sha256:" + "0" * 64, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], b"P" + CONTENT[1:]])
def test_a_damaged_file_is_neither_taken_nor_kept(damage: bytes, shared: SharedFiles, tmp_path: Path) -> None:
    digest = shared.share(put(tmp_path / "a"))
    put(tmp_path / "a", damage)
    assert not shared.take(digest, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert kept(tmp_path) == []


def test_a_damaged_file_is_replaced_by_a_whole_one(shared: SharedFiles, tmp_path: Path) -> None:
    digest = shared.share(put(tmp_path / "a"))
    put(tmp_path / "a", b"x" * len(CONTENT))
    assert shared.share(put(tmp_path / "b")) == digest
    assert kept(tmp_path)[0].samefile(tmp_path / "b")


def test_a_sweep_takes_what_nobody_has(shared: SharedFiles, tmp_path: Path) -> None:
    shared.sweep()  # of a folder that is not there
    digest = shared.share(put(tmp_path / "a"))
    shared.share(put(tmp_path / "b", b"other" * MIN_BYTES))
    (tmp_path / "b").unlink()
    shared.sweep()
    assert [path.name for path in kept(tmp_path)] == [digest.removeprefix("sha256:")]
    (tmp_path / "a").unlink()
    shared.sweep()
    assert kept(tmp_path) == []


def test_without_links_each_keeps_its_own(shared: SharedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    paths = [put(tmp_path / name) for name in "ab"]
    assert {shared.share(path) for path in paths} == {digest_of(paths[0])}
    assert not paths[0].samefile(paths[1])
    assert not shared.take(digest_of(paths[0]), tmp_path / "c")
