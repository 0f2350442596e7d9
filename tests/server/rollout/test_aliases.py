import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.aliases import interpret, parse_weight, tagged_versions
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan

TEN_PERCENT = {"2": {"penstock.weight": "10"}}


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
    ("aliases", "tags", "plan", "problem"),
    [
        ({"champion": "1"}, {}, TrafficPlan("1"), None),
        ({"champion": "1", "other": "7"}, {}, TrafficPlan("1"), None),
        ({"champion": "1", "canary": "2"}, TEN_PERCENT, TrafficPlan("1", (Arm("2", 0.1),)), None),
        ({"champion": "1", "canary": "2"}, {}, TrafficPlan("1", (Arm("2"),)), "canary 2 has no tag 'penstock.weight'"),
        (
            {"champion": "1", "canary": "2"},
            {"2": {"penstock.weight": "many"}},
            TrafficPlan("1", (Arm("2"),)),
            "is 'many'",
        ),
        ({"champion": "1", "shadow": "3"}, {}, TrafficPlan("1", shadows=(ShadowArm("3"),)), None),
        (
            {"champion": "1", "canary": "2", "shadow": "2"},
            TEN_PERCENT,
            TrafficPlan("1", (Arm("2", 0.1),), (ShadowArm("2"),)),
            None,
        ),
        ({"champion": "2", "canary": "2"}, TEN_PERCENT, TrafficPlan("2"), None),
        ({"champion": "2", "shadow": "2"}, {}, TrafficPlan("2"), None),
        ({}, {}, TrafficPlan(), "no version has the alias 'champion'"),
        ({"canary": "2", "shadow": "3"}, TEN_PERCENT, TrafficPlan(), "only 'canary' and 'shadow'"),
    ],
)
def test_aliases_say_what_is_desired(
    aliases: dict[str, str], tags: dict[str, dict[str, str]], plan: TrafficPlan, problem: str | None
) -> None:
    found, sentence = interpret(aliases, tags)
    assert found == plan
    assert (sentence is None) if problem is None else (sentence is not None and problem in sentence)


def weights(**percents: str) -> dict[str, dict[str, str]]:
    """The tags of versions that have weights, as in `_2="10"`."""
    return {version[1:]: {"penstock.weight": percent} for version, percent in percents.items()}


@pytest.mark.parametrize(
    ("aliases", "tags", "canaries", "problem"),
    [
        (
            {"canary": "2", "canary-b": "3"},
            weights(_2="10", _3="20"),
            (Arm("2", 0.1), Arm("3", 0.2, "canary-b")),
            None,
        ),
        ({"canary-x": "2", "canaryx": "3", "Canary-y": "4"}, weights(_2="5"), (Arm("2", 0.05, "canary-x"),), None),
        (
            {"canary": "2", "canary-b": "3"},
            weights(_2="60", _3="50"),
            (Arm("2", 0.6), Arm("3", 0.0, "canary-b")),
            "canary-b 3 gets no traffic: its weight is 50 percent, and the canaries before it leave 40",
        ),
        (
            {"canary": "2", "canary-b": "2"},
            weights(_2="10"),
            (Arm("2", 0.1),),
            "canary-b names version 2, which is canary, and counts for nothing",
        ),
        ({"canary": "1", "canary-b": "2"}, weights(_2="100"), (Arm("2", 1.0, "canary-b"),), None),
        (
            {"canary-a": "2", "canary-b": "3", "canary-c": "4"},
            weights(_2="33.333333", _3="33.333333", _4="33.333334"),
            (Arm("2", 0.33333333, "canary-a"), Arm("3", 0.33333333, "canary-b"), Arm("4", 0.33333334, "canary-c")),
            None,
        ),
    ],
)
def test_several_canaries_share_the_keys(
    aliases: dict[str, str], tags: dict[str, dict[str, str]], canaries: tuple[Arm, ...], problem: str | None
) -> None:
    plan, sentence = interpret({"champion": "1", **aliases}, tags)
    assert [(arm.version, arm.alias) for arm in plan.canaries] == [(arm.version, arm.alias) for arm in canaries]
    assert [arm.weight for arm in plan.canaries] == pytest.approx([arm.weight for arm in canaries])
    assert sentence == problem


@pytest.mark.parametrize(
    ("tag", "fraction", "problem"),
    [
        (None, 1.0, None),
        ("2.5", 0.025, None),
        ("0", 0.0, None),
        (
            "few",
            0.0,
            "shadow-b 3 gets no copies: the tag 'penstock.sample' is 'few'; expected a percentage from 0 to 100",
        ),
    ],
)
def test_a_shadow_gets_a_share_of_the_batches(tag: str | None, fraction: float, problem: str | None) -> None:
    tags = {} if tag is None else {"3": {"penstock.sample": tag}}
    plan, sentence = interpret({"champion": "1", "shadow": "2", "shadow-b": "3"}, tags)
    assert plan.shadows == (ShadowArm("2"), ShadowArm("3", fraction, "shadow-b"))
    assert sentence == problem


def test_a_model_has_so_many_canaries_at_most() -> None:
    aliases = {f"canary-{number:02}": f"{number + 2}" for number in range(17)}
    plan, sentence = interpret({"champion": "1", **aliases}, {})
    assert len(plan.canaries) == 16
    assert sentence is not None
    assert sentence.endswith("canary-16 is left out: a model has 16 versions as canary at most")


@pytest.mark.parametrize(
    ("aliases", "versions"),
    [
        ({"champion": "1", "canary": "2"}, {"2"}),
        ({"champion": "1", "canary": "2", "canary-b": "3", "shadow-b": "4", "other": "5"}, {"2", "3", "4"}),
        ({"champion": "2", "canary": "2"}, set()),
        ({"canary": "2"}, set()),
        ({}, set()),
    ],
)
def test_only_beside_a_champion_do_tags_matter(aliases: dict[str, str], versions: set[str]) -> None:
    assert tagged_versions(aliases) == versions
