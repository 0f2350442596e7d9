"""Chooses the version that answers: the champion, or a canary for a share of the keys; shadows get copies.

The supervisor sends a worker each model's plan with the status of its versions, and the routing table answers from these
same records, so that a version's state is not kept twice.

A source states the desired plan, and a worker serves by the part of it that is ready. Pure; the routing table calls
`choose` once per request that names no version.

Which keys a canary has: a key has a place in [0, 1) that never changes, and a canary takes as many places as its weight says,
upwards from where its alias begins, without those that are taken, and on from 0 when it comes to 1. `canary` begins at 0,
and any other alias where its own name has its place. The others are dealt first, in the order of their aliases, and
`canary` last. So

- a key that reaches a canary at 5 % still does at 25 %, unless another one grows into its place;
- raising or ending `canary` moves no key from one other canary to another, or to the champion;
- raising one of the others takes places of another canary only where the two meet, and that one makes up for them further on;
- every server of a registry deals alike: nothing is remembered.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import ceil, fsum
from random import getrandbits

import msgspec

from penstock.names import CANARY, CHAMPION, SHADOW, Role, VersionState
from penstock_server.errors import InvalidInputError, NotReadyError

# A float64 holds 53 bits: with more, the last places would round up to 1, and miss a canary of weight 1.
_PLACE_BITS = 53
PLACES = 1 << _PLACE_BITS
"""How many places there are."""
MAX_ARMS = 16
"""The most canaries of a model, and the most shadows."""
ROUNDING = 1e-9
"""Three times 33.3333 % may add up to a little more than 1."""


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


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A canary: a version that answers a share of the keys.

    Attributes:
        version: the version.
        weight: the share, 0 to 1.
        alias: by which it is canary, which says where its keys are.
    """

    version: str
    weight: float = 0.0
    alias: str = CANARY

    def __post_init__(self) -> None:
        check_weight(self.weight)


class ShadowArm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A shadow: a version that gets copies of batches that the champion has answered.

    Attributes:
        version: the version.
        fraction: the share of the champion's batches that it gets, 0 to 1.
        alias: by which it is shadow.
    """

    version: str
    fraction: float = 1.0
    alias: str = SHADOW

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise InvalidInputError(
                f"a shadow's sample is {weight_in_percent(self.fraction):g} percent, expected 0 to 100 percent"
            )


class Places(msgspec.Struct, frozen=True):
    """Places that one version has, up to where those of the next begin.

    Attributes:
        end: the place after the last.
        version: the version that answers their keys.
        role: its role.
    """

    end: int
    version: str
    role: Role


class TrafficPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """How one model's traffic is shared; a plan without a champion serves nothing.

    The last known state on disk has these field names, and later releases must read it.

    Attributes:
        champion: the version that answers.
        canaries: the versions that answer shares of the keys, which add up to 1 at most.
        shadows: the versions that get copies of what the champion answered.
        others: further versions, which answer requests that name them.
    """

    champion: str | None = None
    canaries: tuple[Arm, ...] = ()
    shadows: tuple[ShadowArm, ...] = ()
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        total = fsum(arm.weight for arm in self.canaries)
        if total > 1 + ROUNDING:
            raise InvalidInputError(
                f"the canaries' weights add up to {weight_in_percent(total):g} percent, expected 100 at most"
            )

    @cached_property
    def versions(self) -> tuple[str, ...]:
        """The versions that must be loaded, each once; the champion is first, since requests wait for it."""
        canaries = (arm.version for arm in self.canaries)
        shadows = (arm.version for arm in self.shadows)
        found = dict.fromkeys((self.champion, *canaries, *shadows, *self.others))
        return tuple(version for version in found if version is not None)

    @property
    def weighed(self) -> tuple[Arm, ...]:
        """The canaries that get traffic."""
        return tuple(arm for arm in self.canaries if arm.weight > 0)

    def named(self, alias: str) -> str | None:
        """The version that has a role by this alias, such as "champion" or "canary-b"; None if none has."""
        if alias == CHAMPION:
            return self.champion
        arms: tuple[Arm | ShadowArm, ...] = (*self.canaries, *self.shadows)
        return next((arm.version for arm in arms if arm.alias == alias), None)

    def roles(self, version: str) -> tuple[Role, ...]:
        """A version's roles; it may be canary and shadow at once."""
        held: dict[Role, bool] = {
            CHAMPION: version == self.champion,
            CANARY: any(arm.version == version for arm in self.canaries),
            SHADOW: any(arm.version == version for arm in self.shadows),
        }
        return tuple(role for role, is_held in held.items() if is_held)

    def weight(self, version: str) -> float | None:
        """A canary's share of the keys, 0 to 1; None for other versions."""
        return next((arm.weight for arm in self.canaries if arm.version == version), None)

    def fraction(self, version: str) -> float | None:
        """The share of the champion's batches that a shadow gets, 0 to 1; None for other versions."""
        return next((arm.fraction for arm in self.shadows if arm.version == version), None)

    @cached_property
    def places(self) -> tuple[Places, ...]:
        """Which version has which places, in their order and up to the last; for a plan with a champion."""
        champion = self.champion or ""
        ranges = sorted((start, end, arm) for arm, own in _dealt(self.weighed) for start, end in own)
        found: list[Places] = []
        at = 0
        for start, end, arm in ranges:
            if start > at:
                found.append(Places(start, champion, CHAMPION))
            found.append(Places(end, arm.version, CANARY))
            at = end
        return tuple(found) if at == PLACES else (*found, Places(PLACES, champion, CHAMPION))

    @cached_property
    def _ends(self) -> list[int]:
        return [places.end for places in self.places]

    def share(self, version: str) -> float:
        """With which probability a version answers a request that names none; 0 for one that answers only those that do."""
        canarys = fsum(arm.weight for arm in self.canaries if arm.version == version)
        champions = max(0.0, 1.0 - fsum(arm.weight for arm in self.canaries)) if version == self.champion else 0.0
        return canarys + champions

    def choose(self, model: str, key: str) -> tuple[str, Role]:
        """The version and role for a request with this routing key ("" for none: chosen at random).

        Raises:
            NotReadyError: the plan has no champion.
        """
        if self.champion is None:
            raise NotReadyError(f"model {model!r} has no champion")
        if len(self.places) == 1:
            only = self.places[0]
            return only.version, only.role
        place = place_of(model, key) if key else getrandbits(_PLACE_BITS)
        found = self.places[bisect_right(self._ends, place)]
        return found.version, found.role


