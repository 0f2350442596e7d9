import numpy as np
import pytest

from bench import many_models
from bench.load.plan import LoadResult
from bench.many_models import Found, Start, start_table, table


def load(milliseconds: float, failed: int = 0) -> LoadResult:
    latencies = np.full(1000, milliseconds / 1e3)
    return LoadResult(1000 + failed, 1000, {"UNAVAILABLE": failed} if failed else {}, 2.0, latencies)


def found(failed: int = 0) -> Found:
    return Found(200 << 20, 190 << 20, [load(1.0)] * 3, [load(1.1)] * 3, load(1.5, failed), [0.1, 0.2, 0.3], 0)


def test_the_models_in_use_are_compared_with_a_server_that_has_these_alone() -> None:
    assert table(found(failed=2)).splitlines() == [
        "resident memory of the worker: at most 190 MiB of a budget of 200 MiB",
        "models in use, p50: 1.00 ms alone, 1.10 ms with all registered (1.10 x), 1.50 ms while others are loaded (1.50 x)",
        "models in use, p99: 1.00 ms alone, 1.10 ms with all registered (1.10 x), 1.50 ms while others are loaded (1.50 x)",
        "3 cold starts: median 0.20 s, p99 0.30 s",
        "failed: 2, UNAVAILABLE 2",
    ]


def test_a_start_is_told_in_a_line() -> None:
    assert start_table(Start(2000, 3.0, 30.25, 8.0, 0.021)) == (
        "2,000 models: ready after 3.0 s, all read after 30.2 s, 8.0 s of the supervisor's processor by then, "
        "2.1% of a core afterwards\n"
    )


def test_a_failure_is_an_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, float]] = []

    def measure(_folder: object, **how: float) -> Found:
        asked.append(how)
        return found(failed=len(asked) - 1)

    def measure_start(_folder: object, count: int, *, idle_s: float) -> Start:
        return Start(count, 1.0, 2.0, idle_s, 0.0)

    assert many_models.main([], measure=measure, measure_start=measure_start) == 0
    assert many_models.main(["--registered", "9"], measure=measure, measure_start=measure_start) == 1
    assert asked[0] == {"count": 200, "used": 20, "rate_per_s": 1000.0, "turn_s": 10.0, "turns": 3}
    assert "9 models: ready after 1.0 s" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        many_models.main(["--count", "79"], measure=measure)
