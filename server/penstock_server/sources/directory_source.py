"""A folder of ONNX files as a source: `<model>/<version>/model.onnx`; the highest version is the champion.

It serves models that no registry knows, and Triton's model repositories: `<model>/config.pbtxt` may name the file and say which
versions are served (`models.triton_config`). A version may be a chain of models in the place of one (`models.ensemble`).

Versions are whole numbers without leading zeros. Names that begin with a dot,
and files, are ignored. To publish, copy a version to a name that begins with a dot and rename it: otherwise a poll may
find half a copy. A file that is replaced makes another version of the same number: it is loaded again.

It runs in a source's process (`source_process`), since a folder on a network may hang.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Final

from penstock.names import PIPELINE_FILE
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError, UnsupportedError
from penstock_server.models import triton_config
from penstock_server.models.triton_config import MODEL, TritonConfig
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.rollout.registered import Change, Expected
from penstock_server.sources.settings import MAX_VERSIONS, PolicySettings
from penstock_server.sources.source import Desired, VersionFiles

MAX_FILES: Final = 10_000
"""So many files of a version tell its identity."""
_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")


def name_of(folder: Path) -> str:
    """The source's name in logs and in /v1/models."""
    return f"directory {folder.absolute()}"


def check_folder(folder: Path) -> None:
    """Checks that a model repository is there.

    Raises:
        InvalidInputError: it is not, or it is no folder that can be listed.
    """
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise InvalidInputError(
            f"the model repository {folder} cannot be read ({error.strerror}); expected a folder with "
            f"<model>/<version>/{MODEL} in it"
        ) from error


class DirectorySource:
    """What a folder desires; its files are used where they are.

    Args:
        folder: the model repository.
        policy: which versions of the models are served, unless a model's configuration says so.

    Attributes:
        name: its name in logs and in /v1/models.
    """

    def __init__(self, folder: Path, policy: PolicySettings = PolicySettings()) -> None:  # noqa: B008 - frozen
        self._policy = policy
        self._folder = folder.absolute()
        self.name = name_of(folder)
        # What each model's configuration says, while its files are these.
        self._configs: dict[str, tuple[str, TritonConfig | InvalidInputError | None]] = {}

    def poll(self) -> Desired:
        """All that the folder desires now.

        Raises:
            UnavailableError: there is no such folder, or it cannot be read.
        """
        models: dict[str, TrafficPlan] = {}
        problems: dict[str, str] = {}
        identities: dict[str, dict[str, str]] = {}
        for path in self._folders():
            if not path.name.isprintable():
                problems[ascii(path.name)] = (
                    "the folder's name is not printable text, so no request could name the model"
                )
                continue
            problem: str | None
            try:
                config, beside = self._config(path)
                plan, problem = _desired_plan(path, config, self._policy.of(path.name))
                identities[path.name] = {version: _identity(path / version, beside) for version in plan.versions}
                models[path.name] = plan
            except OSError as error:
                problem = f"its folder cannot be read: {error.strerror}"
            except InvalidInputError as error:
                problem = str(error)
            if problem is not None:
                problems[path.name] = problem
        return Desired(models=models, problems=problems, identities=identities)

    def get(self, model: str, version: str, identity: str) -> VersionFiles:
        """The version's own folder; see `fetch`. The identity is what the last poll said of it.

        A file that is replaced meanwhile shows at the next poll, as another identity.
        """
        return VersionFiles(self.fetch(model, version), identity)

    def fetch(self, model: str, version: str) -> Path:
        """The version's own folder.

        Raises:
            NotFoundError: it is not there, or does not hold the model's file.
            InvalidInputError: the model's configuration is damaged, or asks for what is not served.
        """
        folder = self._folder / model / version
        is_plain = model not in ("", ".", "..") and not re.search(r"[/\\\0]", model) and _VERSION.fullmatch(version)
        if not is_plain or not _is_complete(folder, self._config(folder.parent)[0]):
            raise NotFoundError(f"version {version!r} of model {model!r} is not in {self.name}")
        return folder

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:  # noqa: ARG002 - the other source's
        """Nothing can be written to a folder of versions."""
        raise UnsupportedError(
            f"{self.name} is a folder: it has no aliases and tags, so nothing of model {model!r} is written"
        )

    def _config(self, model: Path) -> tuple[TritonConfig | None, str]:
        """A model's configuration, and the identity of the files that it is made of, "" where there are none."""
        if not (model / triton_config.NAME).exists():
            self._configs.pop(model.name, None)
            return None, ""
        beside = _identity_beside(model)
        if (known := self._configs.get(model.name)) is None or known[0] != beside:
            found: TritonConfig | InvalidInputError | None
            try:
                found = triton_config.read(model)
            except InvalidInputError as error:
                found = InvalidInputError(str(error))
            known = self._configs[model.name] = beside, found
        if isinstance(known[1], InvalidInputError):
            raise InvalidInputError(str(known[1]))
        return known[1], beside

    def _folders(self) -> list[Path]:
        try:
            return _visible_folders(self._folder)
        except OSError as error:
            raise UnavailableError(
                f"the model repository {self._folder} cannot be read ({error.strerror}); "
                f"expected a folder with <model>/<version>/{MODEL} in it"
            ) from error


