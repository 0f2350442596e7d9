"""What a registry's aliases and tags mean: which version has which role, and the canary's weight.

Pure. `sources.mlflow_source` interprets aliases with it, and the tools write the same names when they promote.
"""

import re
from collections.abc import Mapping
from typing import Final

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import InvalidInputError
from penstock_server.rollout.plan import TrafficPlan, weight_from_percent

WEIGHT_TAG: Final = "penstock.weight"
"""The tag of a version that holds its weight as canary, in percent."""


def parse_weight(text: str) -> float:
    """The share, 0 to 1, of a weight tag's text in percent.

    Raises:
        InvalidInputError: the text is not a number from 0 to 100.
    """
    try:
        if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,12})?", text.strip()):
            return weight_from_percent(float(text))
    except InvalidInputError:
        pass  # out of range, refused below with the tag's name
    raise InvalidInputError(f"the tag '{WEIGHT_TAG}' is {text[:40]!r}; expected a percentage from 0 to 100")


def canary_version(aliases: Mapping[str, str]) -> str | None:
    """The version whose weight tag matters: the canary, unless it is the champion already."""
    canary = aliases.get(CANARY)
    return None if CHAMPION not in aliases or canary == aliases[CHAMPION] else canary


def interpret(
    aliases: Mapping[str, str], canary_tags: Mapping[str, str], *, model: str = "NAME", newest: str = "VERSION"
) -> tuple[TrafficPlan, str | None]:
    """The plan that the aliases of one model ask for, and one sentence if something is wrong with them.

    Promoting a canary may leave its old alias on the champion: that is neither a second role nor a problem. A canary
    without a readable weight gets no traffic. It is still loaded, so that giving it a weight takes effect at once.

    Args:
        aliases: all of the model's aliases, with the version of each.
        canary_tags: the tags of the version that `canary_version` names.
        model: the model's name, for the sentence that says what to do.
        newest: its newest version, for the same.
    """
    champion = aliases.get(CHAMPION)
    if champion is None:
        return TrafficPlan(), _without_champion(aliases, model, newest)
    shadow = aliases.get(SHADOW)
    canary = canary_version(aliases)
    weight, problem = _weight(canary, canary_tags)
    return TrafficPlan(champion, canary, weight, None if shadow == champion else shadow), problem


def _without_champion(aliases: Mapping[str, str], model: str, newest: str) -> str:
    others = sorted(aliases, key=lambda alias: (alias not in (CANARY, SHADOW), alias))[:3]
    besides = f", only {' and '.join(repr(alias[:100]) for alias in others)}" if others else ""
    meant = next((alias for alias in others if alias.lower() == CHAMPION), None)
    version = aliases.get(meant or "", newest or "VERSION")
    name = model if re.fullmatch(r"[\w.+-]+", model) else repr(model)
    return (
        f"registered, not served: no version has the alias '{CHAMPION}'{besides}; "
        f"run `penstock promote {name} {version}`"
    )


def _weight(canary: str | None, tags: Mapping[str, str]) -> tuple[float, str | None]:
    if canary is None:
        return 0.0, None
    if WEIGHT_TAG not in tags:
        return 0.0, f"canary {canary} has no tag '{WEIGHT_TAG}' and gets no traffic; expected a percentage in it"
    try:
        return parse_weight(tags[WEIGHT_TAG]), None
    except InvalidInputError as error:
        return 0.0, f"canary {canary} gets no traffic: {error}"
