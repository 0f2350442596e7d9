"""Remembers which version of each model last answered well: it answers while a new champion cannot.

A new champion takes that place once it has answered in every worker for a while. Until then its files may still turn out
to end workers.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.names import VersionKey
from penstock_server.rollout.plan import TrafficPlan

PROBATION_S: Final = 60.0


def common_champions(workers: Collection[Mapping[str, TrafficPlan]]) -> dict[str, str]:
    """The version of each model that is champion in every worker's plans."""
    champions = [{model: plan.champion for model, plan in plans.items()} for plans in workers]
    shared = set.intersection(*({*one.items()} for one in champions)) if champions else set()
    return {model: version for model, version in shared if version is not None}


def common_files(
    champions: Mapping[str, str], held: Collection[Mapping[VersionKey, str]], *, all_hold: bool = True
) -> dict[str, tuple[str, str]]:
    """Each of these champions with the identity of its files, where all workers hold the same files.

    Args:
        champions: the version of each model.
        held: for each worker, the identity of the files of each version that it has loaded.
        all_hold: each worker must hold them; else each that has the version.
    """
    files = {model: {one.get((model, version)) for one in held} for model, version in champions.items()}
    if not all_hold:
        files = {model: identities - {None} for model, identities in files.items()}
    return {
        model: (champions[model], identity)
        for model, identities in files.items()
        if len(identities) == 1 and (identity := next(iter(identities))) is not None
    }


def agreed_champions(workers: Collection[Mapping[str, TrafficPlan]]) -> dict[str, str]:
    """The version of each model that is champion in every worker's plans that have the model."""
    found: dict[str, set[str]] = {}
    for plans in workers:
        for model, plan in plans.items():
            if plan.champion is not None:
                found.setdefault(model, set()).add(plan.champion)
    return {model: next(iter(versions)) for model, versions in found.items() if len(versions) == 1}


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """What is known of each model's champions; `after` gives what is known next.

    Attributes:
        versions: the version that answers when nothing better can.
        identities: of the files with which it answered; a version that is registered anew since then has not answered well.
        answering: the champion that all workers share now, the identity of its files, and since when.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[str, str] = field(default_factory=dict)
    answering: Mapping[str, tuple[str, str, float]] = field(default_factory=dict)

    def after(self, common: Mapping[str, tuple[str, str]], models: Collection[str], now_s: float) -> "Fallbacks":
        """What is known after a look at what answers.

        Args:
            common: the version of each model that answers in every worker, and the identity of its files.
            models: the models that are desired; others are forgotten.
            now_s: the time of the look.
        """
        answering = {model: at for model, at in self.answering.items() if model in models}
        versions = {model: version for model, version in self.versions.items() if model in models}
        identities = {model: identity for model, identity in self.identities.items() if model in models}
        for model, (version, identity) in common.items():
            if model not in models:
                continue
            if answering.get(model, ("", "", 0.0))[:2] != (version, identity):
                answering[model] = (version, identity, now_s)
            if model not in versions or now_s - answering[model][2] >= PROBATION_S:
                versions[model], identities[model] = version, identity
        return Fallbacks(versions, identities, answering)

    def required(self, desired: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """Which files are meant, by model and version: the desired ones, and for other versions those that answered.

        Args:
            desired: the identities of the desired versions.
        """
        own = {model: {version: self.identities[model]} for model, version in self.versions.items()}
        return {model: {**own.get(model, {}), **desired.get(model, {})} for model in own.keys() | desired.keys()}
