"""Models that somebody else keeps: artifacts of Weights & Biases, and files in stores such as S3, LakeFS and Vertex AI's.

    wandb:ENTITY/PROJECT/NAME:VERSION      VERSION is v3, or an alias such as latest
    s3://bucket/folder                     whatever fsspec reaches, as a file or a folder

`files` publishes what is fetched as it would a local file, or a folder that MLflow wrote. Nothing of the model runs here.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError, first_line
from penstock_server.sources.registry import redacted
from penstock_tools.sklearn_compiler.load import SUFFIXES

_WANDB: Final = re.compile(r"wandb:/*([^/]+/[^/]+/[^/:]+:[^/:]+)")
# A path of pathlib keeps one slash of two.
_STORE: Final = re.compile(r"([a-z][a-z0-9+]+):/+(.+)")
_NOT_STORES: Final = frozenset({"models", "runs", "wandb"})
_MODELS: Final = frozenset(SUFFIXES | {".onnx"})
_MLFLOW: Final = "MLmodel"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at an address.

    Attributes:
        address: where it is from, with its number in place of an alias.
        path: its one file, or its folder.
        link: the page of the run that made it; None where that is not known.
    """

    address: str
    path: Path
    link: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder in it that MLflow wrote; None where there is none."""
        found = sorted(self.path.rglob(_MLFLOW)) if self.path.is_dir() else []
        return found[0].parent if found else None

    def model(self) -> Path:
        """Its one file of a pipeline or a graph.

        Raises:
            InvalidInputError: there is none, or several.
        """
        every = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        found = [path for path in every if path.suffix in _MODELS and path.is_file()]
        if len(found) != 1:
            names = ", ".join(path.name for path in every if path.is_file()) or "nothing"
            raise InvalidInputError(
                f"{self.address} holds {names}; expected one model ({', '.join(sorted(_MODELS))}), or a folder of MLflow's"
            )
        return found[0]


def is_address(text: str) -> bool:
    """Whether this names what somebody else keeps.

    >>> [is_address(text) for text in ("wandb:team/churn/model:v3", "s3://bucket/model.onnx", "models:/churn/3", "churn.skops")]
    [True, True, False, False]
    """
    store = _STORE.fullmatch(text)
    return text.startswith("wandb:") or (store is not None and store[1] not in _NOT_STORES)


@contextmanager
def fetched(address: str) -> Iterator[Fetched]:
    """What is at the address, in a folder that is removed afterwards.

    Raises:
        InvalidInputError: it is no address, or nothing installed reaches it.
        NotFoundError: there is nothing.
        UnavailableError: its keeper does not answer, or wants to know who asks.
        ModuleNotFoundError: `wandb`, or fsspec, is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        yield _artifact(address, Path(scratch)) if address.startswith("wandb:") else _stored(address, Path(scratch))


def _artifact(address: str, scratch: Path) -> Fetched:
    named = _WANDB.fullmatch(address)
    if named is None:
        raise InvalidInputError(f"{address} is no artifact; expected wandb:ENTITY/PROJECT/NAME:VERSION")
    import wandb
    from wandb.errors import Error, UsageError

    try:
        artifact = wandb.Api().artifact(named[1])
        artifact.download(str(scratch / "artifact"))
        run = artifact.logged_by()
    except (Error, UsageError, ValueError, OSError) as error:
        said = first_line(error)
        if "not found" in said or "does not exist" in said:
            raise NotFoundError(f"there is no {address}: {said}") from error
        raise UnavailableError(f"{address} cannot be fetched: {said}") from error
    # A team's names stay, and the alias becomes the version that it stood for.
    number = f"wandb:{named[1].rpartition(':')[0]}:{artifact.version}"
    return Fetched(number, scratch / "artifact", None if run is None else run.url)


def _stored(address: str, scratch: Path) -> Fetched:
    import fsspec

    found = _STORE.fullmatch(address)
    assert found is not None
    whole = f"{found[1]}://{found[2]}"
    shown = redacted(whole)
    try:
        files, path = fsspec.core.url_to_fs(whole)
        names = files.find(path) if files.isdir(path) else [path]
        target = scratch / "stored"
        for name in names:
            inside = PurePosixPath(name).relative_to(path) if name != path else PurePosixPath(PurePosixPath(path).name)
            if ".." in inside.parts or inside.is_absolute():
                raise InvalidInputError(f"{shown} holds {name!r}, which is no name of a file in it")
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            files.get_file(name, str(target / inside))
    except (PenstockError, ModuleNotFoundError):
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {shown}") from error
    except (ImportError, ValueError) as error:
        raise InvalidInputError(f"{shown} cannot be reached: {first_line(error)}") from error
    except Exception as error:
        # Each store raises its own classes.
        raise UnavailableError(f"{shown} cannot be fetched: {first_line(error)}") from error
    return Fetched(shown, target if len(names) != 1 or names[0] != path else target / PurePosixPath(path).name)


@contextmanager
def local(path: Path | None) -> Iterator[Path | None]:
    """The file, fetched first if it is in a store of objects, as rows may be."""
    if path is None or not is_address(str(path)):
        yield path
        return
    with fetched(str(path)) as found:
        yield found.path
