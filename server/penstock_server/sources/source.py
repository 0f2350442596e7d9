"""The interface of a source of models: it states the desired plans and hands out the versions' files.

A source always states all that it desires, so the next poll repairs a missed one. `control.reconcile` decides which
versions are loaded for it, and `control.watcher` how often it is polled.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from penstock_server.rollout.plan import TrafficPlan


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that one source desires at one moment.

    There are three cases per model. In `models`: that is the desired plan, whatever `problems` says. Only in
    `problems`: the source does not know, and the former plan holds (`keeping`). In neither: the model is to be
    unloaded.

    Attributes:
        models: the desired plan by model name; a plan without versions serves nothing.
        problems: one sentence by model name for each model with which something is wrong.
    """

    models: Mapping[str, TrafficPlan] = msgspec.field(default_factory=dict)
    problems: Mapping[str, str] = msgspec.field(default_factory=dict)

    def keeping(self, former: "Desired") -> "Desired":
        """This state, with the former plan of every model that is only in `problems`."""
        kept = {name: former.models[name] for name in self.problems if name in former.models}
        return Desired(models={**kept, **self.models}, problems=self.problems)


class Source(Protocol):
    """States which versions are desired, and hands out their files. Calls block; use a thread."""

    @property
    def name(self) -> str:
        """Its name in logs and in /v1/models; holds no secrets."""
        ...

    def poll(self) -> Desired:
        """All that is desired now.

        Raises:
            UnavailableError: the source does not answer; the last known state holds.
        """
        ...

    def fetch(self, model: str, version: str) -> Path:
        """A local folder with the version's files, for `artifact.read`.

        Raises:
            NotFoundError: there is no such version.
            InvalidInputError: there is one and it cannot be used.
            UnavailableError: the source does not answer, and there is no local copy.
        """
        ...
