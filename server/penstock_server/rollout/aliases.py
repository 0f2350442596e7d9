"""What a registry's aliases and tags mean: which version has which role, and the shares of canaries and shadows.

A model may have several canaries and several shadows: `canary` and `shadow`, and each with any suffix, such as `canary-b`.

Pure. `sources.mlflow_source` interprets aliases with it, and the tools write the same names when they promote.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from penstock.names import CANARY, CHAMPION, SHADOW, Role, role_of
from penstock_server.errors import InvalidInputError
from penstock_server.rollout.plan import (
    MAX_ARMS,
    ROUNDING,
    Arm,
    ShadowArm,
    TrafficPlan,
    weight_from_percent,
    weight_in_percent,
)
from penstock_server.rollout.progress import is_out

WEIGHT_TAG: Final = "penstock.weight"
"""The tag of a version that holds its weight as canary, in percent."""
SAMPLE_TAG: Final = "penstock.sample"
"""The tag of a version that holds how many of the champion's batches it gets as shadow, in percent; 100 without it."""

Tags = Mapping[str, Mapping[str, str]]
"""The tags of each version."""


def parse_weight(text: str, tag: str = WEIGHT_TAG) -> float:
    """The share, 0 to 1, of a tag's text in percent.

    Raises:
        InvalidInputError: the text is not a number from 0 to 100.
    """
    try:
        if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,12})?", text.strip()):
            return weight_from_percent(float(text))
    except InvalidInputError:
        pass  # out of range, refused below with the tag's name
    raise InvalidInputError(f"the tag '{tag}' is {text[:40]!r}; expected a percentage from 0 to 100")


def aliases_of(role: Role, aliases: Mapping[str, str]) -> dict[str, str]:
    """The aliases that give this role, in order of their names, each with its version."""
    return {alias: version for alias, version in sorted(aliases.items()) if role_of(alias) == role}


def tagged_versions(aliases: Mapping[str, str]) -> frozenset[str]:
    """The versions whose tags matter: canaries and shadows, unless they are the champion already."""
    champion = aliases.get(CHAMPION)
    if champion is None:
        return frozenset()
    beside = {**aliases_of(CANARY, aliases), **aliases_of(SHADOW, aliases)}
    return frozenset(beside.values()) - {champion}


def interpret(
    aliases: Mapping[str, str],
    tags: Tags,
    *,
    model: str = "NAME",
    newest: str = "VERSION",
    champion_alias: str = CHAMPION,
) -> tuple[TrafficPlan, str | None]:
    """The plan that the aliases of one model ask for, and what is wrong with them, if anything is.

    Promoting a canary may leave its old alias on the champion: that is neither a second role nor a problem. A canary
    without a readable weight gets no traffic, and so does one whose weight would make more than 100 % of them all. It is
    still loaded, so that giving it a weight takes effect at once. A version has a role once, by the first of its aliases.

    Args:
        aliases: all of the model's aliases, with the version of each.
        tags: those of the versions that `tagged_versions` names.
        model: the model's name, for the sentence that says what to do.
        newest: its newest version, for the same.
        champion_alias: the registry's name of the alias that makes the champion, for the same.
    """
    champion = aliases.get(CHAMPION)
    if champion is None:
        return TrafficPlan(), _without_champion(aliases, model, newest, champion_alias)
    problems: list[str] = []
    canaries: list[Arm] = []
    for alias, version in _beside(CANARY, aliases, champion, problems):
        left = 1 - sum(arm.weight for arm in canaries)
        canaries.append(Arm(version, _weight(alias, version, tags.get(version, {}), left, problems), alias))
    shadows = [
        ShadowArm(version, _fraction(alias, version, tags.get(version, {}), problems), alias)
        for alias, version in _beside(SHADOW, aliases, champion, problems)
    ]
    return TrafficPlan(champion, tuple(canaries), tuple(shadows)), "; ".join(problems) or None


def _without_champion(aliases: Mapping[str, str], model: str, newest: str, champion_alias: str) -> str:
    others = sorted(aliases, key=lambda alias: (alias not in (CANARY, SHADOW), alias))[:3]
    besides = f", only {' and '.join(repr(alias[:100]) for alias in others)}" if others else ""
    meant = next((alias for alias in others if alias.lower() == CHAMPION), None)
    version = aliases.get(meant or "", newest or "VERSION")
    name = model if re.fullmatch(r"[\w.+-]+", model) else repr(model)
    advice = (
        f"run `penstock promote {name} {version}`"
        if champion_alias == CHAMPION
        else "set it in MLflow, or change policy.champion"
    )
    return f"registered, not served: no version has the alias '{champion_alias}'{besides}; {advice}"


def _beside(role: Role, aliases: Mapping[str, str], champion: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    """The aliases that give a role to another version than the champion, each version once."""
    seen: dict[str, str] = {}
    for alias, version in aliases_of(role, aliases).items():
        if version == champion:
            continue
        if version in seen:
            problems.append(f"{alias} names version {version}, which is {seen[version]}, and counts for nothing")
        elif len(seen) == MAX_ARMS:
            problems.append(f"{alias} is left out: a model has {MAX_ARMS} versions as {role} at most")
        else:
            seen[version] = alias
            yield alias, version


def _weight(alias: str, version: str, tags: Mapping[str, str], left: float, problems: list[str]) -> float:
    who = f"{alias} {version}"
    if is_out(tags):
        problems.append(f"{who} gets no traffic: its rollout has ended")
        return 0.0
    if WEIGHT_TAG not in tags:
        problems.append(f"{who} has no tag '{WEIGHT_TAG}' and gets no traffic; expected a percentage in it")
        return 0.0
    try:
        weight = parse_weight(tags[WEIGHT_TAG])
    except InvalidInputError as error:
        problems.append(f"{who} gets no traffic: {error}")
        return 0.0
    if weight > left + ROUNDING:
        rest = weight_in_percent(max(0.0, left))
        problems.append(
            f"{who} gets no traffic: its weight is {weight_in_percent(weight):g} percent, "
            f"and the canaries before it leave {rest:.6g}"
        )
        return 0.0
    return weight


def _fraction(alias: str, version: str, tags: Mapping[str, str], problems: list[str]) -> float:
    """A shadow's share of the batches; none where its tag cannot be read, since it may have been meant to be small."""
    if is_out(tags):
        return 0.0
    if SAMPLE_TAG not in tags:
        return 1.0
    try:
        return parse_weight(tags[SAMPLE_TAG], SAMPLE_TAG)
    except InvalidInputError as error:
        problems.append(f"{alias} {version} gets no copies: {error}")
        return 0.0
