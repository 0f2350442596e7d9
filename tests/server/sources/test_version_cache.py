import json
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from penstock_server import leases
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import manifest, version_folder
from penstock_server.models.manifest import Manifest
from penstock_server.sources.cache_sweep import sweep
from penstock_server.sources.settings import CacheSettings
from penstock_server.sources.shared_files import MIN_BYTES
from penstock_server.sources.source import VersionFiles
from penstock_server.sources.version_cache import VersionCache, record_of
from tests.examples import examples

BIG = bytes(range(256)) * 32
"""Large enough to be shared."""


def files(content: bytes, below: str = "model") -> Callable[[Path], Path]:
    """A download of one file, into a folder below the one it is given."""

    def download(folder: Path) -> Path:
        (folder / below).mkdir(exist_ok=True)
        (folder / below / "model.onnx").write_bytes(content)
        return folder / below

    return download


def content(copy: VersionFiles | None) -> bytes:
    assert copy is not None
    return (copy.folder / "model.onnx").read_bytes()


@pytest.fixture
def cache(tmp_path: Path) -> VersionCache:
    return VersionCache(tmp_path, "registry")


def test_a_copy_is_found_by_name_and_by_identity(cache: VersionCache) -> None:
    assert cache.find("m", "1") is None
    copy = cache.store("m", "1", "id", files(b"x"))
    assert content(copy) == b"x"
    for found in (cache.find("m", "1"), cache.find("m", "1", "id")):
        assert found is not None
        assert (found.folder, found.identity) == (copy.folder, "id")
    assert cache.find("m", "1", "other") is None
    assert cache.find("m", "2") is None
    assert cache.find("M", "1") is None


def test_files_may_lie_in_the_given_folder_itself(cache: VersionCache) -> None:
    assert content(cache.store("m", "1", "id", files(b"x", below=""))) == b"x"


def test_copies_of_both_identities_are_kept(cache: VersionCache) -> None:
    cache.store("m", "1", "old", files(b"old"))
    cache.store("m", "1", "new", files(b"new"))
    assert content(cache.find("m", "1")) == b"new"
    assert content(cache.find("m", "1", "old")) == b"old"
    assert content(cache.find("m", "1")) == b"old"  # used last


def test_a_damaged_copy_is_no_copy_and_is_replaced(cache: VersionCache) -> None:
    copy = cache.store("m", "1", "id", files(b"whole"))
    (copy.folder / "model.onnx").write_bytes(b"who")
    assert cache.find("m", "1") is None
    assert content(cache.store("m", "1", "id", files(b"whole"))) == b"whole"
    assert content(cache.find("m", "1")) == b"whole"


@pytest.mark.parametrize("damage", [BIG[:-1], b"x" + BIG[1:]], ids=["cut", "changed"])
def test_damage_of_a_shared_file_is_repaired_in_every_copy(cache: VersionCache, damage: bytes) -> None:
    copies = [cache.store("m", version, "id", files(BIG)) for version in ("1", "2")]
    file, other = (copy.folder / "model.onnx" for copy in copies)
    assert file.samefile(other)
    file.write_bytes(damage)
    for version in ("1", "2"):
        assert cache.find("m", version) is None
        cache.store("m", version, "id", files(BIG))
    assert [content(cache.find("m", version)) for version in ("1", "2")] == [BIG, BIG]
    assert file.samefile(other)


def test_a_copy_of_an_earlier_server_is_read(cache: VersionCache) -> None:
    copy = cache.store("m", "1", "id", files(BIG))
    record = record_of(copy.folder)
    earlier = json.loads(record.read_bytes())
    del earlier["digests"]
    record.write_text(json.dumps(earlier))
    assert content(cache.find("m", "1", "id")) == BIG


@pytest.mark.parametrize("is_first", [True, False])
def test_what_came_as_another_than_was_published_is_not_kept(cache: VersionCache, is_first: bool) -> None:
    def download(folder: Path) -> Path:
        (folder / "penstock").mkdir()
        (folder / "penstock" / "manifest.json").write_bytes(
            manifest.encode(Manifest({"model.onnx": version_folder.digest_of(BIG)}, datetime.now(UTC)))
        )
        (folder / "model.onnx").write_bytes(came)
        return folder

    if not is_first:
        cache.store("m", "0", "id", files(BIG))
    came = BIG[:-1] + b"x"
    with pytest.raises(
        InvalidInputError, match=r"'model.onnx' came as another than was published: its digest is sha256:"
    ):
        cache.store("m", "1", "id", download)
    assert cache.find("m", "1") is None
    came = BIG
    assert content(cache.store("m", "1", "id", download)) == BIG


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
        VersionCache(tmp_path / "file", "registry").store("m", "1", "id", files(b"x"))


def test_what_is_being_downloaded_has_a_lease(cache: VersionCache) -> None:
    def download(folder: Path) -> Path:
        with leases.for_deleting(folder.parent) as is_free:
            assert not is_free
        return files(b"x")(folder)

    cache.store("m", "1", "id", download)


