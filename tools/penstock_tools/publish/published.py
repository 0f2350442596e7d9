"""A published version that a command names: by its folder, or by its name in the registry."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock_server.errors import InvalidInputError
from penstock_server.models import artifact
from penstock_server.models.artifact import Artifact
from penstock_tools.publish import logged

_NAME: Final = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>.+)|/(?P<version>.+))?")


@contextmanager
def version(model: str, registry: str | None) -> Iterator[Artifact]:
    """A version's files; those of the registry are fetched, and removed afterwards.

    Args:
        model: a folder; or NAME for the champion of that name, NAME@ALIAS or NAME/VERSION.
        registry: where it is kept; None for `MLFLOW_TRACKING_URI`, else a local file.

    Raises:
        InvalidInputError: it is neither, or its files are damaged.
        NotFoundError: there is no such model, version or alias.
        UnavailableError: the registry or the store of its files does not answer.
    """
    if Path(model).is_dir():
        yield artifact.read(Path(model))
        return
    found = _NAME.fullmatch(model)
    if found is None:
        raise InvalidInputError(f"{model!r} is no folder and no model; expected NAME, NAME@ALIAS or NAME/VERSION")
    which = f"/{found['version']}" if found["version"] else f"@{found['alias'] or 'champion'}"
    with logged.fetched(f"models:/{found['name']}{which}", registry) as fetched:
        yield artifact.read(fetched.folder)


def name_of(model: str) -> str | None:
    """The model's name, of what `version` takes; None for a folder.

    >>> name_of("fraud@canary"), name_of("fraud/3"), name_of("fraud"), name_of(".")
    ('fraud', 'fraud', 'fraud', None)
    """
    if Path(model).is_dir():
        return None
    found = _NAME.fullmatch(model)
    return model if found is None else found["name"]
