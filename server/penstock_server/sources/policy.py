"""A registry as the policies of its models have it: aliases have the names of roles, and a pinned version is the champion.

Everything beyond it knows only the roles' own names; what is written goes back under those of the policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from penstock.names import CANARY, CHAMPION, SHADOW, role_of
from penstock_server.rollout.registered import Change, DeleteAlias, Expected, SetAlias
from penstock_server.sources.registered import RegisteredModel, RegisteredVersion, RegistryReader
from penstock_server.sources.settings import PolicySettings


def by_role(aliases: Mapping[str, str], policy: PolicySettings) -> dict[str, str]:
    """The aliases under the names of the roles that they give; one that is named like a role and gives none is left out."""
    found: dict[str, str] = {}
    for alias, version in aliases.items():
        role = _role_name(alias, policy)
        if role is not None:
            found[role] = version
        elif role_of(alias) is None:
            found[alias] = version
    if policy.pinned is not None:
        found[CHAMPION] = str(policy.pinned)
    return found


def _role_name(alias: str, policy: PolicySettings) -> str | None:
    if alias == policy.champion:
        return CHAMPION
    for name, role in ((policy.canary, CANARY), (policy.shadow, SHADOW)):
        if alias == name or alias.startswith(f"{name}-"):
            return role + alias.removeprefix(name)
    return None


def in_registry(alias: str, policy: PolicySettings) -> str:
    """The alias of the registry for one with a role's name."""
    match role_of(alias):
        case "champion":
            return policy.champion
        case "canary":
            return policy.canary + alias.removeprefix(CANARY)
        case "shadow":
            return policy.shadow + alias.removeprefix(SHADOW)
        case _:
            return alias


def role_aliases(policy: PolicySettings) -> tuple[list[str], list[str]]:
    """All aliases that give a role to some model, and those of them that may have a suffix."""
    policies = [policy, *(policy.of(model) for model in policy.models)]
    suffixed = dict.fromkeys(alias for each in policies for alias in (each.canary, each.shadow))
    return list(dict.fromkeys([*(each.champion for each in policies), *suffixed])), list(suffixed)


def by_policy(registry: RegistryReader, policies: PolicySettings) -> RegistryReader:
    """The registry as the policies have it: itself where they say nothing, since all its models are read at each poll."""
    return registry if policies == PolicySettings() else PolicyRegistry(registry, policies)


class PolicyRegistry:
    """Reads and writes a registry by the policies; see `registered.Registry`."""

    def __init__(self, registry: RegistryReader, policies: PolicySettings) -> None:
        self._registry = registry
        self._policies = policies

    def models(self) -> Sequence[RegisteredModel]:
        return [self._by_role(model) for model in self._registry.models()]

    def model(self, name: str) -> RegisteredModel:
        return self._by_role(self._registry.model(name))

    def version(self, model: str, version: str) -> RegisteredVersion:
        return self._registry.version(model, version)

    def newest(self, model: str, count: int) -> list[str]:
        return self._registry.newest(model, count)

    def artifact_uri(self, model: str, version: str) -> str:
        return self._registry.artifact_uri(model, version)

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        policy = self._policies.of(model)
        expected = msgspec.structs.replace(expected, champion_alias=policy.champion)
        self._registry.write(model, expected, [_renamed(change, policy) for change in changes])

    def _by_role(self, model: RegisteredModel) -> RegisteredModel:
        policy = self._policies.of(model.name)
        return replace(model, aliases=by_role(model.aliases, policy))


def _renamed(change: Change, policy: PolicySettings) -> Change:
    if isinstance(change, SetAlias | DeleteAlias):
        return msgspec.structs.replace(change, alias=in_registry(change.alias, policy))
    return change
