from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest

from bench import in_turn
from bench.in_turn import Load, NotAnsweredError, best, costs_of, measured


def load(*costs_us: float | None) -> Load:
    """A load whose rounds cost so much; None is a round in which a call was not answered."""
    return Load(SimpleNamespace(pid=7), list(costs_us))  # type: ignore[arg-type]


class FakePool:
    """Runs plans that say what a round costs."""

    order: list[int] = []  # noqa: RUF012 - looked at by the test

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, plan: list[float | None], *, server_pid: int) -> Any:
        assert server_pid == 7
        cost_us = plan.pop(0)
        FakePool.order.append(len(plan))
        failed = cost_us is None
        return SimpleNamespace(
            failed=failed, succeeded=1, failures={}, latencies_s=np.ones(2), probed=None if failed else 2e-6 * (cost_us or 0)
        )  # fmt: skip


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> None:
    FakePool.order = []
    monkeypatch.setattr(in_turn, "LoadPool", FakePool)


def test_loads_take_turns_and_every_other_round_goes_the_other_way() -> None:
    found = costs_of({"a": load(9, 1, 4), "b": load(None, 9, 2, 3)}, 2)
    assert found == {"a": [1, 4], "b": [2, 3]}
    # Waiting takes one run of the first and two of the second; then a, b, b, a.
    assert FakePool.order == [2, 3, 2, 1, 1, 0, 0]


def test_a_call_that_is_not_answered_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAnsweredError, match="1 calls were answered"):
        costs_of({"a": load(1, None)}, 1)
    monkeypatch.setattr(in_turn, "READY_S", -1)
    with pytest.raises(NotAnsweredError):
        costs_of({"a": load(None)}, 1)


def test_the_best_third_counts() -> None:
    assert best([9, 1, 8, 3, 7, 2]) == 1.5
    assert best([4]) == 4


def test_what_cannot_be_measured_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise NotAnsweredError("none")

    assert measured("bench.x", "X.", 3, fail, []) is None
    assert capsys.readouterr().err == "none\n"
    assert measured("bench.x", "X.", 3, lambda rounds, seconds: (rounds, seconds), ["--seconds", "2"]) == (3, 2.0)
    assert measured("bench.x", "X.", 3, lambda rounds, _: rounds, ["--rounds", "0"]) == 1
