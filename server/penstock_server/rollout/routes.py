"""What a worker knows of a model: the plan in force, and the status of each version.

The supervisor holds and sends these records, and the routing table answers from them. Other records of a version's state
would have to be kept equal to them.
"""

from dataclasses import dataclass

from penstock.names import VersionState
from penstock_server.rollout.plan import TrafficPlan


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """How a version stands; `reason` says why it is not ready."""

    state: VersionState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """One model's plan in force, None while it has no champion, and the status of each of its versions."""

    plan: TrafficPlan | None
    statuses: dict[str, VersionStatus]
