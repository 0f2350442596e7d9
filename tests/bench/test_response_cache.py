from pathlib import Path

import pytest

from bench import models, response_cache
from bench.in_turn import NotAnsweredError
from penstock_server.response_cache.responses import ENTRY_BYTES
from penstock_server.settings import read_settings


def test_one_server_has_room_for_all_rows_and_one_for_few(tmp_path: Path) -> None:
    sizes = {}
    for name, text in response_cache.SETTINGS.items():
        (tmp_path / name).write_text(text)
        sizes[name] = read_settings(tmp_path / name).response_cache.max_bytes
    rows = {model: len(response_cache._messages(model)) for model in response_cache.MODELS}
    assert sizes["off"] == 0
    assert sizes["hits"] > sum(rows.values()) * (ENTRY_BYTES + 4096)
    # The slow model's answers have 256 numbers.
    assert sizes["misses"] < min(rows["slow"] * (ENTRY_BYTES + 1024), rows["mlp"] * ENTRY_BYTES)
    assert set(response_cache.MODELS) <= set(models.NAMES)


@pytest.mark.parametrize(("hit", "status"), [(20.0, 0), (90.0, 1)])
def test_it_fails_where_a_hit_costs_what_a_run_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hit: float, status: int
) -> None:
    costs: response_cache.Costs = {
        (model, name): [cost] * 3
        for model in response_cache.MODELS
        for name, cost in (("off", 40.0), ("hits", hit), ("misses", 60.0))
    }
    monkeypatch.setattr(response_cache, "measure", lambda *_: costs)
    assert response_cache.main([]) == status
    assert "mlp: 40.0 us of CPU per call without the cache" in capsys.readouterr().out


def test_what_cannot_be_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotAnsweredError("none")

    monkeypatch.setattr(response_cache, "measure", fail)
    assert response_cache.main([]) == 2