def _dealt(canaries: Sequence[Arm]) -> Iterator[tuple[Arm, list[tuple[int, int]]]]:
    """The places of each canary, as ranges without their ends."""
    taken: list[tuple[int, int]] = []
    for arm in sorted(canaries, key=lambda arm: (arm.alias == CANARY, arm.alias, arm.version)):
        begin = 0 if arm.alias == CANARY else place_of("", arm.alias)
        own = [*_free(taken, begin, PLACES), *_free(taken, 0, begin)]
        own = list(_first(own, places_of(arm.weight)))
        taken = sorted(taken + own)
        yield arm, own


def _free(taken: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges between `start` and `end` without those that are taken, which are in order."""
    for first, last in taken:
        if start < min(first, end):
            yield start, min(first, end)
        start = max(start, last)
    if start < end:
        yield start, end


def _first(ranges: Sequence[tuple[int, int]], count: int) -> Iterator[tuple[int, int]]:
    """The first so many places of these ranges, or all."""
    for start, end in ranges:
        if count <= 0:
            return
        yield start, min(end, start + count)
        count -= end - start


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A version's state; `reason` says why it is not ready."""

    state: VersionState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """One model's plan in force, None while it has no champion, and the status of each of its versions.

    `problem` is what the source says is wrong with the model, "" for nothing. A model that `is_on_call` need not be in memory
    to answer: its champion is proven, and loaded when a call asks for it.
    """

    plan: TrafficPlan | None
    statuses: dict[str, VersionStatus]
    problem: str = ""
    is_on_call: bool = False


def key_place(model: str, key: str) -> float:
    """The place of a routing key in [0, 1): uniform over keys, the same in every process, independent over models.

    >>> key_place("churn", "customer-7") == key_place("churn", "customer-7") != key_place("fraud", "customer-7")
    True
    """
    return place_of(model, key) / PLACES


def place_of(model: str, key: str) -> int:
    """The same as the number of the place, from 0 and below `PLACES`."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt_of(model)).digest()
    return int.from_bytes(digest, "big") >> (64 - _PLACE_BITS)


def places_of(weight: float) -> int:
    """How many of the places are a canary's of this weight."""
    return ceil(weight * PLACES)


def salt_of(model: str) -> bytes:
    """What makes the places of keys independent over models."""
    return blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16).digest()
