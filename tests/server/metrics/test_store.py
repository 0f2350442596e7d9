import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server.metrics import store
from penstock_server.metrics.counters import CACHE_CELLS, CountersShape, open_counters
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.store import CounterStore

KEY, OTHER = ("m", "1"), ("m", "2")
SHAPE = CountersShape(2, 5)


def test_a_slot_keeps_its_counters_when_its_worker_is_replaced() -> None:
    with CounterStore() as workers:
        path = workers.version(0, KEY, SHAPE)
        open_counters(path, SHAPE).rows[0] += 3
        assert workers.version(0, KEY, SHAPE) == path
        assert open_counters(workers.version(0, KEY, SHAPE), SHAPE).rows[0] == 3
        assert workers.slot(0) == workers.slot(0)


def test_counters_are_apart_by_slot_and_version() -> None:
    with CounterStore() as workers:
        paths = [workers.version(slot, key, SHAPE) for slot in (0, 1) for key in (KEY, OTHER)]
        paths += [workers.slot(0), workers.slot(1)]
        assert len(set(paths)) == 6
        for number, path in enumerate(paths[:4], 1):
            open_counters(path, SHAPE).rows[0] = number
        assert [int(counters.rows[0]) for counters in workers.of_version(KEY)] == [1, 3]
        assert workers.of_slots().keys() == {0, 1}


def test_a_forgotten_version_starts_from_zero() -> None:
    with CounterStore() as workers:
        path = workers.version(0, KEY, SHAPE)
        open_counters(path, SHAPE).rows[0] += 3
        workers.forget(0, KEY)
        assert not path.exists()
        assert workers.of_version(KEY) == []
        workers.forget(0, KEY)
        again = workers.version(0, KEY, CountersShape())
        assert open_counters(again, CountersShape()).rows[0] == 0


def test_the_files_go_with_the_store() -> None:
    with CounterStore() as workers:
        path = workers.slot(0)
        held = workers.of_slots()[0]
        assert path.parent.stat().st_mode & 0o077 == 0  # nobody else's to read
    assert not path.parent.exists()
    assert held.rows[0] == 0  # a scrape that is still running reads on


def test_without_shared_memory_files_do(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("penstock_server.metrics.store._MEMORY", tmp_path / "none")  # type: ignore[operator]
    with CounterStore() as workers:
        assert workers.slot(0).exists()


def test_other_files_of_a_version_count_aside_until_they_answer() -> None:
    with CounterStore() as workers:
        first = open_counters(workers.version(0, KEY, SHAPE, "old"), SHAPE)
        first.rows[0] = 3
        other = CountersShape(3, 7)
        path = workers.version(0, KEY, other, "new")
        assert [int(one.rows[0]) for one in workers.of_version(KEY)] == [3]
        assert workers.of_version(KEY, "new") == []
        assert workers.version(0, KEY, SHAPE, "old").exists()  # a worker that was replaced meanwhile counts on
        workers.replace(0, KEY, "something else")
        assert len(workers.of_version(KEY, "old")) == 1
        path = workers.version(0, KEY, other, "new")
        open_counters(path, other).rows[0] = 1
        workers.replace(0, KEY, "new")
        assert [int(one.rows[0]) for one in workers.of_version(KEY)] == [1]
        assert workers.version(0, KEY, other, "new") == path
        assert len(list(path.parent.iterdir())) == 1


def test_signs_of_life_are_read_per_slot_and_forgotten_with_the_worker() -> None:
    with CounterStore() as workers:
        assert workers.beat_ns(0) == 0
        open_counters(workers.slot(0), CountersShape()).beat_ns[0] = 7
        for slot, since_ns in ((0, 5), (1, 6)):
            runs = open_counters(workers.version(slot, KEY, SHAPE), SHAPE).running_since_ns
            runs[1:3] = (since_ns + 1, since_ns)
        queued = open_counters(workers.version(0, OTHER, SHAPE), SHAPE)
        queued.waiting[:] = (30, 2)
        Recorder(queued).cached(700)
        Recorder(queued).evicted()
        assert (workers.beat_ns(0), workers.runs()) == (7, {0: {KEY: 5}, 1: {KEY: 6}})
        workers.still(0)
        assert (workers.beat_ns(0), workers.runs()) == (0, {1: {KEY: 6}})
        assert queued.waiting.tolist() == [0, 0]
        # What the worker kept is gone with it; what it counted is not.
        assert dict(zip(CACHE_CELLS, queued.cache.tolist(), strict=True)) == dict.fromkeys(CACHE_CELLS, 0) | {
            "evictions": 1
        }


KILLED = """
import os, signal, sys
from pathlib import Path
from penstock_server.metrics import store
store._MEMORY = Path(sys.argv[1])
counters = store.CounterStore()
counters.slot(0)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
print("holds", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_server_left_is_swept_and_what_another_holds_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_MEMORY", tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run([*command, "dies"], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / "penstock-from-an-older-release").mkdir()
    with subprocess.Popen([*command, "lives"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        while other.stdout.readline() != b"holds\n":
            pass
        assert not left.exists()
        (held,) = tmp_path.glob("penstock-counters-*")
        with CounterStore():
            assert held.exists()
        other.communicate()
    with CounterStore():
        assert not held.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["penstock-from-an-older-release"]


def test_a_store_holds_no_descriptors_after_its_end() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with CounterStore():
        pass
    assert len(os.listdir("/proc/self/fd")) == before
