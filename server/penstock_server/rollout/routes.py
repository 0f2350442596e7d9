"""What the supervisor sends a worker about a model: the plan in force, and the status of each version.

The supervisor and the routing table use the same records, so that a version's state is not kept twice.
"""

from dataclasses import dataclass

from penstock.names import VersionState
from penstock_server.rollout.plan import TrafficPlan


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A version's state; `reason` says why it is not ready."""

    state: VersionState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """One model's plan in force, None while it has no champion, and the status of each of its versions."""

    plan: TrafficPlan | None
    statuses: dict[str, VersionStatus]
