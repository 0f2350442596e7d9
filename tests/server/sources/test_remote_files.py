from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import manifest
from penstock_server.models.manifest import Manifest
from penstock_server.models.version_folder import digest_of
from penstock_server.sources import remote_files
from penstock_server.sources.budget import Budget
from penstock_server.sources.http_session import HttpSession
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.remote_files import MlflowStore, ServerStore
from penstock_server.sources.settings import FetchSettings
from penstock_server.sources.shared_files import MIN_BYTES, SharedFiles
from tests.server.sources.fake_registry import ARTIFACTS, FakeRegistry

MIB = 2**20
FILES = {
    "1/r/artifacts/model/MLmodel": b"flavors: {onnx: {}}",
    "1/r/artifacts/model/model.onnx": b"graph",
    "1/r/artifacts/model/below/a b%2Fä": b"below",
}


def fetch(
    fake: FakeRegistry,
    folder: Path,
    settings: FetchSettings = FetchSettings(),  # noqa: B008
    take: Callable[[str, Path], bool] = lambda _digest, _target: False,
) -> list[str]:
    """Fetches, and says what was there when it was looked into."""
    seen: list[str] = []
    store = ServerStore(HttpSession(fake.uri, timeout_s=5.0), "1/r/artifacts/model")
    remote_files.download(
        store, folder, Budget(settings), lambda at: seen.extend(path.name for path in at.iterdir()), take
    )
    return seen


def test_a_version_is_fetched_whole_and_looked_into_first(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.files = FILES
    assert fetch(fake, tmp_path) == ["MLmodel"]
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"MLmodel": b"flavors: {onnx: {}}", "model.onnx": b"graph", "below/a b%2Fä": b"below"}


def test_what_is_on_this_machine_already_is_not_fetched(fake: FakeRegistry, tmp_path: Path) -> None:
    root, graph = "1/r/artifacts/model", b"graph" * MIN_BYTES
    listed = Manifest({"model.onnx": digest_of(graph), "table.bin": digest_of(b"other")}, datetime.now(UTC))
    fake.files = {
        f"{root}/MLmodel": b"flavors: {onnx: {}}", f"{root}/model.onnx": graph, f"{root}/table.bin": b"table",
        f"{root}/{manifest.NAME}": manifest.encode(listed),
    }  # fmt: skip
    shared = SharedFiles(tmp_path / "files")
    for version in ("1", "2"):
        folder = tmp_path / version
        folder.mkdir()
        fake.calls.clear()
        fetch(fake, folder, take=shared.take)
        assert shared.share(folder / "model.onnx") == digest_of(graph)
        assert (folder / "table.bin").read_bytes() == b"table"  # of this digest there was nothing
        assert fake.count("/model.onnx") == (1 if version == "1" else 0)
    with pytest.raises(InvalidInputError, match=r"take more than 0\.01 MiB"):  # what is taken counts too
        fetch(fake, tmp_path / "1" / "penstock", FetchSettings(max_mib=0.01), take=shared.take)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a\\b", "..", ".", "", "a\nb", "a\0b", "x" * 256])
def test_a_name_that_leaves_its_folder_refuses_the_version(name: str, fake: FakeRegistry, tmp_path: Path) -> None:
    fake.files = FILES
    fake.answers[ARTIFACTS] = lambda _: {"files": [{"path": name, "is_dir": False, "file_size": 1}]}
    with pytest.raises(InvalidInputError, match="expected a plain name"):
        fetch(fake, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        ([{"path": "a", "file_size": 2 * MIB}], "take more than 1 MiB"),
        ([{"path": "a", "file_size": MIB}, {"path": "b", "file_size": 1}], "take more than 1 MiB"),
        ([{"path": f"{n}", "file_size": 0} for n in range(11)], "more than 10 files"),
        ([{"path": "again", "is_dir": True}], "more than 10 files"),
        ([], "its source holds no files"),
    ],
)
def test_a_listing_beyond_the_bounds_is_refused_before_anything_comes(
    listing: list[dict[str, Any]], said: str, fake: FakeRegistry, tmp_path: Path
) -> None:
    fake.answers[ARTIFACTS] = lambda _: {"files": listing}
    with pytest.raises(InvalidInputError, match=said):
        fetch(fake, tmp_path, FetchSettings(max_mib=1.0, max_files=10))
    assert list(tmp_path.iterdir()) == []


