"""Which executors answer the requests of an ensemble: one for each choice of versions that its models' plans allow.

While no model of it has a canary there is one. With a canary there is another whose step asks that version, and a request's
key says which of them it meets: so a batch goes whole through the same versions, and a key meets the same canaries as it does
at the models themselves. The worker asks when plans or versions have changed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from penstock.names import Role
from penstock_server.errors import InvalidInputError, NotReadyError, PenstockError
from penstock_server.models.artifact import Artifact
from penstock_server.models.ensemble import Ensemble
from penstock_server.models.ensemble_servable import BoundStep, bound_steps
from penstock_server.models.servable import Servable
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.routing_table import ServedModel
from penstock_server.rollout.plan import TrafficPlan

MAX_CHOICES: Final = 8
"""Three models with a canary at once, or seven canaries of one: each choice has a queue of its own."""

Choice = tuple[str, ...]
"""The version of each of the ensemble's models, in their order."""


@dataclass(frozen=True, slots=True)
class Bound:
    """An ensemble's steps for each choice of versions.

    Attributes:
        steps: bound, by choice; the first is that of the champions.
        plans: of its models, in their order; None for a model that only steps with a version of their own ask.
    """

    models: tuple[str, ...]
    steps: Mapping[Choice, tuple[BoundStep, ...]]
    plans: tuple[TrafficPlan | None, ...]

    def choice(self, key: str) -> Choice:
        """The versions for a request of this routing key, "" for none."""
        return tuple(
            "" if plan is None else plan.choose(model, key)[0]
            for model, plan in zip(self.models, self.plans, strict=True)
        )

    def is_like(self, other: "Bound") -> bool:
        """Whether the same versions, from the same files, answer by the same plans."""
        return self.plans == other.plans and self.steps == other.steps


def bind(artifact: Artifact, models: Mapping[str, ServedModel]) -> Bound:
    """The steps of an ensemble with what is loaded now.

    Args:
        artifact: of the ensemble.
        models: those that are served.

    Raises:
        PenstockError: a model is missing, or does not fit; says which.
    """
    ensemble = artifact.ensemble
    assert ensemble is not None
    for model in ensemble.models:
        if model not in models:
            raise NotReadyError(f"model {model!r} is not there")
    plans = tuple(models[model].plan for model in ensemble.models)
    choices = [*product(*(_versions(plan) for plan in plans))]
    if len(choices) > MAX_CHOICES:
        raise InvalidInputError(
            f"its {len(plans)} models have {len(choices)} choices of champions and canaries, expected {MAX_CHOICES} at most"
        )
    return Bound(
        ensemble.models,
        {
            choice: tuple(_bound(ensemble, models, dict(zip(ensemble.models, choice, strict=True))))
            for choice in choices
        },
        plans,
    )


def _versions(plan: TrafficPlan | None) -> list[str]:
    if plan is None or plan.champion is None:
        return [""]
    return [plan.champion, *(arm.version for arm in plan.weighed)]


def _bound(ensemble: Ensemble, models: Mapping[str, ServedModel], chosen: Mapping[str, str]) -> list[BoundStep]:
    def resolve(model: str, version: str) -> Servable:
        return models[model].resolve(version or chosen[model], "").servable

    return bound_steps(ensemble, resolve)


class BoundExecutors:
    """The executors of one ensemble, by choice.

    Args:
        bound: its steps.
        make: an executor for the steps of a choice.

    Attributes:
        first: the executor for the champions; it leads to the others by key.
        every: all of them.
    """

    def __init__(self, bound: Bound, make: Callable[[tuple[BoundStep, ...]], Executor]) -> None:
        self.bound = bound
        self._by_choice = {choice: make(steps) for choice, steps in bound.steps.items()}
        self.every = tuple(self._by_choice.values())
        self.first = self.every[0]
        if len(self.every) > 1:
            self.first.by_key = self.of_key

    def set_role(self, role: Role | None, share: float = 0.0) -> None:
        """Sets the role that replies of all of them name, and the ensemble's share of the requests that name no version."""
        for executor in self.every:
            executor.set_role(role, share)
            if executor.sampler is not None:
                executor.sampler.role = role or ""

    def of_key(self, key: str) -> Executor:
        """The executor for a request of this routing key."""
        return self._by_choice[self.bound.choice(key)]


def why_not(error: PenstockError) -> str:
    """Why an ensemble cannot be bound, for people."""
    return f"the ensemble cannot answer: {error}"
