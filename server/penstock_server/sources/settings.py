"""Which versions are served, and how they are fetched and kept: `[policy]`, `[fetch]` and `[cache]` of the settings file."""

import re
from dataclasses import dataclass, field
from math import inf

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import InvalidInputError
from penstock_server.per_model import check_own, with_own

MAX_VERSIONS = 100
"""So many versions of a model are served at most."""


@dataclass(frozen=True, slots=True)
class OwnPolicy:
    """One model's own values in place of those of `PolicySettings`; None keeps the value there."""

    champion: str | None = None
    canary: str | None = None
    shadow: str | None = None
    latest: int | None = None
    versions: tuple[int, ...] | None = None
    pinned: int | None = None


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Which versions of a model are served, and by which aliases of the registry they have their roles.

    Attributes:
        champion, canary, shadow: the aliases that give these roles; of the last two also with a suffix, as in canary-b.
            Requests and this server's own names stay `@champion` and so on.
        latest: so many of the highest versions are kept loaded beside those with a role, and answer requests that name their
            number. Of a folder the highest version is the champion.
        versions: so are these.
        pinned: this version is the champion, whatever aliases and folders say.
        models: other values for models of these names.
    """

    champion: str = CHAMPION
    canary: str = CANARY
    shadow: str = SHADOW
    latest: int = 0
    versions: tuple[int, ...] = ()
    pinned: int | None = None
    models: dict[str, OwnPolicy] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        names = {"champion": self.champion, "canary": self.canary, "shadow": self.shadow}
        for role, alias in names.items():
            if (
                not alias
                or not alias.isprintable()
                or any(
                    other != role and (alias == name or (other != "champion" and alias.startswith(f"{name}-")))
                    for other, name in names.items()
                )
            ):
                raise InvalidInputError(f"policy.{role} is {alias!r}, expected an alias that gives no other role")
        if not 0 <= self.latest <= MAX_VERSIONS:
            raise InvalidInputError(f"policy.latest is {self.latest}, expected 0 to {MAX_VERSIONS}")
        for number in (*self.versions, *(() if self.pinned is None else (self.pinned,))):
            if number < 0:
                raise InvalidInputError(f"policy names version {number}, expected 0 or more")
        if len(self.versions) > MAX_VERSIONS:
            raise InvalidInputError(
                f"policy.versions has {len(self.versions)} versions, expected {MAX_VERSIONS} at most"
            )
        check_own("policy", self.models, self.of)

    def of(self, model: str) -> "PolicySettings":
        """The policy of one model."""
        own = self.models.get(model)
        return self if own is None else with_own(self, own)


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """What one version may consist of, and how long it may take to come. A version that passes a bound is refused.

    Attributes:
        max_mib: the size of all its files together.
        max_files: how many files it may have.
        timeout_s: from the start to the last byte.
    """

    max_mib: float = 8192.0
    max_files: int = 10_000
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        # Written so that NaN is refused as well.
        if not 0 < self.max_mib < inf:
            raise InvalidInputError(f"fetch.max_mib is {self.max_mib}, expected more than 0")
        if self.max_files < 1:
            raise InvalidInputError(f"fetch.max_files is {self.max_files}, expected at least 1")
        if not 0 < self.timeout_s < inf:
            raise InvalidInputError(f"fetch.timeout_s is {self.timeout_s}, expected more than 0 seconds")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mib * 2**20)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Which copies of versions are kept that no server needs. What a server uses, or desired last, always stays.

    Attributes:
        max_mib: the size of all copies together; those that were used longest ago are deleted first.
        keep: how many unused copies of one model are kept, the last used ones: going back to one of them fetches nothing.
    """

    max_mib: float = 16384.0
    keep: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.max_mib < inf:
            raise InvalidInputError(f"cache.max_mib is {self.max_mib}, expected 0 or more")
        if self.keep < 0:
            raise InvalidInputError(f"cache.keep is {self.keep}, expected 0 or more")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mib * 2**20)


def check_workspace(name: str) -> None:
    """Checks the name of a workspace, which a header carries; "" is none. `InvalidInputError` if none has such a name."""
    if name and not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", name):
        raise InvalidInputError(
            f"workspace is {name[:100]!r}, expected the name of one: lower-case letters, digits and hyphens"
        )