def _desired_plan(model: Path, config: TritonConfig | None, policy: PolicySettings) -> tuple[TrafficPlan, str | None]:
    """The highest complete version as champion, and one sentence if there is none or a higher one cannot be used.

    A configuration, or the policy where there is none, may ask for other versions: the highest of these is the champion, and
    requests may name the others. A pinned version is the champion in any case.
    """
    file = _file_of(config)
    numbers = sorted(
        (int(path.name) for path in _visible_folders(model) if _VERSION.fullmatch(path.name)), reverse=True
    )
    if not numbers:
        return TrafficPlan(), f"there is no version; expected <model>/<version>/{file}, as in {model.name}/1"
    asked, most, problem = _asked(config, numbers, policy)
    complete: list[str] = []
    for number in asked:
        if len(complete) == most:
            break
        if _is_complete(model / str(number), config):
            complete.append(str(number))
        else:
            problem = problem or _unusable(model / str(number), file)
    if not complete:
        return TrafficPlan(), problem or f"no version holds {file} yet"
    champion = complete[0]
    if policy.pinned is not None:
        champion = str(policy.pinned)
        if not _is_complete(model / champion, config):
            raise InvalidInputError(f"policy.pinned names version {champion}, which is not there or holds no {file}")
        if most == 1:
            complete = []
    return TrafficPlan(champion=champion, others=tuple(one for one in complete if one != champion)), problem


def _asked(
    config: TritonConfig | None, numbers: Sequence[int], policy: PolicySettings
) -> tuple[Sequence[int], int, str | None]:
    """The versions to look at, the highest first, how many of them to serve, and which are missing."""
    own = None if config is None else config.message.version_policy
    match None if own is None else own.WhichOneof("policy_choice"):
        case "all":
            return numbers[:MAX_VERSIONS], MAX_VERSIONS, None
        case "specific":
            assert own is not None
            return _named(own.specific.versions, numbers, "version_policy")
        case "latest":
            assert own is not None
            return numbers, min(max(1, own.latest.num_versions), MAX_VERSIONS), None
        case _ if policy.versions:
            return _named([*numbers[: policy.latest], *policy.versions], numbers, "policy.versions")
        case _:
            return numbers, max(1, policy.latest), None


def _named(versions: Iterable[int], numbers: Sequence[int], where: str) -> tuple[Sequence[int], int, str | None]:
    named = set(versions)
    missing = sorted(named - set(numbers))
    problem = f"{where} names version {missing[0]}, which is not there" if missing else None
    return [number for number in numbers if number in named], MAX_VERSIONS, problem


def _file_of(config: TritonConfig | None) -> str:
    return MODEL if config is None else config.model_file


def _is_complete(version: Path, config: TritonConfig | None) -> bool:
    """Whether a version's folder holds what is served; an ensemble of Triton's has all in its configuration."""
    if config is not None and config.is_ensemble:
        return version.is_dir()
    return (version / _file_of(config)).is_file() or (version / PIPELINE_FILE).is_file()


def _unusable(version: Path, file: str) -> str | None:
    """What is wrong with a version's folder; nothing while it is empty, since it may be filled soon."""
    held = sorted(path.name for path in version.iterdir() if not path.name.startswith("."))
    return f"version {version.name} holds {held[0]!a} and no {file}; it is passed over" if held else None


def _identity(version: Path, beside: str = "") -> str:
    """A digest of what tells each file from one that replaces it: its place, size and time of writing.

    What stands beside a model's versions decides how they are served: `beside` is its digest.
    """
    return _digest(version, _files(version), beside)


def _identity_beside(model: Path) -> str:
    """The same of the files of a model that are not its versions'."""
    folders = [path for path in _visible_folders(model) if not _VERSION.fullmatch(path.name)]
    files = sorted(path for path in model.iterdir() if path.is_file())
    return _digest(model, chain(files, *map(_files, folders)))


def _digest(folder: Path, files: Iterable[Path], beside: str = "") -> str:
    described = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape"))
    for path in islice(files, MAX_FILES):
        found = path.stat()
        described.update(
            f"\0{path.relative_to(folder)}\0{found.st_ino} {found.st_size} {found.st_mtime_ns}".encode(
                "utf-8", "surrogateescape"
            )
        )
    described.update(beside.encode())
    return described.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder in a fixed order; links to folders are not followed, they may lead in a circle."""
    for root, below, names in os.walk(folder):
        below.sort()
        yield from (Path(root, name) for name in sorted(names) if Path(root, name).exists())


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
