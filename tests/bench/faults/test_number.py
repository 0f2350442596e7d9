import pytest

from bench.faults import number
from bench.faults.__main__ import SCENARIOS
from bench.faults.number import Found, Number, Target

FEW = Target("mix", "wrong answers", at_most=0)
ALL = Target("hung", "share", at_least=1)


def found(value: float | None, *, scenario: str = "mix", name: str = "wrong answers") -> Found:
    return Found(scenario, (Number(name, value),), 1.0)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (found(0), []),
        (found(2), ["mix: wrong answers is 2, expected at most 0"]),
        (found(None), ["mix: wrong answers is never, expected at most 0"]),
        (found(0, name="other"), ["mix: wrong answers was not measured"]),
        (found(1, scenario="hung", name="share"), []),
        (found(0.5, scenario="hung", name="share"), ["hung: share is 0.50, expected at least 1"]),
        (found(0, scenario="fresh"), []),  # no target is for it
    ],
)
def test_each_missed_target_of_a_scenario_that_ran_is_a_sentence(one, expected) -> None:
    assert number.missed([FEW, ALL], [one]) == expected


def test_a_target_is_a_least_or_a_greatest_value() -> None:
    with pytest.raises(ValueError, match="needs at_least or at_most, and not both"):
        Target("mix", "wrong answers")
    with pytest.raises(ValueError, match="needs at_least or at_most, and not both"):
        Target("mix", "wrong answers", at_most=1, at_least=1)


def test_the_committed_targets_are_of_scenarios() -> None:
    committed = number.read()
    assert {target.scenario for target in committed} == set(SCENARIOS)
    assert len({(target.scenario, target.number) for target in committed}) == len(committed)


@pytest.mark.parametrize("text", ["", "[[fault]]\nscenario='mix'\n", "[[fault]]\nscenario='m'\nnumber='n'\nmost=1\n"])
def test_a_malformed_file_is_refused(text, tmp_path) -> None:
    file = tmp_path / "thresholds.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"thresholds.toml is malformed"):
        number.read(file)
