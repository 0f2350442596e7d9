"""What a registry says of a rollout, and what is to be written there: plain records between the sources and the controller."""

from collections.abc import Mapping

import msgspec

from penstock.names import CHAMPION
from penstock_server.rollout.progress import CANDIDATE, PROGRESS_TAG, SPEC_TAG

TAG_PREFIX = "penstock."
REFUSED_TAG = "penstock.refused"
"""The tag of a version that says why a server refuses it."""


class RegisteredRollout(msgspec.Struct, frozen=True):
    """A model with a version that is rolled out, or declares that it is to be.

    Attributes:
        version: that version.
        aliases: the model's aliases, each with its version.
        tags: those of the version's tags that are Penstock's.
        lease: the model's tag that says who acts on it.
    """

    version: str
    aliases: Mapping[str, str]
    tags: Mapping[str, str]
    lease: str = ""


class SetAlias(msgspec.Struct, frozen=True, tag=True):
    alias: str
    version: str


class DeleteAlias(msgspec.Struct, frozen=True, tag=True):
    alias: str


class SetTag(msgspec.Struct, frozen=True, tag=True):
    """Sets a tag of a version; of the model where `version` is ""."""

    version: str
    key: str
    value: str


class DeleteTag(msgspec.Struct, frozen=True, tag=True):
    """Deletes a tag of a version; of the model where `version` is ""."""

    version: str
    key: str


Change = SetAlias | DeleteAlias | SetTag | DeleteTag


class Expected(msgspec.Struct, frozen=True):
    """What must be true of a model when something is written: else somebody else wrote meanwhile, and nothing is.

    Attributes:
        tags: of the model's own tags some with their values; "" for one that is not there.
        version: the version that the next two are about; "" where only the model's tags are expected.
        progress: its record; "" for none.
        champion: the champion; "" for none.
        champion_alias: the alias by which it is champion in the registry.
    """

    tags: Mapping[str, str]
    version: str = ""
    progress: str = ""
    champion: str = ""
    champion_alias: str = CHAMPION

    def unmet(self, model_tags: Mapping[str, str], aliases: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """What is otherwise, in a few words; "" if nothing is."""
        for key, value in self.tags.items():
            if model_tags.get(key, "") != value:
                return f"the model's tag '{key}' is another one"
        if self.version and tags.get(PROGRESS_TAG, "") != self.progress:
            return f"the tag '{PROGRESS_TAG}' of version {self.version} is another one"
        if self.version and aliases.get(self.champion_alias, "") != self.champion:
            return "the champion is another one"
        return ""


def candidate_of(aliases: Mapping[str, str], newest: str, newest_tags: Mapping[str, str]) -> str | None:
    """The version that is rolled out, or was last: the one with the alias, or the newest if it declares a rollout."""
    named = aliases.get(CANDIDATE)
    return named if named is not None else newest if SPEC_TAG in newest_tags else None
