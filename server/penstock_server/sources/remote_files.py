"""Fetches a version from an artifact store over the network: names and sizes are listed first, then each file comes.

The artifacts of an MLflow server (`mlflow-artifacts:`) are fetched without mlflow, and so are those of a plain web server
(`web_store`); S3 and the like by mlflow.
"""

import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import manifest
from penstock_server.models.version_folder import shown
from penstock_server.sources.budget import Budget
from penstock_server.sources.http_session import HttpSession, needs_mlflow
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.web_store import STORE, WebStore

_ENDPOINT: Final = "/api/2.0/mlflow-artifacts/artifacts"
_WEB: Final = ("http", "https")
FIRST: Final = "MLmodel"
"""The file that comes first: it says whether the rest is worth fetching. The manifest is next: what it names by a digest that
is on this machine already is not fetched."""


class Store(Protocol):
    """Lists a version's files, and fetches one."""

    def entries(self, below: str) -> list[tuple[str, bool, int]]:
        """A folder's entries: name, whether it is a folder, and bytes."""
        ...

    def download(self, path: str, target: Path, budget: Budget) -> None:
        """Fetches a file to `target`, and counts its bytes."""
        ...


class ServerStore:
    """The artifacts that an MLflow server hands out itself, below one of its paths.

    Args:
        session: calls to the server.
        root: the path, without slashes at its ends.
    """

    def __init__(self, session: HttpSession, root: str) -> None:
        self._session = session
        self._root = root

    def entries(self, below: str) -> list[tuple[str, bool, int]]:
        body = self._session.get(_ENDPOINT, {"path": _joined(self._root, below)}, "the list of its files")
        try:
            found = _listings.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UnavailableError("the artifact store answers with something else than a list of files") from error
        return [(one.path, one.is_dir, one.file_size) for one in found.files]

    def download(self, path: str, target: Path, budget: Budget) -> None:
        address = f"{_ENDPOINT}/{quote(_joined(self._root, path))}"
        with target.open("xb") as file:
            for chunk in self._session.stream(address, {}, f"its file {shown(path)}"):
                budget.add(len(chunk))
                file.write(chunk)


class MlflowStore:
    """Any store that mlflow knows."""

    def __init__(self, client: RegistryClient, uri: str) -> None:
        self._client = client
        self._uri = uri

    def entries(self, below: str) -> list[tuple[str, bool, int]]:
        found = self._client.list_artifacts(self._uri, below)
        start = f"{below}/" if below else ""
        return [(path.removeprefix(start), is_folder, size) for path, is_folder, size in found]

    def download(self, path: str, target: Path, budget: Budget) -> None:
        root = Path(str(target).removesuffix(path))
        with _files_up_to(budget.bytes_left):
            self._client.download_artifact(self._uri, path, root)
        if target.is_symlink() or not target.is_file():
            raise InvalidInputError(f"its file {shown(path)} is not where the artifact store should have put it")
        budget.add(target.stat().st_size)


class _File(msgspec.Struct):
    path: str
    is_dir: bool = False
    file_size: int = 0


class _Listing(msgspec.Struct):
    files: list[_File] = []


_listings: Final = msgspec.json.Decoder(_Listing)


def download(
    store: Store,
    target: Path,
    budget: Budget,
    inspect: Callable[[Path], None],
    take: Callable[[str, Path], bool] = lambda _digest, _target: False,
) -> None:
    """Fetches a version into the empty folder `target`.

    Args:
        store: where it is.
        target: where it goes.
        budget: its bounds.
        inspect: looks into `target` once `MLmodel` is there, and raises if the rest is not worth fetching.
        take: makes a path the file of a digest, if that is on this machine already; whether it is.

    Raises:
        InvalidInputError: it is no folder, names what is no plain file, or is too large.
        UnavailableError: the store does not answer.
    """
    files = list(_walk(store, "", budget, 0))
    if not files:
        raise InvalidInputError("its source holds no files; expected the folder of an MLflow model")
    ordered = sorted(files, key=lambda path: (path != FIRST, path != manifest.NAME))
    digests: Mapping[str, str] = {}
    for index, path in enumerate(ordered):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        if path in digests and take(digests[path], target / path):
            budget.add((target / path).stat().st_size)
        else:
            store.download(path, target / path, budget)
        if index == 0:
            inspect(target)
        if path == manifest.NAME:
            digests = manifest.named(target)


def store_of(uri: str, registry: str, client: RegistryClient) -> Store:
    """The store that an address names.

    A path of the registry's own server is asked with the registry's credentials, any other server without.

    Args:
        uri: where the version's files are; no path of this machine.
        registry: the registry's address.
        client: mlflow's client of it, which knows all other stores.
    """
    address, asked = urlsplit(uri), urlsplit(registry)
    if address.scheme == "mlflow-artifacts" and asked.scheme in _WEB:
        # As mlflow does: the registry's own artifacts are below its path, those of another server below none.
        host, below = (address.netloc, "") if address.netloc else (asked.netloc, asked.path.rstrip("/"))
        found = urlunsplit((asked.scheme, host, f"{below}{_ENDPOINT}/{quote(address.path.strip('/'))}", "", ""))
    elif address.scheme in _WEB:
        found = uri
    else:
        return MlflowStore(client, uri)
    server, is_mlflow, path = found.partition(_ENDPOINT)
    is_registrys = _place(found) == _place(registry)
    if not is_mlflow:
        return WebStore(HttpSession(uri, name=STORE), address.query)
    if is_registrys and needs_mlflow():
        return MlflowStore(client, uri)
    if is_registrys:
        with_credentials = urlunsplit((asked.scheme, asked.netloc, urlsplit(server).path, "", ""))
        return ServerStore(HttpSession(with_credentials), unquote(path.strip("/")))
    return ServerStore(HttpSession(server, name=STORE), unquote(path.strip("/")))


def _place(uri: str) -> tuple[str, str | None, int | None]:
    """What tells a server from others."""
    parts = urlsplit(uri)
    try:
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise InvalidInputError(f"its source is no address: {error}") from error


def _walk(store: Store, below: str, budget: Budget, depth: int) -> Iterator[str]:
    listed_bytes = 0
    for name, is_folder, size_bytes in store.entries(below):
        path = _joined(below, name)
        if is_folder:
            budget.folder(name, depth + 1)
            yield from _walk(store, path, budget, depth + 1)
        else:
            listed_bytes += max(0, size_bytes)
            budget.file(name, listed_bytes)
            yield path


def _joined(below: str, name: str) -> str:
    return f"{below}/{name}" if below and name else below or name


@contextmanager
def _files_up_to(size_bytes: int) -> Iterator[None]:
    """Lets the kernel refuse to make a file larger than this, since a store's listing may lie."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = size_bytes + 1 if hard == resource.RLIM_INFINITY else min(size_bytes + 1, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
