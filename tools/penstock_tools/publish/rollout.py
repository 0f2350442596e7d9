"""Rollouts for people: declares one on a registered version, commands it, and reads how far it is.

Everything goes through the registry's tags, which the server that acts on rollouts follows: no server has to be reached.
"""

import getpass
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.names import CHAMPION
from penstock_server.control.rollouts import RolloutView, shown
from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.metrics.counters import SCORE_EDGES
from penstock_server.rollout.command import commanded
from penstock_server.rollout.evidence import Evidence, read_evidence
from penstock_server.rollout.gates import Gate, gate_of, interval_of
from penstock_server.rollout.lease import holder_of
from penstock_server.rollout.progress import (
    CANDIDATE,
    COMMAND_TAG,
    EVIDENCE_TAG,
    HISTORY_TAG,
    LEASE_TAG,
    PROGRESS_TAG,
    SPEC_TAG,
    HistoryEntry,
    Progress,
    read_history,
    read_progress,
)
from penstock_server.rollout.registered import DeleteAlias, DeleteTag, RegisteredRollout, SetTag, candidate_of
from penstock_server.rollout.spec import RolloutSpec, as_mapping, of_mapping
from penstock_server.rollout.step import COMMANDS
from penstock_tools.publish.promote import check_version, roles_of
from penstock_tools.publish.registry import opened


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the registry says of one model's rollout.

    Attributes:
        progress: its record; None while no server has begun it.
        evidence: what is on record of it.
        holder: the server that acts on it, "" for none.
    """

    name: str
    version: str
    spec: RolloutSpec
    progress: Progress | None
    evidence: Evidence
    history: tuple[HistoryEntry, ...]
    holder: str

    @property
    def gates(self) -> list[tuple[Gate, tuple[float, float]]]:
        """What each gate says, with the interval that the truth is in."""
        return [
            (
                gate_of(metric, self.spec, self.evidence, SCORE_EDGES),
                interval_of(metric, self.spec, self.evidence, SCORE_EDGES),
            )
            for metric in self.spec.gates
        ]

    def as_record(self) -> dict[str, Any]:
        """The same for `--json`, with the names that a server shows it by."""
        return shown(
            RolloutView(
                self.name,
                self.version,
                self.progress,
                self.history,
                self.holder,
                evidence=self.evidence,
                declared=self.spec,
            )
        )


def read_file(file: Path) -> dict[str, Any]:
    """A declaration in a file of TOML or JSON.

    Raises:
        InvalidInputError: it cannot be read, or is neither.
    """
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{file} is no declaration of a rollout: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"{file} is no declaration of a rollout: expected a table")
    return found


def start(name: str, version: str | int, declared: Mapping[str, Any], registry: str | None = None) -> RolloutSpec:
    """Declares a rollout: the server that acts on rollouts begins it when it next reads the registry.

    Args:
        name: the registered model.
        version: the version that is to become its champion.
        declared: as `rollout.spec.of_mapping` reads it.
        registry: as for `promote`.

    Raises:
        NotFoundError: no such model or version.
        InvalidInputError: the declaration is wrong, the version is the champion, there is none, or another version is being
            rolled out.
        UnavailableError: the registry does not answer.
    """
    spec, version = of_mapping(declared), str(version)
    with opened(registry) as client:
        aliases = roles_of(client, name)
        check_version(client, name, version)
        if aliases.get(CHAMPION) == version:
            raise InvalidInputError(f"version {version} of {name} is its champion already")
        if CHAMPION not in aliases:
            raise InvalidInputError(
                f"{name} has no champion to compare with; run `penstock promote {name} VERSION` first"
            )
        other = aliases.get(CANDIDATE)
        if other is not None and _goes_on(_tags(client, name, other)):
            raise InvalidInputError(
                f"version {other} of {name} is being rolled out; end that with `penstock rollout abort {name}` first"
            )
        for key in (PROGRESS_TAG, EVIDENCE_TAG, HISTORY_TAG, COMMAND_TAG):
            if key in _tags(client, name, version):
                client.delete_model_version_tag(name, version, key)
        client.set_model_version_tag(name, version, SPEC_TAG, json.dumps(as_mapping(spec)))
        client.set_registered_model_alias(name, CANDIDATE, version)
    return spec


def command(name: str, word: str, registry: str | None = None) -> str:
    """Has the server that acts on a model's rollout do something; returns what it was told about.

    Args:
        name: the registered model.
        word: one of `rollout.step.COMMANDS`.
        registry: as for `promote`.

    Raises:
        NotFoundError: no version of it is being rolled out.
        InvalidInputError: there is no such command, or the rollout is over.
        UnavailableError: the registry does not answer.
    """
    if word not in COMMANDS:
        raise InvalidInputError(f"there is no command {word!r}; expected {', '.join(COMMANDS)}")
    with opened(registry) as client:
        found = _found(client, name)
        version = found.version
        registered = RegisteredRollout(version, roles_of(client, name), _tags(client, name, version))
        for change in commanded(name, registered, word, getpass.getuser()):
            match change:
                case SetTag(version, key, value):
                    client.set_model_version_tag(name, version, key, value)
                case DeleteTag(version, key):
                    client.delete_model_version_tag(name, version, key)
                case DeleteAlias(alias):
                    client.delete_registered_model_alias(name, alias)
        if found.progress is None:
            return f"version {version}, whose rollout had not begun"
        return f"version {version}, which is at {found.progress.present}"


def status(name: str, registry: str | None = None) -> Rollout:
    """What the registry says of a model's rollout; of the last one where none goes on.

    Raises:
        NotFoundError: no such model, or no version of it has been rolled out.
        UnavailableError: the registry does not answer.
    """
    with opened(registry) as client:
        return _found(client, name)


def _found(client: Any, name: str) -> Rollout:
    aliases = roles_of(client, name)
    quoted = name.replace("'", "\\'")
    versions = client.search_model_versions(f"name='{quoted}'", max_results=200)
    tags = {str(each.version): {str(key): str(value) for key, value in each.tags.items()} for each in versions}
    newest = max(tags, key=int, default="")
    version = candidate_of(aliases, newest, tags.get(newest, {})) or max(
        (each for each, own in tags.items() if PROGRESS_TAG in own), key=int, default=None
    )
    if version is None or version not in tags:
        raise NotFoundError(
            f"no version of {name} is being rolled out; `penstock rollout start {name} VERSION` begins one"
        )
    own = tags[version]
    progress = read_progress(own[PROGRESS_TAG]) if PROGRESS_TAG in own else None
    declared = json.loads(own[SPEC_TAG]) if own.get(SPEC_TAG, "").startswith("{") else {}
    lease = client.get_registered_model(name).tags.get(LEASE_TAG, "")
    return Rollout(
        name,
        version,
        of_mapping(declared) if progress is None else progress.spec,
        progress,
        read_evidence(own[EVIDENCE_TAG]) if EVIDENCE_TAG in own else Evidence(),
        tuple(read_history(own.get(HISTORY_TAG, "[]"))),
        holder_of(lease),
    )


def _tags(client: Any, name: str, version: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in client.get_model_version(name, version).tags.items()}


def _goes_on(tags: Mapping[str, str]) -> bool:
    try:
        return PROGRESS_TAG in tags and not read_progress(tags[PROGRESS_TAG]).has_ended
    except InvalidInputError:
        return False
