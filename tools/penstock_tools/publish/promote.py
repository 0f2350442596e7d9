"""Promotion: gives a version of a model its role by writing the registry's aliases, which every server follows.

Servers see the alias when they next poll the registry. One version has an alias, and a version has one role: a new one ends
its former. Only if asked is a version canary and shadow at once: it answers some requests and is compared on the others.
A model has one champion. It may have several canaries and shadows, whose aliases then have suffixes, as in `canary-b`.

- champion: the former champion has no role afterwards. It stays registered: promote it again to go back. A canary or
  shadow that becomes champion loses those roles, which ends the ramp.
- canary: its share of the traffic is the tag `penstock.weight`, written before the alias. A server that polls in between
  sees the new share with the old canary, never the new canary with an old share.
- shadow: takes no share of the traffic, so it has no weight. Its share of the champion's batches is the tag
  `penstock.sample`.

Removing ends a role. Without a champion nothing of the model is served.

Where the policy of the servers gives roles by other aliases, as `production`, those are written; everything here has the
roles' names.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from penstock.names import CANARY, CHAMPION, ROLES, SHADOW, did_you_mean, role_of
from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.rollout.aliases import SAMPLE_TAG, WEIGHT_TAG, aliases_of, parse_weight
from penstock_server.rollout.plan import weight_from_percent, weight_in_percent
from penstock_server.rollout.progress import PROGRESS_TAG, is_out
from penstock_server.sources.policy import by_role, in_registry
from penstock_server.sources.settings import PolicySettings
from penstock_tools.publish.registry import opened

NO_POLICY: Final = PolicySettings()


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was done.

    Attributes:
        alias: by which the version has its role now.
        weight: the canary's share in percent; None for other roles.
        sample: the share of batches that a shadow gets, in percent; None if none was given.
        former: the version that had the role before; None if there was none.
        given_up: roles that the version lost.
    """

    name: str
    version: str
    alias: str
    weight: float | None
    former: str | None
    given_up: tuple[str, ...]
    sample: float | None = None

    def __str__(self) -> str:
        share = f" with {self.weight:g}% of the traffic" if self.weight is not None else ""
        if self.sample is not None:
            share = f" of {self.sample:g}% of the batches"
        former = f", in place of version {self.former}" if self.former not in (None, self.version) else ""
        given_up = f"; it is no longer {' and '.join(self.given_up)}" if self.given_up else ""
        return f"{self.name} version {self.version} is now {self.alias}{share}{former}{given_up}"


@dataclass(frozen=True, slots=True)
class Removal:
    """What was done: the roles that ended, each with the version that had it."""

    name: str
    ended: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        each = [f"version {version} is no longer {role}" for role, version in self.ended]
        end = "; nothing of it is served until a version is champion" if CHAMPION in dict(self.ended) else ""
        return f"{self.name} {' and '.join(each)}{end}"


def promote(
    name: str,
    version: str | int,
    alias: str = CHAMPION,
    weight: float | None = None,
    registry: str | None = None,
    *,
    also: bool = False,
    sample: float | None = None,
    policy: PolicySettings = NO_POLICY,
) -> Promotion:
    """Gives a version a role.

    Args:
        name: the registered model.
        version: its version.
        alias: "champion", "canary" or "shadow"; the last two also with a suffix, as in "canary-b".
        weight: the canary's share of the traffic in percent, 0 to 100; required for a canary, and for no other role.
        registry: the registry's address; None for `MLFLOW_TRACKING_URI`, else a local file.
        also: the version keeps the role it has: canary or shadow beside the other.
        sample: the share of the champion's batches that a shadow gets, in percent; None leaves it as it is, at first 100.
        policy: that of the servers, `[policy]` of their settings: which aliases give the roles.

    Raises:
        NotFoundError: no such model or version; names those there are.
        InvalidInputError: an unknown role, a weight missing or out of place, canaries that would get more than all
            requests together, the champion was to become canary or shadow, which would leave the model without one, or
            the policy pins the champion.
        UnavailableError: the registry does not answer.
    """
    check_role(alias, weight, sample)
    if also and alias == CHAMPION:
        raise InvalidInputError("a champion has no other role; --also is for a version that is canary and shadow")
    own = policy.of(name)
    if own.pinned is not None and alias == CHAMPION:
        raise InvalidInputError(
            f"the policy pins version {own.pinned} of {name} as its champion, whatever aliases say; change policy.pinned"
        )
    with opened(registry) as client:
        return _promote(client, name, str(version), alias, _Shares(weight, sample), policy=own, also=also)


def remove(
    name: str,
    version: str | None = None,
    alias: str | None = None,
    registry: str | None = None,
    policy: PolicySettings = NO_POLICY,
) -> Removal:
    """Ends a role.

    Args:
        name: the registered model.
        version: its version; None for whichever has the role.
        alias: the role; None for all that the version has.
        registry: as for `promote`.
        policy: as for `promote`.

    Raises:
        NotFoundError: no such model, or nothing has the role; says who has which.
        InvalidInputError: an unknown role, or neither a version nor a role.
        UnavailableError: the registry does not answer.
    """
    if alias is None and version is None:
        raise InvalidInputError("which role is to end? name a version, or a role with --alias")
    if alias is not None:
        _check_name(alias)
    with opened(registry) as client:
        own = replace(policy.of(name), pinned=None)
        roles = by_role(roles_of(client, name), own)
        ended = tuple((alias, version) for role in ROLES for alias, version in aliases_of(role, roles).items())
        meant = tuple(one for one in ended if alias in (None, one[0]) and version in (None, one[1]))
        if not meant:
            what = f"{f'version {version}' if version else 'no version'} of {name} is {alias or 'in no role'}"
            if version and alias:
                what = f"version {version} of {name} is not {alias}"
            have = ", ".join(f"{role} is version {each}" for role, each in ended) or "no version has a role"
            raise NotFoundError(f"{what}: {have}")
        for role, _ in meant:
            client.delete_registered_model_alias(name, in_registry(role, own))
    return Removal(name, meant)


