import pytest

from bench import memory
from bench.processes import ProcessMemory


def test_the_first_of_several_processes_supervises() -> None:
    first, second, third = (ProcessMemory(pid, "x", pid * 100, None) for pid in (1, 2, 3))
    assert memory.workers_bytes([first]) == 100
    assert memory.workers_bytes([first, second, third]) == 500


def test_memory_is_measured_over_grpc_only() -> None:
    with pytest.raises(ValueError, match="fastapi does not speak it"):
        memory.run("fastapi", requests=1, abandoned=1)


@pytest.mark.slow
@pytest.mark.long  # it trains a model, and sends load
def test_abandoned_calls_leave_a_server_that_answers(monkeypatch) -> None:
    monkeypatch.setattr(memory, "WARMUP_REQUESTS", 200)
    found = memory.run("baseline", requests=300, abandoned=150)
    assert (found.requests, found.failed, found.abandoned) == (300, 0, 150)
    assert min(found.started_bytes, found.warm_bytes, found.served_bytes, found.abandoned_bytes) > 2**20
