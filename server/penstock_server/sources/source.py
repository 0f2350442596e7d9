"""What is wanted and where it is got: the records and the protocol that every source of models keeps to.

A source always states the whole of what it wants, so that a missed answer heals itself at the next. Which versions are
loaded because of it is decided in `lifecycle.py`; how often a source is asked, by whoever owns the manager.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from penstock_server.errors import InvalidInputError


class WantedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The versions wanted of one model and the part each plays; nothing set means that nothing is to be served.

    Attributes:
        champion: The version that answers.
        canary: The version that answers a share of the requests in the champion's place.
        canary_weight: That share, 0 to 1.
        shadow: The version that is asked as well and only compared.
    """

    champion: str | None = None
    canary: str | None = None
    canary_weight: float = 0.0
    shadow: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.canary_weight) and 0.0 <= self.canary_weight <= 1.0):
            raise InvalidInputError(f"the canary's weight is {self.canary_weight}; expected a share from 0 to 1")

    @property
    def versions(self) -> frozenset[str]:
        """The versions that must be loaded."""
        return frozenset(version for version in (self.champion, self.canary, self.shadow) if version is not None)


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that one source wants at one moment.

    Three cases a model. In `models`: that is the wish, whatever `problems` says besides. In `problems` alone: the
    source could not tell, and the former wish holds (`keeping`). In neither: the model is no longer wanted.

    Attributes:
        models: The wish for each model, by name.
        problems: One sentence for each model with which something is wrong, by name.
    """

    models: Mapping[str, WantedModel] = msgspec.field(default_factory=dict)
    problems: Mapping[str, str] = msgspec.field(default_factory=dict)

    def keeping(self, former: "Desired") -> "Desired":
        """This wish, with the former one for every model that the source could not tell about."""
        kept = {name: former.models[name] for name in self.problems if name in former.models}
        return Desired(models={**kept, **self.models}, problems=self.problems)


class Source(Protocol):
    """A place that says which versions are wanted and hands out their files. Calls block; use a thread."""

    @property
    def name(self) -> str:
        """What logs and the index call it; holds no secrets."""
        ...

    def poll(self) -> Desired:
        """All that is wanted now.

        Raises:
            UnavailableError: The place does not answer; the last known state holds.
        """
        ...

    def fetch(self, model: str, version: str) -> Path:
        """A local folder with the version's files, for `artifact.read`.

        Raises:
            NotFoundError: There is no such version.
            InvalidInputError: There is one and it cannot be used.
            UnavailableError: The place does not answer, and no copy is at hand.
        """
        ...
