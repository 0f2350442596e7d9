from typing import Any

from structlog.testing import capture_logs

from penstock_server.prediction.failure_log import PAUSE_S, FailureLog


def test_a_line_tells_how_many_were_left_out(fake_clock: Any) -> None:
    clock = fake_clock(0.0)
    failures = FailureLog(("m", "1"), clock)
    with capture_logs() as lines:
        for _ in range(1000):
            failures.failed("model failed", ValueError("no"))
        clock.now += PAUSE_S
        failures.failed("model failed", ValueError("again"))
    assert [(line["event"], line["cause"], line["left_out"]) for line in lines] == [
        ("model failed", "ValueError('no')", 0),
        ("model failed", "ValueError('again')", 999),
    ]
    assert {(line["model"], line["version"]) for line in lines} == {("m", "1")}


def test_a_long_cause_is_cut(fake_clock: Any) -> None:
    with capture_logs() as lines:
        FailureLog(("m", "1"), fake_clock()).failed("model failed", ValueError("x" * 10_000))
    assert len(lines[0]["cause"]) == 500
