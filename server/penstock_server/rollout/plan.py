"""Who gets which version: the champion, a canary for a share of the keys, and a shadow that only watches.

Pure; the predictor asks it once a request that named no version.
"""

from dataclasses import dataclass
from hashlib import blake2b
from random import random

from penstock.names import CANARY, CHAMPION, Role
from penstock_server.errors import InvalidInputError

# A float64 holds 53 bits: more would round the last places up to 1, and off a canary of weight 1.
_PLACE_BITS = 53


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """How one model's traffic is shared.

    Attributes:
        champion: the version that answers.
        canary: the version that answers a share of the keys.
        canary_weight: that share, 0 to 1.
        shadow: the version that gets a copy of what the champion answered.
    """

    champion: str
    canary: str | None = None
    canary_weight: float = 0.0
    shadow: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.canary_weight <= 1:
            raise InvalidInputError(f"a canary's weight is a share from 0 to 1, got {self.canary_weight}")

    def choose(self, model: str, key: str) -> tuple[str, Role]:
        """The version and role for a request with this routing key ("" for none: chosen at random).

        A key keeps its place between 0 and 1 for ever, and the canary takes the places below its weight: whoever is in
        the 5 % stays in the 25 %.
        """
        if self.canary is not None and self.canary_weight > 0:
            place = key_place(model, key) if key else random()
            if place < self.canary_weight:
                return self.canary, CANARY
        return self.champion, CHAMPION


def key_place(model: str, key: str) -> float:
    """The place of a routing key in [0, 1): uniform over keys, the same in every process, independent over models.

    >>> key_place("churn", "customer-7") == key_place("churn", "customer-7") != key_place("fraud", "customer-7")
    True
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=_salt(model)).digest()
    return (int.from_bytes(digest, "big") >> (64 - _PLACE_BITS)) * 2.0**-_PLACE_BITS


def _salt(model: str) -> bytes:
    return blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16).digest()
