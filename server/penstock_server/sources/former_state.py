"""Reads the last known state as releases wrote it whose plans had one canary and one shadow at most."""

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock_server.models import strict_json
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan
from penstock_server.sources.source import Desired


class _Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    champion: str | None = None
    canary: str | None = None
    canary_weight: float = 0.0
    shadow: str | None = None
    others: tuple[str, ...] = ()

    def plan(self) -> TrafficPlan:
        canaries = () if self.canary is None else (Arm(self.canary, self.canary_weight),)
        shadows = () if self.shadow is None else (ShadowArm(self.shadow),)
        return TrafficPlan(self.champion, canaries, shadows, self.others)


class _Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: Mapping[str, _Plan] = msgspec.field(default_factory=dict)
    problems: Mapping[str, str] = msgspec.field(default_factory=dict)
    identities: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    desired: _Desired
    format: int = strict_json.FORMAT


_states: Final = msgspec.json.Decoder(_State)


def read(raw: bytes) -> Desired:
    """What was desired.

    Raises:
        InvalidInputError: the bytes are no such state.
    """
    desired = strict_json.decode(raw, _states).desired
    plans = {name: plan.plan() for name, plan in desired.models.items()}
    return Desired(plans, desired.problems, desired.identities)
