import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bench import overload

OUTPUT = """
finished in 2.00s, 21034.33 req/s, 3.91MB/s
requests: 63103 total, 63167 started, 63103 done, 63103 succeeded, 0 failed, 0 errored, 0 timeout
"""
METRICS = """
# HELP penstock_requests_total Answered requests.
penstock_requests_total{model="m",role="champion",version="1"} 5.0
penstock_requests_total{model="n",role="champion",version="1"} 2.0
penstock_refusals_total{model="m",reason="overloaded",role="champion",version="1"} 7.0
penstock_refusals_total{model="n",reason="overloaded",role="champion",version="1"} 1e+01
penstock_refusals_total{model="m",reason="deadline",role="champion",version="1"} 0.0
"""


def test_answers_and_refusals_are_read_from_the_metrics() -> None:
    assert overload.counts(METRICS) == {"answered": 7, "overloaded": 17, "deadline": 0}


def test_the_calls_that_ended_are_read() -> None:
    assert overload.done(OUTPUT) == 63103
    with pytest.raises(overload.OverloadError, match="cannot be read"):
        overload.done("")


def test_latencies_are_read_from_the_log() -> None:
    assert overload.latencies_ms("1700000000000000\t200\t1500\n1700000000000100\t200\t99\n") == [1.5, 0.099]


class Fake(overload.Load):
    """A server whose counters grow by what a test says, with each run of h2load."""

    def __init__(self, folder: Any, counters: list[dict[str, int]], cpu_s: Iterator[float]) -> None:
        super().__init__(SimpleNamespace(pid=1, grpc="127.0.0.1:1", http=""), folder, folder / "body")  # type: ignore[arg-type]
        self._cpu = lambda: next(cpu_s)
        self._counters = iter(counters)

    def _counts(self) -> dict[str, int]:
        return next(self._counters)


def test_a_run_counts_what_has_grown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []

    def run(line: list[str], **_: Any) -> Any:
        lines.append(line)
        (tmp_path / "log").write_text("0\t200\t120000\n")
        return subprocess.CompletedProcess(line, 0, stdout=OUTPUT)

    monkeypatch.setattr(subprocess, "run", run)
    counters = [{"answered": 5, "deadline": 1}, {"answered": 45, "deadline": 1, "overloaded": 60}]
    found = Fake(tmp_path, counters, iter([1.0, 3.5])).run("--rps=7", streams=9, seconds=2, has_log=True)
    assert found == overload.Outcome(63103, 40, {"overloaded": 60}, 2.5, [120.0])
    assert "--rps=7" in lines[0]
    assert lines[0][lines[0].index("-m") + 1] == "9"


def test_a_machine_without_h2load_is_one_clear_error(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(overload.OverloadError, match="h2load cannot be run"):
        Fake(tmp_path, [{}], iter([0.0])).run(streams=1, seconds=1)


def test_a_line_says_what_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    runs = iter(
        [
            overload.Outcome(1000, 1000, {}, 0.5, []),
            overload.Outcome(2000, 900, {"deadline": 1100}, 0.6, [1.0, 101.0]),
            overload.Outcome(5000, 0, {"overloaded": 5000}, 0.05, []),
        ]
    )
    asked = []

    class Canned:
        def run(self, *more: str, **_: Any) -> overload.Outcome:
            asked.append(more)
            return next(runs)

    @contextmanager
    def load(*_: Any) -> Iterator[Any]:
        yield Canned()

    monkeypatch.setattr(overload, "_load", load)
    assert overload.main(["--load", "tabular:1", "--rounds", "1", "--seconds", "1"]) == 0
    assert asked[1] == ("-H", "grpc-timeout: 100m", "--rps=250")
    said = capsys.readouterr().out
    assert "answers 0.90 of the closed loop's, at 1.33 of its CPU each, 50.0% of all calls later than 100 ms" in said
    assert "refused: 1,100 deadline; an answer 500.0 us of CPU, a refusal at most 10.0" in said
