from pathlib import Path

import pytest

from bench import access
from bench.in_turn import NotAnsweredError
from bench.known_callers import cost_ns
from bench.load.generator import calls_of
from bench.load.plan import LoadPlan
from penstock_server.access.credentials import check_files
from penstock_server.settings import read_settings


def test_its_tokens_are_those_of_its_rules(tmp_path: Path) -> None:
    tokens = access.credentials(tmp_path)
    assert set(tokens) == {"no", "static", "signed"}
    (tmp_path / "on.toml").write_text(access._RULES.format(folder=tmp_path))
    check_files(read_settings(tmp_path / "on.toml").access)


def test_a_plan_sends_its_headers() -> None:
    with_one, without = (
        calls_of(LoadPlan("127.0.0.1:1", "/s/M", (b"x",), headers=headers)) for headers in ((("a", "b"),), ())
    )
    assert len(with_one.block) > len(without.block)


def test_what_kernels_take_is_measured() -> None:
    without, known = cost_ns(b"Bearer x")
    assert without > 0
    assert 0 < known < 1000


@pytest.mark.parametrize(("on", "status"), [(1.04, 0), (1.06, 1)])
def test_it_fails_above_the_ratio(monkeypatch: pytest.MonkeyPatch, on: float, status: int) -> None:
    costs = {"no, off": [1.0], **{f"{kind}, off": [1.0, 1.0, 9.0] for kind in ("static", "signed")}}
    costs |= {"static, on": [on, on, 9.0], "signed, on": [1.0, 1.0, 9.0]}
    monkeypatch.setattr(access, "measure", lambda *_: costs)
    assert access.main([]) == status


def test_what_cannot_be_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotAnsweredError("none")

    monkeypatch.setattr(access, "measure", fail)
    assert access.main([]) == 2
