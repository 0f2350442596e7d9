"""Chooses the version that answers: the champion, or a canary for a share of the keys; a shadow gets copies.

The supervisor sends a worker each model's plan with the status of its versions, and the routing table answers from these
same records, so that a version's state is not kept twice.

A source states the desired plan, and a worker serves by the part of it that is ready. Pure; the routing table calls
`choose` once per request that names no version.
"""

from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from random import random

import msgspec

from penstock.names import CANARY, CHAMPION, Role, VersionState
from penstock_server.errors import InvalidInputError, NotReadyError

# A float64 holds 53 bits: with more, the last places would round up to 1, and miss a canary of weight 1.
_PLACE_BITS = 53


def check_weight(weight: float) -> float:
    """The weight, if it is a share from 0 to 1; the error gives it in percent, as people write weights."""
    # Written so that NaN is refused as well.
    if not 0 <= weight <= 1:
        raise InvalidInputError(
            f"a canary's weight is {weight_in_percent(weight):g} percent, expected 0 to 100 percent"
        )
    return weight


def weight_from_percent(percent: float) -> float:
    """The share of a percentage; `InvalidInputError` unless it is from 0 to 100."""
    return check_weight(percent / 100)


def weight_in_percent(weight: float) -> float:
    """The percentage that people see for a share."""
    return weight * 100


class TrafficPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one model's traffic is shared; a plan without a champion serves nothing.

    The last known state on disk has these field names, and later releases must read it.

    Attributes:
        champion: the version that answers.
        canary: the version that answers a share of the keys.
        canary_weight: that share, 0 to 1.
        shadow: the version that gets a copy of what the champion answered.
        others: further versions, which answer requests that name them.
    """

    champion: str | None = None
    canary: str | None = None
    canary_weight: float = 0.0
    shadow: str | None = None
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_weight(self.canary_weight)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that must be loaded, each once; the champion is first, since requests wait for it."""
        found = dict.fromkeys((self.champion, self.canary, self.shadow, *self.others))
        return tuple(version for version in found if version is not None)

    def choose(self, model: str, key: str) -> tuple[str, Role]:
        """The version and role for a request with this routing key ("" for none: chosen at random).

        A key keeps its place between 0 and 1, and the canary takes the places below its weight: a key that reaches the
        canary at 5 % still does at 25 %.

        Raises:
            NotReadyError: the plan has no champion.
        """
        if self.champion is None:
            raise NotReadyError(f"model {model!r} has no champion")
        if self.canary is not None and self.canary_weight > 0:
            place = key_place(model, key) if key else random()
            if place < self.canary_weight:
                return self.canary, CANARY
        return self.champion, CHAMPION


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A version's state; `reason` says why it is not ready."""

    state: VersionState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """One model's plan in force, None while it has no champion, and the status of each of its versions.

    `problem` is what the source says is wrong with the model, "" for nothing.
    """

    plan: TrafficPlan | None
    statuses: dict[str, VersionStatus]
    problem: str = ""


def key_place(model: str, key: str) -> float:
    """The place of a routing key in [0, 1): uniform over keys, the same in every process, independent over models.

    >>> key_place("churn", "customer-7") == key_place("churn", "customer-7") != key_place("fraud", "customer-7")
    True
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt_of(model)).digest()
    return (int.from_bytes(digest, "big") >> (64 - _PLACE_BITS)) * 2.0**-_PLACE_BITS


def places_of(weight: float) -> int:
    """How many of the 2 ** 53 places are a canary's of this weight."""
    return ceil(weight * 2.0**_PLACE_BITS)


def salt_of(model: str) -> bytes:
    """What makes the places of keys independent over models."""
    return blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16).digest()
