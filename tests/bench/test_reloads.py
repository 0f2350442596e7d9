import numpy as np
import pytest

from bench import reloads
from bench.load.plan import LoadResult
from bench.promotions import MODEL
from bench.reloads import OTHER, Reloads, table


def load(milliseconds: float, failed: int = 0) -> LoadResult:
    latencies = np.full(1000, milliseconds / 1e3)
    return LoadResult(1000 + failed, 1000, {"UNAVAILABLE": failed} if failed else {}, 2.0, latencies)


def found(failed: int = 0) -> Reloads:
    return Reloads(
        count=500,
        visible_s=[0.5, 0.4, 2.0],
        quiet={MODEL: (load(1.0), load(1.0)), OTHER: (load(2.0), load(2.0))},
        reloading={MODEL: load(1.5, failed), OTHER: load(2.2)},
        writing={MODEL: load(1.2), OTHER: load(1.1)},
        first_bytes=100 << 20,
        last_bytes=103 << 20,
        cache_bytes=3 << 20,
    )


def test_each_model_is_compared_with_itself_while_nothing_happened() -> None:
    lines = table(found()).splitlines()
    assert lines[0] == "500 reloads under 1,000 requests/s: 0 of 2,000 failed; seen after 0.50 s, at most 2.00 s"
    reloaded = "the model that is reloaded, p99: 1.00 ms quiet, 1.50 ms while reloading, 1.50 x; "
    other = "the other model, p50: 2.00 ms quiet, 2.20 ms while reloading, 1.10 x; "
    assert reloaded + "1.20 ms with the same writes and no reload, 1.25 x" in lines
    assert other + "1.10 ms with the same writes and no reload, 2.00 x" in lines
    assert lines[-2:] == [
        "workers' memory after 5 reloads 100 MiB, after 500 103 MiB, 1.030 x",
        "files of versions on disk: 3.0 MiB",
    ]


def test_a_failure_is_an_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def measure(_folder: object, count: int, *, rate_per_s: float, quiet_s: float, every_s: float) -> Reloads:
        asked.append((count, rate_per_s, quiet_s, every_s))
        return found(failed=len(asked) - 1)

    assert reloads.main(["--count", "6"], measure=measure) == 0
    assert reloads.main(["--rate", "10", "--quiet", "1", "--every", "2"], measure=measure) == 1
    assert asked == [(6, 500.0, 30.0, 0.0), (500, 10.0, 1.0, 2.0)]
    assert "1 of 2,001 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        reloads.main(["--count", "5"], measure=measure)
