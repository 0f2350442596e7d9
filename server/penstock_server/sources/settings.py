"""How versions are fetched and kept: the tables `[fetch]` and `[cache]` of the settings file."""

from dataclasses import dataclass
from math import inf

from penstock_server.errors import InvalidInputError


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
