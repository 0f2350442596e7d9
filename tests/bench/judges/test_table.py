import numpy as np
import pytest

from bench.judges import __main__ as command
from bench.judges import picture, table
from bench.judges.rules import JUDGES, NEVER
from bench.judges.table import Found, Outcome
from bench.judges.worlds import MINUTES, WORLDS, Seen, World

STEADY, TWICE, LATER = (
    next(each for each in WORLDS if each.name == name) for name in ("steady", "errors x 2", "later")
)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return list(table.outcomes([STEADY, TWICE], 20, seed=0))


def test_the_same_seed_finds_the_same_and_parts_are_told(
    outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[str] = []
    assert list(table.outcomes([STEADY, TWICE], 20, seed=0, on_part=parts.append)) == outcomes
    assert parts == ["steady", "errors x 2"]
    monkeypatch.setattr(table, "PART", 7)
    assert [each.judges[0].runs for each in table.outcomes([STEADY], 20, seed=0)] == [20]


@pytest.mark.parametrize(
    ("world", "minutes", "expected"),
    [
        (STEADY, [NEVER, 3, NEVER, NEVER], (0.25, None, NEVER)),
        (TWICE, [2, 4, 6, NEVER], (0.0, 0.75, 5)),
        (LATER, [30, 31, 35, NEVER], (0.25, 0.5, 5)),
        (LATER, [1, 2, 3, 4], (1.0, 0.0, NEVER)),
    ],
)
def test_what_a_judge_found(world: World, minutes: list[float], expected: tuple) -> None:
    found = table._found(JUDGES[0], world, np.array(minutes), np.zeros(4))
    assert (found.false, found.seen, found.minutes) == expected


def test_the_requests_that_met_a_fault() -> None:
    requests = np.ones((2, 2, MINUTES), np.int64)
    latency = np.zeros((2, 2, MINUTES, 1), np.int64)
    hour = Seen(np.ones(MINUTES), requests, requests, latency, latency[0, 0, 0], requests[0])
    assert table._met(hour, LATER.faulty, np.array([36.0, NEVER])).tolist() == [6 / 120, 30 / 120]


def test_a_promise_is_broken_by_too_many_false_roll_backs() -> None:
    assert Found("a", "b", 1000, 0.04).is_within_alpha
    assert not Found("a", "b", 1000, 0.05).is_within_alpha

    def outcome(world: World) -> Outcome:
        return Outcome(world, tuple(Found(judge.name, world.name, 1000, 0.5) for judge in JUDGES), (1.0, 1.0))

    retries = next(each for each in WORLDS if each.name == "retries")
    found = command.broken_promises([outcome(STEADY), outcome(retries)])
    assert [(each.judge, each.world) for each in found] == [
        ("Penstock", "steady"), ("Penstock, every error", "steady"), ("Penstock", "retries"),
    ]  # fmt: skip


@pytest.mark.long
def test_tables_and_picture(outcomes: list[Outcome], tmp_path) -> None:
    text = table.markdown(outcomes)
    assert "20 simulated hours" in text
    assert "| **steady**: nothing changes | " in text
    assert all(judge.source in text for judge in JUDGES)
    for name in ("a.svg", "b.svg"):
        picture.draw(outcomes, tmp_path / name)
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
    page = command.with_tables(command.README.read_text(), text)
    assert command.with_tables(page, text) == page
    assert page.count("simulated hours of each kind") == 1


def test_the_command_shows_one_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--runs", "10", "--world", "errors x 5"]) == 0
    assert "Penstock: rolled back without a fault 0.0%, seen 100.0% after" in capsys.readouterr().out
