import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.sources.budget import Budget
from penstock_server.sources.local_files import copy_folder, local_path
from penstock_server.sources.settings import FetchSettings

MIB = 2**20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A version in the form that MLflow writes."""
    folder = tmp_path / "source"
    (folder / "penstock").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {onnx: {}}\n")
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "penstock" / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def copy(source: Path, target: Path, settings: FetchSettings = FetchSettings()) -> list[Path]:  # noqa: B008
    """Copies, and says what was there when the copy was looked into."""
    seen: list[Path] = []
    copy_folder(source, target, Budget(settings), lambda folder: seen.extend(folder.iterdir()))
    return seen


def test_a_version_is_copied_whole_and_looked_into_first(source: Path, target: Path) -> None:
    assert copy(source, target) == [target / "MLmodel"]
    files = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert files == {"MLmodel": b"flavors: {onnx: {}}\n", "model.onnx": b"graph", "penstock/manifest.json": b"{}"}


def test_what_the_look_refuses_is_not_copied(source: Path, target: Path) -> None:
    def refuse(_: Path) -> None:
        raise InvalidInputError("not ONNX")

    with pytest.raises(InvalidInputError, match="not ONNX"):
        copy_folder(source, target, Budget(FetchSettings()), refuse)
    assert not (target / "model.onnx").exists()


def test_a_plain_graph_needs_no_description(source: Path, target: Path) -> None:
    (source / "MLmodel").unlink()
    assert copy(source, target) == []
    assert (target / "model.onnx").read_bytes() == b"graph"


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _folder_link(path: Path) -> None:
    path.symlink_to("/etc")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("making a device needs root")


@pytest.mark.parametrize("place", ["x", "penstock/x"])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (_link, "a symbolic link"),
        (_folder_link, "a symbolic link"),
        (_pipe, "a named pipe"),
        (_socket, "a socket"),
        (_device, "a device"),
    ],
)
def test_what_is_no_regular_file_refuses_the_version(
    make: Callable[[Path], None], kind: str, place: str, source: Path, target: Path
) -> None:
    make(source / place)
    with pytest.raises(InvalidInputError, match=f"its file 'x' is {kind}; expected regular files only"):
        copy(source, target)


@pytest.mark.parametrize("name", ["/etc", "/dev", "/proc", "/"])
def test_a_folder_of_the_machine_is_no_version(name: str, target: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"a folder without MLmodel or model\.onnx"):
        copy(Path(name), target)
    assert list(target.iterdir()) == []


def test_a_mark_that_is_a_link_is_no_mark(tmp_path: Path, source: Path, target: Path) -> None:
    disguised = tmp_path / "disguised"
    disguised.mkdir()
    (disguised / "MLmodel").symlink_to(source / "MLmodel")
    with pytest.raises(InvalidInputError, match="a folder without MLmodel"):
        copy(disguised, target)


def test_a_root_that_is_a_link_is_followed(tmp_path: Path, source: Path, target: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    copy(tmp_path / "link", target)
    assert (target / "model.onnx").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (FetchSettings(max_mib=1.0), "take more than 1 MiB; fetch.max_mib allows no more"),
        (FetchSettings(max_files=3), "more than 3 files; fetch.max_files allows no more"),
    ],
)
def test_the_bounds_hold(settings: FetchSettings, said: str, source: Path, target: Path) -> None:
    (source / "large").write_bytes(bytes(MIB + 1))
    with pytest.raises(InvalidInputError, match=said):
        copy(source, target, settings)


def test_what_just_fits_is_taken(source: Path, target: Path) -> None:
    for path in (source / "model.onnx", source / "penstock" / "manifest.json", source / "MLmodel"):
        path.write_bytes(b"")
    (source / "model.onnx").write_bytes(bytes(MIB))
    copy(source, target, FetchSettings(max_mib=1.0, max_files=4))
    assert (target / "model.onnx").stat().st_size == MIB


def test_bytes_are_counted_as_they_come(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may grow, or lie about its size as those of /proc do."""
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(3 * MIB))

    class Lying:
        def __init__(self, found: os.stat_result) -> None:
            self.st_mode, self.st_size = found.st_mode, 0

    original = os.scandir

    class Entries:
        def __init__(self, folder: int) -> None:
            self.entries = original(folder)

        def __enter__(self) -> "list[object]":
            return [self._entry(entry) for entry in self.entries]

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        @staticmethod
        def _entry(entry: "os.DirEntry[str]") -> object:
            class Disguised:
                name = entry.name

                @staticmethod
                def stat(follow_symlinks: bool) -> Lying:
                    return Lying(entry.stat(follow_symlinks=follow_symlinks))

            return Disguised

    monkeypatch.setattr(os, "scandir", Entries)
    with pytest.raises(InvalidInputError, match="take more than 1 MiB"):
        copy(folder, target, FetchSettings(max_mib=1.0))
    assert (target / "model.onnx").stat().st_size <= MIB


def test_nested_folders_are_bounded(source: Path, target: Path) -> None:
    (source / "/".join("d" * 20)).mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="nested deeper than 16"):
        copy(source, target)


def test_what_is_not_there_is_told(tmp_path: Path, source: Path, target: Path) -> None:
    with pytest.raises(NotFoundError, match="its folder is not on this machine"):
        copy(tmp_path / "nowhere", target)
    with pytest.raises(InvalidInputError, match="its source is not a folder"):
        copy(source / "model.onnx", target)
    with pytest.raises(UnavailableError, match="cannot be read"):
        copy(Path("/" + "x" * 5000), target)
    with pytest.raises(UnavailableError, match="cannot be read"):
        copy(Path("/a\0b"), target)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b%20c", "/a/b c"),
        ("file:/a", "/a"),
        ("file://localhost/a", "/a"),
        ("file://elsewhere/a", None),
        ("s3://bucket/a", None),
        ("mlflow-artifacts:/a", None),
        ("models:/a/1", None),
        ("", None),
    ],
)
def test_only_addresses_of_this_machine_are_paths(uri: str, path: str | None) -> None:
    assert local_path(uri) == (None if path is None else Path(path))


def test_a_relative_path_is_below_the_working_directory() -> None:
    assert local_path("mlruns/1") == Path.cwd() / "mlruns" / "1"
