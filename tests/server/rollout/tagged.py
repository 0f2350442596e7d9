"""A registered model as the rollout's steps see it: aliases and tags that changes are made to, all or the first few."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.names import CHAMPION
from penstock_server.rollout.aliases import WEIGHT_TAG
from penstock_server.rollout.progress import LEASE_TAG, PROGRESS_TAG, Progress, read_progress
from penstock_server.rollout.registered import Change, DeleteAlias, DeleteTag, RegisteredRollout, SetAlias, SetTag


@dataclass
class TaggedModel:
    """One model with a champion 1 and a candidate 2."""

    aliases: dict[str, str] = field(default_factory=lambda: {CHAMPION: "1", "candidate": "2"})
    tags: dict[str, str] = field(default_factory=dict)
    model_tags: dict[str, str] = field(default_factory=dict)
    champions: list[str] = field(default_factory=lambda: ["1"])

    @property
    def found(self) -> RegisteredRollout:
        return RegisteredRollout("2", dict(self.aliases), dict(self.tags), self.model_tags.get(LEASE_TAG, ""))

    @property
    def progress(self) -> Progress:
        return read_progress(self.tags[PROGRESS_TAG])

    @property
    def weight(self) -> str | None:
        return self.tags.get(WEIGHT_TAG) if self.aliases.get("canary") == "2" else None

    def make(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change:
                case SetAlias(alias, version):
                    self.aliases[alias] = version
                    if alias == CHAMPION:
                        self.champions.append(version)
                case DeleteAlias(alias):
                    self.aliases.pop(alias, None)
                case SetTag(version, key, value):
                    (self.tags if version else self.model_tags)[key] = value
                case DeleteTag(version, key):
                    (self.tags if version else self.model_tags).pop(key, None)
