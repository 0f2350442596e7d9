import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server import leases
from penstock_server.kernels.kept import KEPT
from penstock_server.rollout.plan import Arm, TrafficPlan
from penstock_server.sources.cache_sweep import Copy, sweep, unneeded
from penstock_server.sources.combined_source import LastKnownState
from penstock_server.sources.settings import CacheSettings
from penstock_server.sources.source import Desired
from penstock_server.sources.version_cache import VersionCache, record_of

MIB = 2**20
MANY = CacheSettings(max_mib=1000.0, keep=3)


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Makes copies in one cache, each used after the one before."""
    used_s = 1_000.0

    def made(model: str, version: str, identity: str = "id", size: int = 10, byte: int = 0) -> Path:
        nonlocal used_s

        def download(folder: Path) -> Path:
            (folder / "model.onnx").write_bytes(bytes([byte]) * size)
            return folder

        copy = VersionCache(tmp_path, "registry").store(model, version, identity, download)
        used_s += 1.0
        os.utime(record_of(copy.folder), (used_s, used_s))
        return copy.folder

    return made


def left(*copies: Path) -> list[int]:
    return [index for index, copy in enumerate(copies) if copy.exists()]


def test_of_21_promotions_few_copies_are_kept(store: Any, tmp_path: Path) -> None:
    copies = [store("m", str(version)) for version in range(21)]
    lease = leases.take(copies[20])  # as the server that serves it holds it
    sweep(tmp_path, MANY)
    assert left(*copies) == [17, 18, 19, 20]
    assert lease is not None
    lease.close()
    assert len(list((tmp_path / "models").glob("*/*/*"))) == 4  # no empty folders are left
    sweep(tmp_path, MANY)
    assert left(*copies) == [18, 19, 20]


def test_what_is_in_use_or_desired_is_never_swept(store: Any, tmp_path: Path) -> None:
    copies = [store("m", str(version)) for version in range(6)]
    both = [store("n", "1", "old"), store("n", "1", "new"), store("n", "2", "x")]
    lease = leases.take(copies[0])
    last_known = LastKnownState(tmp_path)
    last_known.remember(
        "F", Desired({"m": TrafficPlan("1", (Arm("2"),))})
    )  # without identities, as of an earlier release
    last_known.remember("S", Desired({"n": TrafficPlan("1")}, identities={"n": {"1": "old"}}))
    sweep(tmp_path, CacheSettings(max_mib=0.0, keep=0))
    assert left(*copies) == [0, 1, 2]
    assert left(*both) == [0]
    cache = VersionCache(tmp_path, "registry")
    assert cache.find("n", "1", "old") is not None
    assert cache.find("n", "1", "new") is None
    del lease


def test_a_state_of_a_server_that_is_no_more_keeps_nothing(store: Any, tmp_path: Path) -> None:
    copy = store("m", "1")
    last_known = LastKnownState(tmp_path)
    last_known.remember("F", Desired({"m": TrafficPlan("1")}))
    os.utime(last_known._path("F"), (0, 0))
    sweep(tmp_path, CacheSettings(max_mib=0.0, keep=0))
    assert not copy.exists()


def test_models_and_registries_are_counted_apart(store: Any, tmp_path: Path) -> None:
    copies = [store(model, version) for version in "12345" for model in "ab"]
    sweep(tmp_path, CacheSettings(keep=1))
    assert left(*copies) == [8, 9]


def test_the_size_of_all_copies_is_bounded(store: Any, tmp_path: Path) -> None:
    copies = [store(f"m{n}", "1", size=MIB, byte=n) for n in range(5)]
    lease = leases.take(copies[0])
    sweep(tmp_path, CacheSettings(max_mib=3.0))
    assert left(*copies) == [0, 3, 4]
    assert lease is not None
    assert on_disk(tmp_path) < 3.1 * MIB


def test_what_copies_share_counts_once_and_goes_with_the_last_of_them(store: Any, tmp_path: Path) -> None:
    copies = [store(f"m{n}", "1", size=MIB, byte=n % 2) for n in range(20)]
    assert on_disk(tmp_path) < 2.5 * MIB
    sweep(tmp_path, CacheSettings(max_mib=2.0))
    assert left(*copies) == list(range(20))
    lease = leases.take(copies[0])
    sweep(tmp_path, CacheSettings(keep=0))
    assert left(*copies) == [0]
    assert on_disk(tmp_path) < 1.1 * MIB
    assert lease is not None
    lease.close()
    sweep(tmp_path, CacheSettings(keep=0))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def on_disk(folder: Path) -> int:
    """The bytes of all files below a folder, each once, however many names it has."""
    states = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({state.st_ino: state.st_size for state in states}.values())


def test_what_a_crash_left_is_swept_and_what_runs_is_not(store: Any, tmp_path: Path) -> None:
    place = store("m", "1").parent
    crashed, running = place / ".partial-crashed", place / ".partial-running"
    for folder in (crashed, running):
        (folder / "files").mkdir(parents=True)
    lease = leases.take(running)
    sweep(tmp_path, MANY)
    assert not crashed.exists()
    assert running.exists()
    assert lease is not None


def test_old_kernels_are_swept_too(tmp_path: Path) -> None:
    paths = [tmp_path / f"kernels-features-{n}.bin" for n in range(KEPT + 2)]
    for n, path in enumerate(paths):
        path.write_bytes(b"x")
        os.utime(path, (n, n))
    sweep(tmp_path, MANY)
    assert left(*paths) == list(range(2, KEPT + 2))


def test_a_cache_that_is_not_there_is_swept_already(tmp_path: Path) -> None:
    sweep(tmp_path / "nowhere", MANY)


def test_a_sweep_beside_another_deletes_what_is_left(store: Any, tmp_path: Path) -> None:
    copies = [store("m", str(version)) for version in range(3)]
    with leases.for_deleting(copies[0]) as is_free:  # by the other
        assert is_free
        sweep(tmp_path, CacheSettings(keep=0))
        assert left(*copies) == [0]
    sweep(tmp_path, CacheSettings(keep=0))
    assert left(*copies) == []


SIZES_BYTES = (0, 1, MIB, 2 * MIB, 5 * MIB, 10 * MIB)
COPIES = st.lists(
    st.builds(
        Copy,
        path=st.uuids().map(lambda name: Path(str(name))),
        model=st.sampled_from([Path("a"), Path("b")]),
        files=st.dictionaries(st.tuples(st.just(0), st.integers(0, 5)), st.none()).map(
            lambda files: {file: SIZES_BYTES[file[1]] for file in files}
        ),
        used_s=st.floats(0, 100),
        is_needed=st.booleans(),
    ),
    max_size=12,
)


@given(copies=COPIES, max_mib=st.integers(0, 30), keep=st.integers(0, 4))
def test_the_bounds_hold_and_nothing_needed_goes(copies: list[Copy], max_mib: int, keep: int) -> None:
    settings = CacheSettings(max_mib=float(max_mib), keep=keep)
    gone = unneeded(copies, settings)
    kept = [copy for copy in copies if copy not in gone]
    spare = [copy for copy in kept if not copy.is_needed]
    assert not any(copy.is_needed for copy in gone)
    assert len(gone) + len(kept) == len(copies)
    for model in (Path("a"), Path("b")):
        assert sum(copy.model == model for copy in spare) <= keep
        # Of one model, those that go were used before those that stay.
        ages = [copy.used_s for copy in spare if copy.model == model]
        assert all(copy.used_s <= min(ages, default=101) for copy in gone if copy.model == model)
    on_disk = {file: size_bytes for copy in kept for file, size_bytes in copy.files.items()}
    assert not spare or sum(on_disk.values()) <= settings.max_bytes
