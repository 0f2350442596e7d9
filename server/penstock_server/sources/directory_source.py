"""A folder of ONNX files as a source: `<model>/<version>/model.onnx`; the highest version is the champion.

It serves models that no registry knows. Versions are whole numbers without leading zeros. Names that begin with a dot,
and files, are ignored. To publish, copy a version to a name that begins with a dot and rename it: otherwise a poll may
find half a copy. A file that is replaced makes another version of the same number: it is loaded again.

It runs in a source's process (`source_process`), since a folder on a network may hang.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import Desired, VersionFiles

MAX_FILES: Final = 10_000
"""So many files of a version tell its identity."""
_MODEL_FILE = "model.onnx"
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
            f"<model>/<version>/{_MODEL_FILE} in it"
        ) from error


class DirectorySource:
    """What a folder desires; its files are used where they are.

    Attributes:
        name: its name in logs and in /v1/models.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.name = name_of(folder)

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
            try:
                plan, problem = _desired_plan(path)
                identities[path.name] = {version: _identity(path / version) for version in plan.versions}
                models[path.name] = plan
            except OSError as error:
                problem = f"its folder cannot be read: {error.strerror}"
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
            NotFoundError: it is not there, or holds no `model.onnx`.
        """
        folder = self._folder / model / version
        is_plain = model not in ("", ".", "..") and not re.search(r"[/\\\0]", model) and _VERSION.fullmatch(version)
        if not is_plain or not (folder / _MODEL_FILE).is_file():
            raise NotFoundError(f"version {version!r} of model {model!r} is not in {self.name}")
        return folder

    def _folders(self) -> list[Path]:
        try:
            return _visible_folders(self._folder)
        except OSError as error:
            raise UnavailableError(
                f"the model repository {self._folder} cannot be read ({error.strerror}); "
                f"expected a folder with <model>/<version>/{_MODEL_FILE} in it"
            ) from error


def _desired_plan(model: Path) -> tuple[TrafficPlan, str | None]:
    """The highest complete version as champion, and one sentence if there is none or a higher one cannot be used."""
    versions = sorted((int(path.name), path) for path in _visible_folders(model) if _VERSION.fullmatch(path.name))
    if not versions:
        return TrafficPlan(), f"there is no version; expected <model>/<version>/{_MODEL_FILE}, as in {model.name}/1"
    unusable = None
    for number, path in reversed(versions):
        if (path / _MODEL_FILE).is_file():
            return TrafficPlan(champion=str(number)), unusable
        unusable = unusable or _unusable(path)
    return TrafficPlan(), unusable or f"no version holds {_MODEL_FILE} yet"


def _unusable(version: Path) -> str | None:
    """What is wrong with a version's folder; nothing while it is empty, since it may be filled soon."""
    held = sorted(path.name for path in version.iterdir() if not path.name.startswith("."))
    return f"version {version.name} holds {held[0]!a} and no {_MODEL_FILE}; it is passed over" if held else None


def _identity(version: Path) -> str:
    """A digest of what tells each file from one that replaces it: its place, size and time of writing."""
    described = hashlib.sha256(str(version).encode("utf-8", "surrogateescape"))
    for count, path in enumerate(_files(version)):
        if count >= MAX_FILES:
            break
        found = path.stat()
        described.update(
            f"\0{path.relative_to(version)}\0{found.st_ino} {found.st_size} {found.st_mtime_ns}".encode(
                "utf-8", "surrogateescape"
            )
        )
    return described.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder in a fixed order; links to folders are not followed, they may lead in a circle."""
    for root, below, names in os.walk(folder):
        below.sort()
        yield from (Path(root, name) for name in sorted(names) if Path(root, name).exists())


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
