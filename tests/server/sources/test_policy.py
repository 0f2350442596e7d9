from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.names import role_of
from penstock_server.errors import InvalidInputError
from penstock_server.sources.policy import PolicyRegistry, by_policy, by_role, in_registry, role_aliases
from penstock_server.sources.settings import OwnPolicy, PolicySettings

NAMED = PolicySettings(champion="production", canary="next", shadow="mirror")


@pytest.mark.parametrize(
    ("policy", "aliases", "expected"),
    [
        (PolicySettings(), {"champion": "1", "canary-b": "2", "x": "3"}, {"champion": "1", "canary-b": "2", "x": "3"}),
        (NAMED, {"production": "1", "champion": "2", "canary-b": "3"}, {"champion": "1"}),
        (NAMED, {"next": "1", "next-b": "2", "nextb": "3"}, {"canary": "1", "canary-b": "2", "nextb": "3"}),
        (NAMED, {"mirror-x-y": "1", "production-b": "2"}, {"shadow-x-y": "1", "production-b": "2"}),
        (
            PolicySettings(canary="shadow", shadow="canary"),
            {"shadow-b": "1", "canary": "2"},
            {"canary-b": "1", "shadow": "2"},
        ),
        (PolicySettings(pinned=7), {"champion": "1"}, {"champion": "7"}),
        (PolicySettings(pinned=7), {}, {"champion": "7"}),
    ],
)
def test_what_aliases_mean(policy: PolicySettings, aliases: dict[str, str], expected: dict[str, str]) -> None:
    assert by_role(aliases, policy) == expected


@given(
    st.dictionaries(
        st.sampled_from(["champion", "canary", "canary-b", "shadow", "shadow-", "x", "Champion"]), st.just("1")
    )
)
def test_without_a_policy_nothing_stands_between(aliases: dict[str, str]) -> None:
    registry: Any = object()
    assert by_policy(registry, PolicySettings()) is registry
    assert by_role(aliases, PolicySettings()) == aliases
    assert isinstance(by_policy(registry, NAMED), PolicyRegistry)
    assert isinstance(by_policy(registry, PolicySettings(models={"m": OwnPolicy(pinned=1)})), PolicyRegistry)


NAMES = st.sampled_from(["champion", "canary", "shadow", "production", "next", "mirror"])


@given(
    names=st.lists(NAMES, min_size=3, max_size=3, unique=True), role=st.sampled_from(["champion", "canary", "shadow-b"])
)
def test_what_is_written_is_read_back(names: list[str], role: str) -> None:
    policy = PolicySettings(*names)
    assert by_role({in_registry(role, policy): "1"}, policy) == {role: "1"}


def test_a_registry_is_asked_for_all_names_of_roles() -> None:
    policy = PolicySettings(models={"m": OwnPolicy(champion="production", canary="next")})
    assert role_aliases(policy) == (
        ["champion", "production", "canary", "shadow", "next"], ["canary", "shadow", "next"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"champion": ""}, "policy.champion is ''"),
        ({"champion": "canary"}, "policy.champion is 'canary'"),
        ({"champion": "canary-b"}, "policy.champion is 'canary-b'"),
        ({"canary": "champion"}, "policy.champion is 'champion'"),
        ({"latest": -1}, "policy.latest is -1"),
        ({"latest": 101}, "policy.latest is 101"),
        ({"versions": (-1,)}, "names version -1"),
        ({"pinned": -2}, "names version -2"),
        ({"models": {"m": OwnPolicy(latest=-1)}}, "policy.models.m.latest is -1"),
    ],
)
def test_policies_that_make_no_sense_are_refused(settings: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        PolicySettings(**settings)  # type: ignore[arg-type]


def test_names_of_roles_stay_what_they_are() -> None:
    assert {role_of(alias) for alias in by_role({"next-b": "1", "mirror": "2"}, NAMED)} == {"canary", "shadow"}
