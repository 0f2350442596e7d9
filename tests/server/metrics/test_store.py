import pytest

from penstock_server.metrics.counters import CountersShape, open_counters
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
