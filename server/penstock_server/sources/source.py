"""The interface of a source of models: it states the desired plans and hands out the versions' files.

A source always states all that it desires, so the next poll repairs a missed one. `control.reconcile` decides which
versions are loaded for it, and `control.watcher` how often it is polled.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from penstock_server.leases import Lease
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.rollout.registered import Change, Expected, RegisteredRollout


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that one source desires at one moment.

    There are three cases per model. In `models`: that is the desired plan, whatever `problems` says. Only in
    `problems`: the source does not know, and the former plan holds (`keeping`). In neither: the model is to be
    unloaded.

    Attributes:
        models: the desired plan by model name; a plan without versions serves nothing.
        problems: one sentence by model name for each model with which something is wrong, or that is registered and not
            served.
        identities: the identity of each version of the plans, by model and version. A version that is registered anew
            under the same name and number has another one. It may be missing, in files of an earlier release or where a
            source does not know it.
        rollouts: each model's version that is being rolled out, with what the registry says of that.
        model_tags: those of each model's own tags that are Penstock's; without models that have none.
        refused: the tag of each version of the plans that says why a server refuses it; without those that have none.
    """

    models: Mapping[str, TrafficPlan] = msgspec.field(default_factory=dict)
    problems: Mapping[str, str] = msgspec.field(default_factory=dict)
    identities: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    rollouts: Mapping[str, RegisteredRollout] = msgspec.field(default_factory=dict)
    model_tags: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    refused: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)

    def identity(self, model: str, version: str) -> str:
        """The version's identity, "" if it is unknown."""
        return self.identities.get(model, {}).get(version, "")

    def keeping(self, former: "Desired") -> "Desired":
        """This state, with the former plan of every model that is only in `problems`."""
        return self._with(former, [name for name in self.problems if name in former.models and name not in self.models])

    def doubting(self, former: "Desired", doubted: AbstractSet[str]) -> "tuple[Desired, frozenset[str]]":
        """This state, except that a model that was served and is gone from it is kept once.

        A list may lack models because it is empty, cut short, or of a registry that is being restored. So the loss of a
        model is believed only when the next poll says so again. An alias that was taken away is no loss: the model is
        still listed.

        Args:
            former: the state before.
            doubted: the models that were kept for this reason last time.

        Returns:
            The state to follow, and the models that are kept now.
        """
        gone = (
            {name for name, plan in former.models.items() if plan.versions} - self.models.keys() - self.problems.keys()
        )
        kept = frozenset(gone - doubted)
        return self._with(former, sorted(kept)), kept

    def _with(self, former: "Desired", names: "list[str]") -> "Desired":
        """This state, with the former plans of these models, which have none in it."""
        plans = {name: former.models[name] for name in names}
        identities = {name: former.identities[name] for name in names if name in former.identities}
        rollouts = {name: former.rollouts[name] for name in names if name in former.rollouts}
        model_tags = {name: former.model_tags[name] for name in names if name in former.model_tags}
        refused = {name: former.refused[name] for name in names if name in former.refused}
        return Desired(
            {**plans, **self.models},
            self.problems,
            {**identities, **self.identities},
            {**rollouts, **self.rollouts},
            {**model_tags, **self.model_tags},
            {**refused, **self.refused},
        )


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """A version's files.

    Attributes:
        folder: where they are.
        identity: what they are; "" if the source cannot tell.
        lease: keeps them from being deleted; None where nothing deletes them.
    """

    folder: Path
    identity: str
    lease: Lease | None = field(default=None, compare=False)


class Source(Protocol):
    """States which versions are desired, and hands out their files, without ever blocking the event loop."""

    @property
    def name(self) -> str:
        """Its name in logs and in /v1/models; holds no secrets."""
        ...

    async def poll(self) -> Desired:
        """All that is desired now.

        Raises:
            UnavailableError: the source does not answer; the last known state holds.
        """
        ...

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        """A local folder with the files of this identity, for `artifact.read`; "" takes what there is.

        Raises:
            NotFoundError: there is no such version.
            InvalidInputError: there is one and it cannot be used.
            UnavailableError: the source does not answer, and there is no local copy.
        """
        ...

    async def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        """Makes changes in their order, if what is expected is true.

        Raises:
            UnavailableError: the source does not answer, or somebody else wrote meanwhile.
            InvalidInputError: it refuses.
            UnsupportedError: nothing can be written to such a source.
        """
        ...

    async def close(self) -> None:
        """Ends what it runs; calls that wait fail."""
        ...
