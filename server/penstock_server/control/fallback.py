"""Remembers which version of each model last answered well: it answers while a new champion cannot.

A new champion takes that place once it has answered in every worker for a while. Until then its files may still turn out
to end workers.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from penstock_server.rollout.plan import TrafficPlan

PROBATION_S: Final = 60.0


def common_champions(workers: Collection[Mapping[str, TrafficPlan]]) -> dict[str, str]:
    """The version of each model that is champion in every worker's plans."""
    champions = [{model: plan.champion for model, plan in plans.items()} for plans in workers]
    shared = set.intersection(*({*one.items()} for one in champions)) if champions else set()
    return {model: version for model, version in shared if version is not None}


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """What is known of each model's champions; `after` gives what is known next.

    Attributes:
        versions: the version that answers when nothing better can.
        answering: the champion that all workers share now, and since when.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    answering: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def after(self, common: Mapping[str, str], models: Collection[str], now_s: float) -> "Fallbacks":
        """What is known after a look at what answers.

        Args:
            common: the version of each model that answers in every worker.
            models: the models that are desired; others are forgotten.
            now_s: the time of the look.
        """
        answering = {model: at for model, at in self.answering.items() if model in models}
        versions = {model: version for model, version in self.versions.items() if model in models}
        for model, version in common.items():
            if model not in models:
                continue
            if answering.get(model, ("", 0.0))[0] != version:
                answering[model] = (version, now_s)
            if model not in versions or now_s - answering[model][1] >= PROBATION_S:
                versions[model] = version
        return replace(self, versions=versions, answering=answering)