def check_role(alias: str, weight: float | None, sample: float | None = None) -> None:
    """Checks that an alias gives one of the three roles, and has a weight if, and only if, it takes one.

    Raises:
        InvalidInputError: it does not; says what to give.
    """
    _check_name(alias)
    role = role_of(alias)
    if role != CANARY and weight is not None:
        raise InvalidInputError(f"a {role} has no weight: only a canary takes a share of the traffic")
    if role == CANARY and weight is None:
        raise InvalidInputError("a canary takes a share of the traffic: give its weight, 0 to 100 percent")
    if weight is not None:
        weight_from_percent(weight)
    if sample is None:
        return
    if role != SHADOW:
        raise InvalidInputError(f"a {role} has no sample: only a shadow gets copies of batches")
    if not 0 <= sample <= 100:
        raise InvalidInputError(f"a shadow's sample is {sample:g} percent, expected 0 to 100 percent")


def _check_name(alias: str) -> None:
    if role_of(alias) is None:
        raise InvalidInputError(f"there is no role {alias!r}; expected {', '.join(ROLES)}{did_you_mean(alias, ROLES)}")


class _Shares(NamedTuple):
    weight: float | None
    sample: float | None

    def tags(self) -> dict[str, str]:
        """The tags that hold them."""
        shares = {WEIGHT_TAG: self.weight, SAMPLE_TAG: self.sample}
        return {tag: _percent(share) for tag, share in shares.items() if share is not None}


def _promote(
    client: Any, name: str, version: str, alias: str, shares: _Shares, *, policy: PolicySettings, also: bool
) -> Promotion:
    roles = by_role(roles_of(client, name), policy)
    check_version(client, name, version)
    if alias != CHAMPION and roles.get(CHAMPION) == version:
        raise InvalidInputError(
            f"version {version} of {name} is its champion; promote another version to champion first"
        )
    if is_out(client.get_model_version(name, version).tags):
        # A rollout that failed keeps a version from all traffic; this takes it back.
        client.delete_model_version_tag(name, version, PROGRESS_TAG)
    if shares.weight is not None:
        _check_sum(client, name, {**aliases_of(CANARY, roles), alias: version}, version, shares.weight)
    for tag, percent in shares.tags().items():
        client.set_model_version_tag(name, version, tag, percent)
    client.set_registered_model_alias(name, in_registry(alias, policy), version)
    others = (one for role in (CANARY, SHADOW) for one, holder in aliases_of(role, roles).items() if holder == version)
    given_up = tuple(one for one in others if one != alias and not (also and role_of(one) != role_of(alias)))
    for one in given_up:
        client.delete_registered_model_alias(name, in_registry(one, policy))
    return Promotion(name, version, alias, shares.weight, roles.get(alias), given_up, shares.sample)


def _check_sum(client: Any, name: str, canaries: Mapping[str, str], version: str, weight: float) -> None:
    """Checks that the canaries get no more than all requests together; a server gives the last of them none otherwise."""
    weights = {version: weight}
    for other in set(canaries.values()) - {version}:
        text = client.get_model_version(name, other).tags.get(WEIGHT_TAG, "0")
        with suppress(InvalidInputError):  # the server tells of it
            weights[other] = weight_in_percent(parse_weight(text))
    total = sum(weights.values())
    if total > 100 + 1e-6:
        each = " and ".join(f"version {one} {share:g}%" for one, share in sorted(weights.items()))
        raise InvalidInputError(f"the canaries of {name} would get {total:g}% of the traffic: {each}")


def _percent(weight: float) -> str:
    """The weight as the tag has it: digits and a point, never an exponent."""
    return f"{weight:.9f}".rstrip("0").removesuffix(".")


def roles_of(client: Any, name: str) -> dict[str, str]:
    """The version of each of a model's aliases; `NotFoundError` names the models there are."""
    try:
        aliases = client.get_registered_model(name).aliases
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [found.name for found in client.search_registered_models(max_results=100)]
        there_are = did_you_mean(name, known) or f"; {_there_are('models', known)}"
        raise NotFoundError(f"there is no model {name!r} in the registry{there_are}") from error
    return {str(alias): str(version) for alias, version in aliases.items()}


def check_version(client: Any, name: str, version: str) -> None:
    """Checks that a model has a version; `NotFoundError` names those it has."""
    quoted = name.replace("'", "\\'")
    found = client.search_model_versions(f"name='{quoted}'", max_results=200)
    known = sorted((str(each.version) for each in found), key=int)
    if version not in known:
        raise NotFoundError(f"there is no version {version} of {name}; {_there_are('versions', known)}")


def _there_are(what: str, known: Sequence[str]) -> str:
    if not known:
        return f"there are no {what} yet"
    return f"the {what} are {', '.join(known[-20:])}"
