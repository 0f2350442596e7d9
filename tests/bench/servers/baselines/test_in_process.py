import numpy as np
import pytest

from bench.servers.baselines.in_process import limit


def test_a_limit_is_of_the_measured_runs_and_not_of_the_first_turn() -> None:
    now_s, took_s = 0.0, iter([100.0, 100.0])

    def run(_: np.ndarray) -> None:
        nonlocal now_s
        now_s += next(took_s, 0.25)

    batches = [np.zeros((8, 2), np.float32), np.ones((8, 2), np.float32)]
    found = limit(run, batches, seconds=5, clock=lambda: now_s)
    assert found.rows == 8
    assert found.batch_us == pytest.approx(250_000)
    assert found.rows_per_s == pytest.approx(32)
    assert now_s - 200 == pytest.approx(5, abs=0.25)
