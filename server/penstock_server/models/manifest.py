"""The manifest of a published version: the digests of the files that decide its answers, its classes, and how it is run.

This module defines `penstock/manifest.json` and checks the folder against it. `artifact` knows what the files mean.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from penstock_server.batching.limits import Batching
from penstock_server.errors import InvalidInputError
from penstock_server.models import strict_json, version_folder

NAME = "penstock/manifest.json"
MAX_BYTES = 64 * 2**20
MAX_FILES = 10_000
MAX_CLASSES = 100_000
MAX_THREADS = 1024

ClassLabel = str | int

GraphOptimization = Literal["none", "basic", "extended", "all"]
"""How much onnxruntime may rewrite a graph when it opens it."""

# MLflow writes these files next to the model and may rewrite them after publishing; they change no answer.
_MLFLOW_FILES = frozenset(
    {
        "MLmodel",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "registered_model_meta",
        "environment_variables.txt",
    }
)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `penstock/manifest.json`.

    Attributes:
        files: Digest (`sha256:` and 64 hexadecimal digits) of each file that decides the answers, by its path relative
            to the version's folder; the manifest itself is not among them.
        created: When it was written, with a time zone.
        class_output: The model output that holds the predicted class, if it is a classifier.
        classes: The classes' labels in the order of the model's probabilities.
        batching: "rows" or "request", where the publisher says whether requests share batches; None leaves it to the
            server's probe.
        threads: Onnxruntime's threads within one operator, where the publisher found how many are best; None leaves them to
            the settings.
        graph_optimization: How much onnxruntime rewrites the graph; None for all that it can.
        format: The version of the file's format.
    """

    files: Mapping[str, Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]]
    created: Annotated[datetime, msgspec.Meta(tz=True)]
    class_output: str | None = None
    classes: tuple[ClassLabel, ...] | None = None
    batching: Batching | None = None
    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)] | None = None
    graph_optimization: GraphOptimization | None = None
    format: int = strict_json.FORMAT

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILES:
            raise InvalidInputError(f"names {len(self.files):,} files; expected at most {MAX_FILES:,}")
        if self.classes is not None:
            _check_classes(self.classes)


_manifests: Final = msgspec.json.Decoder(Manifest)


def decode(raw: bytes) -> Manifest:
    """The manifest that these bytes hold.

    Raises:
        InvalidInputError: They are not a manifest of this format.
    """
    return strict_json.decode(raw, _manifests)


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON: people read it in MLflow's pages."""
    fields = msgspec.to_builtins(manifest)
    for name in ("batching", "threads", "graph_optimization"):
        if fields[name] is None:
            # Servers before this field refuse a manifest that has it.
            del fields[name]
    return msgspec.json.format(msgspec.json.encode(fields), indent=2)


def digests(folder: Path, *, besides: Iterable[str] = ()) -> dict[str, str]:
    """The digest of every file of `folder` that decides the model's answers, external tensor data included.

    Args:
        folder: A folder as `mlflow.onnx.save_model` writes it.
        besides: Names to leave out in addition to MLflow's own files.

    Raises:
        InvalidInputError: A file cannot be read or is a link that leaves the folder.
    """
    left_out = _MLFLOW_FILES.union(besides)
    names = [name for name in version_folder.file_names(folder) if name not in left_out]
    return {name: version_folder.file_digest(folder, name) for name in names}


def named(folder: Path) -> Mapping[str, str]:
    """The digests that the manifest of a folder names, by file; none if there is no manifest, or none that can be read."""
    try:
        return decode(version_folder.read_bytes(folder, NAME, max_bytes=MAX_BYTES)).files
    except InvalidInputError:
        return {}


def verify(manifest: Manifest, folder: Path, *, known: Mapping[str, str]) -> None:
    """Checks that each file that the manifest names is there and unchanged.

    Args:
        manifest: The manifest.
        folder: The version's folder.
        known: Digests by name, computed from the bytes that are used; these files are not read again.

    Raises:
        InvalidInputError: One is missing, has changed, or is outside the folder.
    """
    for name, expected in manifest.files.items():
        found = known.get(name) or version_folder.file_digest(folder, name)
        if found != expected:
            raise InvalidInputError(
                f"file {version_folder.shown(name)} has changed since it was published: "
                f"its digest is {found}; the manifest expects {expected}"
            )


def _check_classes(classes: tuple[ClassLabel, ...]) -> None:
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise InvalidInputError(f"classes holds {len(classes):,} labels; expected 1 to {MAX_CLASSES:,}")
    # Labels become label values of a metric, where 1 and "1" are the same.
    if len({str(label) for label in classes}) != len(classes):
        raise InvalidInputError("classes names a label twice; expected each once")