def test_folders_without_an_end_are_refused(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.answers[ARTIFACTS] = lambda _: {"files": [{"path": "again", "is_dir": True}]}
    with pytest.raises(InvalidInputError, match="nested deeper than 16"):
        fetch(fake, tmp_path)


def test_a_file_larger_than_was_listed_is_cut_off(fake: FakeRegistry, tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while not fake.is_over.is_set():
            yield bytes(100_000)

    fake.answers[ARTIFACTS] = lambda _: {"files": [{"path": "MLmodel", "file_size": 5}]}
    fake.answers[f"{ARTIFACTS}/1/r/artifacts/model/MLmodel"] = lambda _: endless()
    with pytest.raises(InvalidInputError, match="take more than 1 MiB"):
        fetch(fake, tmp_path, FetchSettings(max_mib=1.0))
    assert (tmp_path / "MLmodel").stat().st_size <= MIB


@pytest.mark.parametrize("body", [b"<html>", b'{"files": 5}', b'{"files": [{"path": 5}]}', b"[" * 99_999])
def test_what_is_no_listing_is_told(body: bytes, fake: FakeRegistry, tmp_path: Path) -> None:
    fake.answers[ARTIFACTS] = lambda _: body
    with pytest.raises(UnavailableError, match="something else than a list of files"):
        fetch(fake, tmp_path)


def test_a_file_that_is_cut_short_is_told(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.answers[ARTIFACTS] = lambda _: {"files": [{"path": "MLmodel", "file_size": 5}]}
    fake.files["1/r/artifacts/model/MLmodel"] = b"12345"
    listing = fake.answers[ARTIFACTS]

    def cut_the_next(query: Any) -> Any:
        fake.cut_next = True
        return listing(query)

    fake.answers[ARTIFACTS] = cut_the_next
    with pytest.raises(UnavailableError, match="cut short"):
        fetch(fake, tmp_path)


class FakeClient(RegistryClient):
    """An artifact store of mlflow's that lists one file, and makes a larger one or none."""

    def __init__(self, size_bytes: int | None, name: str = "MLmodel") -> None:
        super().__init__("sqlite://")
        self.size_bytes = size_bytes
        self.listed = name

    def list_artifacts(self, uri: str, below: str) -> list[tuple[str, bool, int]]:
        return [(self.listed, False, 1)]

    def download_artifact(self, uri: str, path: str, folder: Path) -> None:
        if self.size_bytes is not None:
            (folder / path).write_bytes(bytes(self.size_bytes))


def test_mlflows_stores_are_bounded_too(tmp_path: Path) -> None:
    def fetch_of(client: RegistryClient) -> None:
        budget = Budget(FetchSettings(max_mib=1.0))
        remote_files.download(MlflowStore(client, "s3://x"), tmp_path, budget, lambda _: None)

    fetch_of(FakeClient(MIB))
    assert (tmp_path / "MLmodel").stat().st_size == MIB
    with pytest.raises((InvalidInputError, OSError)):  # the kernel refuses to make it
        fetch_of(FakeClient(3 * MIB))
    assert (tmp_path / "MLmodel").stat().st_size <= MIB + 1
    (tmp_path / "MLmodel").unlink()
    with pytest.raises(InvalidInputError, match="is not where the artifact store should have put it"):
        fetch_of(FakeClient(None))


@pytest.mark.long
def test_mlflows_own_stores_are_read(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "below").mkdir(parents=True)
    target.mkdir()
    (source / "MLmodel").write_text("x")
    (source / "below" / "file").write_text("y")
    client = RegistryClient(f"sqlite:///{tmp_path}/registry.db")
    remote_files.download(MlflowStore(client, source.as_uri()), target, Budget(FetchSettings()), lambda _: None)
    assert (target / "below" / "file").read_text() == "y"