def test_concurrent_downloads_of_one_version_end_in_one_copy(cache: VersionCache) -> None:
    start = Barrier(4)
    copies: list[VersionFiles] = []

    def download(folder: Path) -> Path:
        start.wait(timeout=30)
        return files(b"x")(folder)

    threads = [Thread(target=lambda: copies.append(cache.store("m", "1", "id", download))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copies) == 4
    assert content(cache.find("m", "1")) == b"x"
    assert len({copy.folder for copy in copies}) == 1
    assert not list(copies[0].folder.parent.glob(".partial-*"))


def test_a_copy_has_a_lease_from_its_first_moment(cache: VersionCache) -> None:
    stored, again, found = (
        cache.store("m", "1", "id", files(b"x")),
        cache.store("m", "1", "id", files(b"x")),
        cache.find("m", "1"),
    )
    for copy in (stored, again, found):
        with leases.for_deleting(stored.folder) as is_free:
            assert not is_free
        assert copy is not None
        assert copy.lease is not None
        copy.lease.close()
    with leases.for_deleting(stored.folder) as is_free:
        assert is_free


def test_a_copy_that_is_being_swept_is_fetched_again(cache: VersionCache, tmp_path: Path) -> None:
    """The sweep has the copy already when the new one is moved to its place."""
    copy = cache.store("m", "1", "id", files(b"x"))
    assert copy.lease is not None
    copy.lease.close()
    with leases.for_deleting(copy.folder):
        assert cache.find("m", "1") is None
        sweeping = Thread(target=lambda: copy.folder.rename(tmp_path / "aside"))

        def download(folder: Path) -> Path:
            sweeping.start()  # ends before or after the first attempt to move
            return files(b"x")(folder)

        assert content(cache.store("m", "1", "id", download)) == b"x"
        sweeping.join()
    assert content(cache.find("m", "1")) == b"x"


def test_sweeps_at_any_moment_take_nothing_that_is_handed_out(tmp_path: Path) -> None:
    """Servers that share the folder, each of which desires nothing that another has."""
    keeps_nothing = CacheSettings(max_mib=0.0, keep=0)
    is_over = Event()
    faults: list[str] = []

    def fetch(thread: int) -> None:
        cache = VersionCache(tmp_path, "registry")
        for number in range(150):
            identity = str(number % 3)
            try:
                whole = identity.encode() * MIN_BYTES
                copy = cache.find("m", "1", identity) or cache.store("m", "1", identity, files(whole))
                if content(copy) != whole:
                    faults.append(f"thread {thread}: another copy than {identity}")
            except (OSError, UnavailableError) as error:
                faults.append(f"thread {thread}, fetch {number}: {error}")

    def sweeps() -> None:
        while not is_over.is_set():
            sweep(tmp_path, keeps_nothing)

    fetching = [Thread(target=fetch, args=[number]) for number in range(3)]
    sweeping = [Thread(target=sweeps) for _ in range(2)]
    for thread in (*fetching, *sweeping):
        thread.start()
    for thread in fetching:
        thread.join()
    is_over.set()
    for thread in sweeping:
        thread.join()
    assert faults == []
    sweep(tmp_path, keeps_nothing)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@given(model=st.text(max_size=300), version=st.text(max_size=20), identity=st.text(max_size=20))
@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_leaves_the_folder(model: str, version: str, identity: str, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    copy = VersionCache(root, "registry").store(model, version, identity, files(b"x"))
    assert copy.folder.resolve().is_relative_to(root.resolve())
    assert len(copy.folder.resolve().relative_to(root.resolve()).parts) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


STORING = """
import sys
from pathlib import Path
from penstock_server.sources.cache_sweep import sweep
from penstock_server.sources.settings import CacheSettings
from penstock_server.sources.version_cache import VersionCache
cache_dir = Path(sys.argv[1])
cache = VersionCache(cache_dir, "registry")
print("begins", flush=True)
for number in range(1_000_000):
    def download(folder):
        for name in ("model.onnx", "weights.bin"):
            (folder / name).write_bytes(str(number % 7 if name == "model.onnx" else 0).encode() * 100_000)
        return folder
    identity = str(number % 7)
    cache.find("m", "1", identity) or cache.store("m", "1", identity, download)
    if number % 5 == 4:
        sweep(cache_dir, CacheSettings(max_mib=0.2, keep=3))
"""


@pytest.mark.slow
def test_kills_at_any_moment_leave_whole_copies_or_none(tmp_path: Path) -> None:
    draw = random.Random(1)
    cache = VersionCache(tmp_path, "registry")
    for _ in range(5):
        command = [sys.executable, "-c", STORING, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.005, 0.1))
        process.kill()
        process.communicate()
        for number in range(7):
            copy = cache.find("m", "1", str(number))
            if copy is not None:
                assert content(copy) == str(number).encode() * 100_000
                assert (copy.folder / "weights.bin").read_bytes() == b"0" * 100_000
            del copy  # with its lease
    sweep(tmp_path, CacheSettings(max_mib=0.0, keep=0))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
