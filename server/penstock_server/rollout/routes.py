"""What a worker knows of a model besides its loaded versions: the plan in force, and how each version stands.

The supervisor sends these records, and the routing table answers from them; they are the only ones for a version's state.
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
