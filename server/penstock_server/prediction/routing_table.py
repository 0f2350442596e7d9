"""Which executor answers a request: an immutable map of all that a worker serves, swapped by one assignment.

A reader holds one table for as long as it needs and never sees half a change.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from penstock.names import ROLES, Role, role_of
from penstock_server.errors import NotFoundError, NotReadyError, StandbyError
from penstock_server.prediction.executor import Executor
from penstock_server.rollout.plan import TrafficPlan, VersionStatus

COMING: Final = frozenset({"STANDBY", "LOADING", "UNLOADING"})
"""The states of versions that a call may wait for, where models are loaded when they are asked for."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model: its plan, its loaded versions, and the state of all its versions.

    Attributes:
        plan: None while no champion is loaded.
        executors: the loaded versions, by version.
        statuses: every version that the server knows of.
        problem: what is wrong with the model at its source, "" for nothing.
        is_lazy: it is loaded when it is asked for: what is not in memory is worth waiting for.
        is_on_call: it need not be in memory to answer, as `ModelRoutes` has it.
    """

    name: str
    plan: TrafficPlan | None
    executors: Mapping[str, Executor]
    statuses: Mapping[str, VersionStatus] = field(default_factory=dict)
    problem: str = ""
    is_lazy: bool = False
    is_on_call: bool = False

    def with_executor(self, version: str, executor: Executor) -> "ServedModel":
        """The same, with an executor of one more version."""
        return replace(self, executors={**self.executors, version: executor})

    def with_status(self, version: str, status: VersionStatus) -> "ServedModel":
        """The same, with another status of a version."""
        return replace(self, statuses={**self.statuses, version: status})

    def resolve(self, version: str, key: str) -> Executor:
        """The executor for a request that names this version ("" for the plan's choice, `@alias` for a role's).

        Raises:
            NotFoundError: there is no such version or alias.
            StandbyError: it is loaded, or will be, since this was asked.
            NotReadyError: it is known but not loaded.
        """
        executor = self._resolved(version, key)
        return executor if executor.by_key is None else executor.by_key(key)

    def _resolved(self, version: str, key: str) -> Executor:
        if version and not version.startswith("@"):
            return self._loaded(version)
        plan = self.plan
        if plan is None:
            self._await(self.statuses)
            raise NotReadyError(f"model {self.name!r} has no version ready{self._why()}")
        if not version:
            return self._loaded(plan.choose(self.name, key)[0])
        alias = version[1:]
        if role_of(alias) is None:
            raise NotFoundError(f"model {self.name!r} has no alias {version!r}; expected one of @{', @'.join(ROLES)}")
        named = plan.named(alias)
        if named is None:
            raise NotFoundError(f"model {self.name!r} has no {alias} now")
        return self._loaded(named)

    def role(self, version: str) -> Role | None:
        """A version's role now; the first of champion, canary and shadow when it has several."""
        return None if self.plan is None else next(iter(self.plan.roles(version)), None)

    def share(self, version: str) -> float:
        """With which probability a version answers a request that names none."""
        return 0.0 if self.plan is None else self.plan.share(version)

    def routes_like(self, other: "ServedModel") -> bool:
        """Whether requests that are answered come to the same executors, in the same shares and roles."""
        return self.plan == other.plan and self.executors == other.executors

    @property
    def keeps_answers(self) -> bool:
        """Whether answers of a version are kept in the response cache."""
        return any(executor.responses is not None for executor in self.executors.values())

    @property
    def is_ready(self) -> bool:
        """Whether a request that names no version is answered; an ensemble in force may lack one of its models."""
        return self.is_on_call or (self.plan is not None and self.plan.champion in self.executors)

    def check_ready(self, version: str) -> None:
        """Raises what `resolve` raises for a request that would not be answered, not even after the model was loaded."""
        status = self.statuses.get(version)
        is_champion = version in {"", "@champion"}
        if not (self.is_on_call and (is_champion or (status is not None and status.state in COMING))):
            self.resolve(version, "")

    def _await(self, versions: Iterable[str]) -> None:
        """Raises `StandbyError` if one of these versions is worth waiting for."""
        if self.is_lazy and any(one.state in COMING for name in versions if (one := self.statuses.get(name))):
            raise StandbyError(f"model {self.name!r} is not in memory, and is being loaded", self.name)

    def _loaded(self, version: str) -> Executor:
        executor = self.executors.get(version)
        if executor is not None:
            return executor
        status = self.statuses.get(version)
        if status is None:
            known = ", ".join(sorted(self.executors)) or "none yet"
            raise NotFoundError(f"model {self.name!r} has no version {version!r}; served now: {known}")
        self._await([version])
        reason = f": {status.reason}" if status.reason else ""
        raise NotReadyError(f"model {self.name!r} version {version} is {status.state.lower()}{reason}")

    def _why(self) -> str:
        reasons = [f"version {version}: {status.reason}" for version, status in self.statuses.items() if status.reason]
        reasons += [self.problem] if self.problem else []
        return f" ({'; '.join(reasons)})" if reasons else ""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All models of a worker.

    Attributes:
        is_settled: every desired version was loaded or failed at least once.
    """

    models: Mapping[str, ServedModel] = field(default_factory=dict)
    is_settled: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether every desired version was tried, and at least one model can answer if any is desired.

        One model that cannot be loaded must not take traffic from the others, so each model has its own readiness too.
        """
        return self.is_settled and (not self.models or any(model.is_ready for model in self.models.values()))

    def replaced(self, former: "RoutingTable") -> set[str]:
        """The names of the models of which anything is different from a former table, those that are new or gone among them.

        Models that are the same object are not compared: tables that follow each other share those that have not changed.
        """
        return self._different(former, lambda model, held: model == held)

    def rerouted(self, former: "RoutingTable") -> set[str]:
        """The same for those whose requests may be answered otherwise."""
        return self._different(former, ServedModel.routes_like)

    def _different(self, former: "RoutingTable", are_like: Callable[[ServedModel, ServedModel], bool]) -> set[str]:
        held = former.models
        found = {
            name
            for name, model in self.models.items()
            if (other := held.get(name)) is not model and (other is None or not are_like(model, other))
        }
        return found | (held.keys() - self.models.keys())

    def model(self, name: str) -> ServedModel:
        """The model of this name; `NotFoundError` names those there are."""
        model = self.models.get(name)
        if model is None:
            served = ", ".join(repr(known) for known in sorted(self.models)) or "no model yet"
            raise NotFoundError(f"model {name!r} is not served; served now: {served}")
        return model
