import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.aliases import canary_version, interpret, parse_weight
from penstock_server.rollout.plan import TrafficPlan

TEN_PERCENT = {"penstock.weight": "10"}


@pytest.mark.parametrize(
    ("text", "share"), [("0", 0.0), ("100", 1.0), ("10", 0.1), (" 2.5 ", 0.025), ("0.0", 0.0), ("007", 0.07)]
)
def test_a_weight_is_a_percentage(text: str, share: float) -> None:
    assert parse_weight(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["", "ten", "-1", "101", "100.1", "nan", "inf", "1e1", "1_0", "10%", "١٠", "5,5", "9" * 99]
)
def test_any_other_weight_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a percentage from 0 to 100"):
        parse_weight(text)


@pytest.mark.parametrize(
    ("aliases", "tags", "wanted", "problem"),
    [
        ({"champion": "1"}, {}, TrafficPlan("1"), None),
        ({"champion": "1", "other": "7"}, {}, TrafficPlan("1"), None),
        ({"champion": "1", "canary": "2"}, TEN_PERCENT, TrafficPlan("1", "2", 0.1), None),
        ({"champion": "1", "canary": "2"}, {}, TrafficPlan("1", "2"), "canary 2 has no tag 'penstock.weight'"),
        ({"champion": "1", "canary": "2"}, {"penstock.weight": "many"}, TrafficPlan("1", "2"), "is 'many'"),
        ({"champion": "1", "shadow": "3"}, {}, TrafficPlan("1", shadow="3"), None),
        ({"champion": "1", "canary": "2", "shadow": "2"}, TEN_PERCENT, TrafficPlan("1", "2", 0.1, "2"), None),
        ({"champion": "2", "canary": "2"}, TEN_PERCENT, TrafficPlan("2"), None),
        ({"champion": "2", "shadow": "2"}, {}, TrafficPlan("2"), None),
        ({}, {}, TrafficPlan(), "no version has the alias 'champion'"),
        ({"canary": "2", "shadow": "3"}, TEN_PERCENT, TrafficPlan(), "only 'canary' and 'shadow'"),
    ],
)
def test_aliases_say_what_is_wanted(
    aliases: dict[str, str], tags: dict[str, str], wanted: TrafficPlan, problem: str | None
) -> None:
    found, sentence = interpret(aliases, tags)
    assert found == wanted
    assert (sentence is None) if problem is None else (sentence is not None and problem in sentence)


@pytest.mark.parametrize(
    ("aliases", "version"),
    [
        ({"champion": "1", "canary": "2"}, "2"),
        ({"champion": "2", "canary": "2"}, None),
        ({"canary": "2"}, None),
        ({}, None),
    ],
)
def test_only_a_canary_beside_a_champion_has_a_weight(aliases: dict[str, str], version: str | None) -> None:
    assert canary_version(aliases) == version
