import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from bench import operations_page
from bench.operations_page import Outcome, Paint, costs, cpu_s, viewers
from penstock_server.errors import UnavailableError
from penstock_server.page.feed import VIEWERS
from tests.server.page.served import Shown, served


def test_costs_are_medians_beside_those_of_none(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [Outcome(1000.0, 0.01, 0.001), Outcome(3000.0, 0.03, 0.003), Outcome(2000.0, 0.02, 0.002)]
    Console(width=100).print(costs({0: rounds, 16: [Outcome(1990.0, 0.05, 0.004)]}))
    none, all_of_them = [line for line in capsys.readouterr().out.splitlines() if "ms" in line]
    assert all(each in none for each in ("2,000", "1.000", "2.0%", "2.0 ms"))
    assert all(each in all_of_them for each in ("16", "1,990", "0.995", "5.0%", "4.0 ms"))


def test_a_process_uses_the_cpu() -> None:
    before = cpu_s(os.getpid())
    while cpu_s(os.getpid()) == before:
        sum(range(10_000))
    assert cpu_s(os.getpid()) > before


def test_so_many_look_and_leave() -> None:
    with served(Shown(), asks=False) as address:
        place = address.removeprefix("http://")
        for _ in range(2):  # those of the first round have left
            with viewers(place, VIEWERS):
                pass
        with pytest.raises(UnavailableError, match=r"answers HTTP/1\.1 503"), viewers(place, VIEWERS + 1):
            pass


def test_tables_are_printed_and_failures_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def process(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(http="127.0.0.1:1", wait_ready=lambda _: None)

    monkeypatch.setattr(operations_page, "ServerProcess", process)
    monkeypatch.setattr(operations_page, "_wait_for_all", lambda *_: None)
    monkeypatch.setattr(operations_page, "look", lambda *_: Outcome(1000.0, 0.01, 0.001))
    monkeypatch.setattr(operations_page, "paints", lambda *_: [Paint(0.1, 0.3, 41_000)])
    monkeypatch.setattr(operations_page.models, "write", lambda folder, _: Path(folder).mkdir() or {})
    assert operations_page.main(["--models", "2", "--rounds", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 models: first paint 100 ms after the navigation, the models at 300 ms (slowest 300), 41,000 bytes" in said

    def fail(*_: object) -> None:
        raise TimeoutError("2 models are not ready")

    monkeypatch.setattr(operations_page, "_wait_for_all", fail)
    assert operations_page.main(["--models", "2"]) == 2
    assert "2 models are not ready" in capsys.readouterr().err
