from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import generate_latest

from penstock_server.metrics.counters import SharedCounters
from penstock_server.metrics.prometheus import MetricsCollector, MetricsSnapshot, VersionSnapshot, registry_of
from penstock_server.metrics.recorder import Recorder


def lines(*boards: SharedCounters) -> list[str]:
    facts = MetricsSnapshot([VersionSnapshot("m", "1", ("champion",), None, boards)], {})
    text = generate_latest(registry_of(MetricsCollector(lambda: facts))).decode()
    return [line for line in text.splitlines() if line.startswith("penstock_request_log")]


def test_what_was_written_and_dropped_is_summed_over_workers(new_counters: Callable[..., Any]) -> None:
    boards = [new_counters(), new_counters()]
    assert lines(*boards) == []
    for board in boards:
        recorder = Recorder(board)
        recorder.request_logged(3)
        recorder.request_logged(4)
        recorder.request_log_dropped("busy", 2)
    Recorder(boards[1]).request_log_dropped("disk", 5)
    labels = 'model_name="m",model_version="1"'
    assert lines(*boards) == [
        f"penstock_request_log_rows_total{{{labels}}} 14.0",
        f'penstock_request_log_dropped_total{{{labels},reason="busy"}} 4.0',
        f'penstock_request_log_dropped_total{{{labels},reason="disk"}} 5.0',
    ]


def test_only_known_reasons_are_counted(new_counters: Callable[..., Any]) -> None:
    with pytest.raises(KeyError):
        Recorder(new_counters()).request_log_dropped("tired", 1)
