"""What `penstock top` shows of two looks, what it makes of a server that is away, and how it is drawn."""

import json
from math import inf
from typing import Any

import pytest
from rich.console import Console

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.client_commands import top
from penstock_tools.client_commands.top import Counts, Look

METRICS = """
# TYPE penstock_requests_total counter
penstock_requests_total{model_name="fraud",model_version="3"} 100
penstock_requests_total{model_name="fraud",model_version="4"} 5
# TYPE penstock_refusals_total counter
penstock_refusals_total{model_name="fraud",model_version="3",reason="internal"} 2
penstock_refusals_total{model_name="fraud",model_version="3",reason="overloaded"} 3
penstock_refusals_total{model_name="fraud",model_version="3",reason="invalid_input"} 70
# TYPE model_prediction_latency_seconds histogram
model_prediction_latency_seconds_bucket{model_name="fraud",model_version="3",stage="total",le="0.001"} 60
model_prediction_latency_seconds_bucket{model_name="fraud",model_version="3",stage="total",le="+Inf"} 100
model_prediction_latency_seconds_bucket{model_name="fraud",model_version="3",stage="queue",le="+Inf"} 100
# TYPE penstock_drift_alarm gauge
penstock_drift_alarm{model_name="fraud",model_version="3"} 1
# TYPE penstock_capacity_ratio gauge
penstock_capacity_ratio 0.25
"""
CHAMPION: dict[str, Any] = {"name": "fraud", "version": "3", "role": "champion", "weight": None, "state": "READY"}
CANARY: dict[str, Any] = {"name": "fraud", "version": "4", "role": "canary", "weight": 12.5, "state": "LOADING"}
SOURCE = {"name": "mlflow http://m", "state": "away", "reason": "it does not answer"}
ROLLOUT = {"model": "fraud", "version": "4", "status": "running", "stage": "5 %", "reason": "", "problem": ""}


def look(at_s: float, requests: float = 0.0, failures: float = 0.0, fast: float = 0.0, **more: Any) -> Look:
    """A server whose champion has answered so many requests, of which so many were fast."""
    counts = {("fraud", "3"): Counts(requests, failures, {0.001: fast, 0.1: requests, inf: requests}, True)}
    status = {"models": [CHAMPION, CANARY], "sources": []}
    return Look(**{"at_s": at_s, "status": status, "rollouts": [], "counts": counts, "capacity": None, **more})


def text(drawn: Any, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()


def test_metrics_are_read() -> None:
    counts, capacity = top.counted(METRICS)
    assert counts == {
        ("fraud", "3"): Counts(100, 5, {0.001: 60, inf: 100}, True),
        ("fraud", "4"): Counts(5, 0, {}, None),
    }
    assert capacity == 0.25


def test_what_came_between_two_looks() -> None:
    champion, canary = top.lines(look(1.0, 1000, 10, 500), look(3.0, 1190, 20, 680))
    assert (champion.roles, champion.weight, champion.state) == (("champion",), None, "READY")
    assert (champion.requests_per_s, champion.errors) == (95, 0.05)
    assert (champion.p50_s, champion.p99_s, champion.drift_alarm) == (0.001, 0.1, True)
    assert (canary.weight, canary.requests_per_s, canary.errors, canary.p99_s, canary.drift_alarm) == (
        12.5, None, None, None, None,
    )  # fmt: skip


def test_a_version_with_several_roles_has_one_line() -> None:
    status = {"models": [CANARY, {**CANARY, "role": "shadow", "weight": None}], "sources": []}
    (line,) = top.lines(look(1.0, status=status), look(2.0, status=status))
    assert (line.roles, line.weight) == (("canary", "shadow"), 12.5)


def test_counters_that_begin_anew_say_nothing_of_this_time() -> None:
    champion, _ = top.lines(look(1.0, 1000, 10, 500), look(2.0, 3))
    assert (champion.requests_per_s, champion.errors, champion.p50_s) == (None, None, None)


def test_without_requests_there_is_a_rate_and_nothing_else() -> None:
    champion, _ = top.lines(look(1.0, 1000, 10, 500), look(2.0, 1000, 10, 500))
    assert (champion.requests_per_s, champion.errors, champion.p50_s) == (0, None, None)


@pytest.mark.parametrize(
    ("q", "within", "expected"),
    [
        (0.5, {0.1: 1.0, 0.2: 2.0, inf: 2.0}, 0.1),
        (0.51, {0.1: 1.0, 0.2: 2.0, inf: 2.0}, 0.2),
        (0.99, {0.1: 1.0, inf: 2.0}, None),  # slower than the last bound
        (0.5, {0.1: 0.0, inf: 0.0}, None),
        (0.5, {}, None),
    ],
)
def test_quantiles_are_bounds(q: float, within: dict[float, float], expected: float | None) -> None:
    assert top.quantile(q, within) == expected


def test_the_screen() -> None:
    more = {"rollouts": [ROLLOUT], "capacity": 0.254}
    status = {"models": [CHAMPION, CANARY], "sources": [SOURCE]}
    shown = text(top.drawn(look(1.0, 1000, 10, 500), look(3.0, 1190, 20, 680, status=status, **more)))
    assert [line.split() for line in shown.splitlines() if line.strip() and "─" not in line] == [
        ["95/s", "requests,", "25.4%", "of", "the", "capacity", "used"],
        ["model", "version", "role", "weight", "state", "requests", "errors", "p50", "p99", "drift"],
        ["fraud", "3", "champion", "READY", "95/s", "5.0%", "≤", "1.00", "ms", "≤", "100", "ms", "alarm"],
        ["fraud", "4", "canary", "12.5%", "LOADING", "–", "–", "–", "–", "–"],
        ["rollout", "of", "fraud", "4:", "running,", "5", "%"],
        ["mlflow", "http://m", "is", "away:", "it", "does", "not", "answer"],
    ]


def test_a_server_without_models_and_names_with_control_characters() -> None:
    assert "no models are loaded" in text(top.drawn(look(1.0), look(2.0, status={"models": [], "sources": []})))
    status = {"models": [{**CHAMPION, "name": "a\x1b[2J"}], "sources": []}
    assert "\x1b" not in text(top.drawn(look(1.0), look(2.0, status=status)))


def test_a_server_that_is_away_is_told_until_it_is_back() -> None:
    answers = iter([look(2.0, 1100), UnavailableError("nothing answers"), look(4.0, 1300)])

    def ask() -> Look:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shown = [text(frame) for frame in top.frames(look(1.0, 1000), ask, [None] * 3)]
    assert shown[0].startswith("100/s")
    assert shown[1] == "nothing answers\n"
    assert shown[2].startswith("100/s")  # of the two seconds since it answered


def test_another_service_is_recognised(serving: Any) -> None:
    serving.body = json.dumps({"models": [], "sources": []}).encode()
    with pytest.raises(InvalidInputError, match="does not answer as a Penstock server"):
        top.fetch(serving.url)
    assert serving.asked == ["/v1/models", "/v1/rollouts"]
