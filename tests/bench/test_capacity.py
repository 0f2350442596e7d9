import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench import capacity
from bench.capacity import LOADS, CapacityError, Load, Outcome, Sample


@pytest.mark.parametrize(("is_inline", "busy"), [(True, 0.5), (False, 0.9)])
def test_the_scarcest_place_says_how_busy_a_server_was(is_inline: bool, busy: float) -> None:
    former, latter = Sample(10.0, 100, 1.0, 2.0), Sample(12.0, 2100, 2.0, 3.8)
    assert latter.since(former, is_inline=is_inline) == (1000.0, pytest.approx(busy))


def test_what_a_server_would_answer_if_it_were_always_busy() -> None:
    outcome = Outcome(asked=100, told_light=900, told_full=1000, ratio_full=0.8, answered=800, busy=0.8)
    assert outcome.measured == 1000
    shown = Console(width=200)
    with shown.capture() as written:
        shown.print(capacity.table({LOADS[0]: [outcome], LOADS[1]: [outcome] * 3}))
    assert "0.90" in written.get()
    assert "tabular, 64 rows" in written.get()


class Server:
    """A server that tells what a test says."""

    def __init__(self, *, busy: float) -> None:
        self._busy = busy
        self._at = 0.0

    def told(self) -> tuple[float, float]:
        return 1000.0, 0.9

    def sample(self) -> Sample:
        self._at += 10
        return Sample(self._at, int(self._at * 950), self._at * self._busy, 0.0)

    @contextmanager
    def loaded(self, *_: Any) -> Iterator[None]:
        yield


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    seen = SimpleNamespace(busy=1.0, configs=[])

    @contextmanager
    def running(command: list[str]) -> Iterator[SimpleNamespace]:
        seen.configs.append(Path(command[-1]).read_text())
        yield SimpleNamespace(grpc="127.0.0.1:1")

    monkeypatch.setattr(capacity, "running", running)
    monkeypatch.setattr(capacity, "_Server", lambda *_: Server(busy=seen.busy))
    monkeypatch.setattr(capacity, "GRPC", SimpleNamespace(messages=lambda *_, **__: [b"m"], check=lambda *_: None))
    monkeypatch.setattr(capacity.models, "write", lambda *_: {"tabular": Path("model.onnx")})
    monkeypatch.setattr(capacity.inference, "expected", lambda *_, **__: None)
    monkeypatch.setattr(capacity.time, "sleep", lambda _: None)
    return seen


def test_a_round_asks_a_share_and_then_all(fake: SimpleNamespace) -> None:
    found = capacity.measure(Load("tabular", 1, 8, objective_ms=20), share=0.4, seconds=1)
    assert found == Outcome(400.0, 1000.0, 1000.0, 0.9, 950.0, 1.0)
    assert fake.configs == ["[batching]\nobjective_ms = 20\n"]


def test_a_server_that_was_not_driven_to_its_end_tells_nothing(fake: SimpleNamespace) -> None:
    fake.busy = 0.3
    with pytest.raises(CapacityError, match="30%"):
        capacity.measure(Load("tabular", 1, 8), share=0.4, seconds=1)


def test_a_table_is_printed_and_failures_are_said(fake: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main(["--load", "tabular:1", "--rounds", "1"]) == 0
    assert "tabular, 1 row" in capsys.readouterr().out
    fake.busy = 0.1
    assert capacity.main(["--load", "tabular:1"]) == 2
    assert "h2load kept the server busy" in capsys.readouterr().err


def test_without_h2load_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("h2load")

    monkeypatch.setattr(subprocess, "Popen", missing)
    server = object.__new__(capacity._Server)
    server._process, server._body = SimpleNamespace(grpc="127.0.0.1:1"), Path("body")  # type: ignore[assignment]
    with pytest.raises(CapacityError, match="cannot be run"), server.loaded(1, 1):
        pass
