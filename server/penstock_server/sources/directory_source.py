"""A folder of ONNX files as a source: `<model>/<version>/model.onnx`; the highest version is the champion.

It serves models that no registry knows. Versions are whole numbers without leading zeros. Names that begin with a dot,
and files, are ignored. To publish, copy a version to a name that begins with a dot and rename it: otherwise a poll may
find half a copy.
"""

import re
from pathlib import Path

from penstock_server.errors import NotFoundError, UnavailableError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import Desired

_MODEL_FILE = "model.onnx"
_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")


class DirectorySource:
    """What a folder desires; its files are used where they are.

    Attributes:
        name: its name in logs and in /v1/models.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.name = f"directory {self._folder}"

    def poll(self) -> Desired:
        """All that the folder desires now.

        Raises:
            UnavailableError: there is no such folder, or it cannot be read.
        """
        models: dict[str, TrafficPlan] = {}
        problems: dict[str, str] = {}
        for path in self._folders():
            if not path.name.isprintable():
                problems[ascii(path.name)] = (
                    "the folder's name is not printable text, so no request could name the model"
                )
                continue
            try:
                models[path.name], problem = _desired_plan(path)
            except OSError as error:
                problem = f"its folder cannot be read: {error.strerror}"
            if problem is not None:
                problems[path.name] = problem
        return Desired(models=models, problems=problems)

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


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
