"""What a registry's aliases and tags mean; pure.

Decides which version plays which part, and the canary's share. Asked by `mlflow_source.py`; the tools use the same
names when they promote.
"""

import re
from collections.abc import Mapping
from typing import Final

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import InvalidInputError
from penstock_server.sources.source import WantedModel

WEIGHT_TAG: Final = "penstock.weight"
"""The tag of a version that holds its share as canary, in percent."""


def parse_weight(text: str) -> float:
    """The share, 0 to 1, that a weight tag's text says in percent.

    Raises:
        InvalidInputError: It is no number from 0 to 100.
    """
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,12})?", text.strip()) or float(text) > 100:
        raise InvalidInputError(f"the tag '{WEIGHT_TAG}' is {text[:40]!r}; expected a percentage from 0 to 100")
    return float(text) / 100


def canary_version(aliases: Mapping[str, str]) -> str | None:
    """The version whose weight tag matters: the canary, unless it is the champion already."""
    canary = aliases.get(CANARY)
    return None if CHAMPION not in aliases or canary == aliases[CHAMPION] else canary


def interpret(aliases: Mapping[str, str], canary_tags: Mapping[str, str]) -> tuple[WantedModel, str | None]:
    """What is wanted of one model, and one sentence if something is wrong with it.

    An alias left on the champion, as promoting a canary leaves it, is no second part and no problem. A canary without a
    weight that can be read gets no traffic: it is loaded, so that giving it a share takes effect at once, but nobody
    meets a version by a forgotten tag.

    Args:
        aliases: Version by alias, all of the model's.
        canary_tags: The tags of the version that `canary_version` names.
    """
    champion = aliases.get(CHAMPION)
    if champion is None:
        return WantedModel(), _without_champion(aliases)
    shadow = aliases.get(SHADOW)
    canary = canary_version(aliases)
    weight, problem = _weight(canary, canary_tags)
    wanted = WantedModel(
        champion=champion,
        canary=canary,
        canary_weight=weight,
        shadow=None if shadow == champion else shadow,
    )
    return wanted, problem


def _without_champion(aliases: Mapping[str, str]) -> str:
    others = [alias for alias in (CANARY, SHADOW) if alias in aliases]
    besides = f", only {' and '.join(map(repr, others))}" if others else ""
    return f"no version has the alias '{CHAMPION}'{besides}; nothing is served until one has it"


def _weight(canary: str | None, tags: Mapping[str, str]) -> tuple[float, str | None]:
    if canary is None:
        return 0.0, None
    if WEIGHT_TAG not in tags:
        return 0.0, f"canary {canary} has no tag '{WEIGHT_TAG}' and gets no traffic; expected a percentage in it"
    try:
        return parse_weight(tags[WEIGHT_TAG]), None
    except InvalidInputError as error:
        return 0.0, f"canary {canary} gets no traffic: {error}"
