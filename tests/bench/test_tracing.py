import urllib.request
from pathlib import Path

import pytest

from bench import tracing
from penstock_server.settings import read_settings


def test_its_collector_takes_what_comes() -> None:
    with tracing.collector() as address:
        request = urllib.request.Request(f"{address}/v1/traces", b"anything", method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 200


def test_its_loads_are_settings_of_a_server(tmp_path: Path) -> None:
    for share, _ in tracing.LOADS.values():
        file = tmp_path / "penstock.toml"
        file.write_text("" if share is None else f'[tracing]\nendpoint = "http://h:1"\nsample_ratio = {share}\n')
        assert read_settings(file).tracing.is_on == (share is not None)


@pytest.mark.parametrize(
    ("name", "cost", "status"),
    [
        ("none", 1.009, 0),
        ("none", 1.02, 1),
        ("one in a hundred", 1.04, 0),
        ("one in a hundred", 1.06, 1),
        ("all", 2.0, 0),
    ],
)
def test_it_fails_above_the_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, cost: float, status: int
) -> None:
    costs = {key: [1.0] for key in tracing.LOADS} | {name: [cost]}
    monkeypatch.setattr(tracing, "measure", lambda *_: costs)
    assert tracing.main([]) == status
    assert f"traced: {name}: {cost:.2f} us" in capsys.readouterr().out
