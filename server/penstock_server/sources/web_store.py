"""A version below an address of http or https: any web server, bucket or repository of packages that hands out plain files.

HTTP has no list of files, so the manifest names them. Without one there are the graph and perhaps MLflow's description.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.models import manifest
from penstock_server.models.version_folder import MAX_NAME_CHARS, shown
from penstock_server.sources.budget import Budget
from penstock_server.sources.http_session import HttpSession

STORE: Final = "artifact store"
_DESCRIPTION: Final = "MLmodel"
_GRAPH: Final = "model.onnx"


class WebStore:
    """The files below one address.

    Args:
        session: calls to the address.
        query: what each request has after its `?`, such as a signature; "" for nothing.
    """

    def __init__(self, session: HttpSession, query: str) -> None:
        self._session = session
        self._query = dict(parse_qsl(query, keep_blank_values=True))
        self._folders: dict[str, dict[str, bool]] | None = None
        self._read: dict[str, bytes] = {}

    def entries(self, below: str) -> list[tuple[str, bool, int]]:
        """A folder's entries; how large they are, nobody knows before."""
        if self._folders is None:
            self._folders = _folders(self._listed())
        return [(name, is_folder, 0) for name, is_folder in sorted(self._folders.get(below, {}).items())]

    def download(self, path: str, target: Path, budget: Budget) -> None:
        """Fetches a file, and counts its bytes."""
        with target.open("xb") as file:
            if path in self._read:
                budget.add(len(self._read[path]))
                file.write(self._read[path])
                return
            for chunk in self._session.stream(f"/{quote(path)}", self._query, f"its file {shown(path)}"):
                budget.add(len(chunk))
                file.write(chunk)

    def _listed(self) -> Sequence[str]:
        described = (_DESCRIPTION,) if self._has(_DESCRIPTION) else ()
        if not self._has(manifest.NAME):
            return (*described, _GRAPH)
        try:
            files = manifest.decode(self._read[manifest.NAME]).files
        except InvalidInputError as error:
            raise InvalidInputError(f"its file {manifest.NAME} does not say which files there are: {error}") from error
        return (*described, manifest.NAME, *files)

    def _has(self, name: str) -> bool:
        """Whether a file is there; it is kept."""
        try:
            self._read[name] = self._session.get(f"/{name}", self._query, f"its file {shown(name)}")
        except NotFoundError:
            return False
        return True


def _folders(names: Sequence[str]) -> dict[str, dict[str, bool]]:
    """The entries of each folder: their names, and whether each is a folder."""
    found: dict[str, dict[str, bool]] = {}
    for name in names:
        if len(name) > MAX_NAME_CHARS:
            raise InvalidInputError(f"it has a file named {shown(name)}; expected {MAX_NAME_CHARS} characters at most")
        parts = name.split("/")
        for depth, part in enumerate(parts):
            found.setdefault("/".join(parts[:depth]), {})[part] = depth < len(parts) - 1
    return found
