"""What stores get wrong, over every scheme: each fault is told, keeps nothing, and is over when the store is mended."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.models import manifest
from penstock_server.models.manifest import Manifest
from penstock_server.models.version_folder import digest_of
from penstock_server.sources.http_session import HttpSession
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.remote_files import ServerStore, store_of
from penstock_server.sources.settings import FetchSettings
from penstock_server.sources.web_store import WebStore
from tests.server.sources.fake_registry import ARTIFACTS, FakeRegistry, fake_registry

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
GRAPH = bytes(range(256)) * 40
TABLE = b"table" * 1000


def described(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a version, with what describes them."""
    digests = {name: digest_of(content) for name, content in files.items()}
    listed = manifest.encode(Manifest(digests, datetime(2026, 11, 27, tzinfo=UTC)))
    return {"MLmodel": b"flavors: {onnx: {}}", manifest.NAME: listed, **files}


FILES = described({"model.onnx": GRAPH, "penstock/table.bin": TABLE})


@dataclass
class Shelf:
    """A version in a store that speaks HTTP.

    Attributes:
        server: the store.
        source: what the version is registered with.
        path: where its files are on the server.
    """

    server: FakeRegistry
    source: str
    path: str

    def put(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            if self.path.startswith(ARTIFACTS):
                self.server.files[f"{self.path.removeprefix(f'{ARTIFACTS}/')}/{name}"] = content
            else:
                self.server.pages[f"{self.path}/{name}"] = content


@pytest.fixture(params=["mlflow-artifacts:", "mlflow-artifacts://", "http to MLflow", "http"])
def shelf(request: pytest.FixtureRequest, fake: FakeRegistry) -> Iterator[Shelf]:
    """A version's files, in a store; the registry is `fake`."""
    with fake_registry() as other:
        host = f"127.0.0.1:{other.server_port}"
        made = {
            "mlflow-artifacts:": Shelf(fake, "mlflow-artifacts:/1/m", f"{ARTIFACTS}/1/m"),
            "mlflow-artifacts://": Shelf(other, f"mlflow-artifacts://{host}/1/m", f"{ARTIFACTS}/1/m"),
            "http to MLflow": Shelf(other, f"http://{host}{ARTIFACTS}/1/m", f"{ARTIFACTS}/1/m"),
            "http": Shelf(other, f"http://{host}/models/m%201/", "/models/m 1"),
        }[request.param]
        made.put(FILES)
        fake.register("m", "1", source=made.source, champion="1")
        yield made


@pytest.fixture
def source(fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowSource:
    monkeypatch.setenv(TIMEOUT, "20")
    return MlflowSource(fake.uri, cache_dir=tmp_path, fetch=FetchSettings(max_mib=0.1, max_files=20))


def found(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_comes_whole_from_every_store(shelf: Shelf, source: MlflowSource) -> None:
    assert found(source.fetch("m", "1")) == FILES


def endless(server: FakeRegistry) -> Iterator[bytes]:
    while not server.is_over.is_set():
        yield bytes(10_000)


def silent(server: FakeRegistry) -> Iterator[bytes]:
    yield GRAPH[:100]
    server.is_over.wait(20)


def at_other_server(server: FakeRegistry, path: str) -> None:
    server.redirects[path] = f"http://localhost:{server.server_port}/elsewhere"


def answering(answer: Callable[[FakeRegistry], Any]) -> Callable[[FakeRegistry, str], None]:
    def make(server: FakeRegistry, path: str) -> None:
        server.answers[path] = lambda _: answer(server)

    return make


FAULTS: dict[str, tuple[Callable[[FakeRegistry, str], Any], type[PenstockError] | tuple[type[PenstockError], ...], str]] = {
    "cut": (lambda server, path: server.cut_paths.add(path), UnavailableError, "cut short"),
    "cut without a length": (answering(lambda _: iter([GRAPH[:-1]])), InvalidInputError, "came as another than was"),
    "changed": (answering(lambda _: GRAPH[:-1] + b"x"), InvalidInputError, "'model.onnx' came as another than was"),
    "another page": (answering(lambda _: b"<html>log in</html>"), InvalidInputError, "came as another than was"),
    "gone": (
        answering(lambda _: (404, b"<html>")),
        (NotFoundError, UnavailableError),
        r"its file 'model.onnx' is not in the artifact store|does not give its file 'model.onnx': HTTP 404",
    ),
    "forbidden": (answering(lambda _: (403, b"no")), UnavailableError, "does not give its file 'model.onnx': HTTP 403"),
    "failing": (answering(lambda _: (500, b"")), UnavailableError, "HTTP 500"),
    "silent": (answering(silent), UnavailableError, "no answer in time"),
    "endless": (answering(endless), InvalidInputError, r"take more than 0\.1 MiB"),
    "elsewhere": (at_other_server, UnavailableError, "sends us on to another server, which is not followed"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_what_it_left_is_fetched_again(
    shelf: Shelf, fault: str, source: MlflowSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.poll()  # the registry's own answers may take longer
    if fault == "silent":
        monkeypatch.setenv(TIMEOUT, "0.3")
    make, kind, said = FAULTS[fault]
    path = f"{shelf.path}/model.onnx".replace(" ", "%20")
    make(shelf.server, path)
    for _ in range(2):
        with pytest.raises(kind, match=f"version 1 of model 'm' cannot be fetched: .*(?:{said})") as caught:
            source.fetch("m", "1")
        assert "hunter2" not in str(caught.value)
    assert not [one for one in (tmp_path / "models").rglob("*") if one.is_file()]
    for faults in (shelf.server.answers, shelf.server.redirects):
        faults.pop(path, None)
    shelf.server.cut_paths.clear()
    monkeypatch.setenv(TIMEOUT, "20")
    assert found(source.fetch("m", "1")) == FILES


def link_to(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(GRAPH[:-1]), "'model.onnx' came as another than was published"),
        (lambda path: path.write_bytes(GRAPH[:-1] + b"x"), "'model.onnx' came as another than was published"),
        (lambda path: path.unlink(), "file 'model.onnx' is missing, which penstock/manifest.json names"),
        (lambda path: path.write_bytes(bytes(200_000)), r"take more than 0\.1 MiB"),
        (link_to, "its file 'model.onnx' is a symbolic link; expected regular files only"),
    ],
    ids=["cut", "changed", "gone", "too large", "elsewhere"],
)
def test_a_fault_of_a_folder_is_told_and_what_it_left_is_fetched_again(
    make: Callable[[Path], Any], said: str, fake: FakeRegistry, source: MlflowSource, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    fake.register("m", "1", source=folder.as_uri())
    graph = folder / "model.onnx"
    make(graph)
    with pytest.raises(InvalidInputError, match=f"version 1 of model 'm' cannot be fetched: .*{said}"):
        source.fetch("m", "1")
    graph.unlink(missing_ok=True)
    graph.write_bytes(GRAPH)
    assert found(source.fetch("m", "1")) == FILES


def test_a_version_that_is_not_all_there_yet_is_fetched_again(shelf: Shelf, source: MlflowSource) -> None:
    kept = shelf.server.files.copy(), shelf.server.pages.copy()
    for files in (shelf.server.files, shelf.server.pages):
        for name in [name for name in files if name.endswith("table.bin")]:
            del files[name]
    with pytest.raises((InvalidInputError, NotFoundError), match=r"table.bin' is (missing|not in the artifact store)"):
        source.fetch("m", "1")
    shelf.server.files, shelf.server.pages = kept
    assert found(source.fetch("m", "1")) == FILES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../x", "a file named '..'; expected a plain name"),
        ("/etc/x", "expected a plain name"),
        ("a\\b", "expected a plain name"),
        ("/".join("a" * 30), "nested deeper than 16"),
        ("x" * 2000, "expected 1024 characters at most"),
        ("x" * 300, "expected a plain name"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_not_followed(
    name: str, said: str, fake: FakeRegistry, source: MlflowSource, tmp_path: Path
) -> None:
    shelf = Shelf(fake, f"http://127.0.0.1:{fake.server_port}/m", "/m")
    shelf.put(described({"model.onnx": GRAPH, name: b"x"}))
    fake.register("m", "1", source=shelf.source)
    with pytest.raises(InvalidInputError, match=said):
        source.fetch("m", "1")
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


def test_thousands_of_files_come_and_no_more_than_the_bound(fake: FakeRegistry, tmp_path: Path) -> None:
    shelf = Shelf(fake, f"http://127.0.0.1:{fake.server_port}/m", "/m")
    files = described({"model.onnx": GRAPH, **{f"tables/{n % 10}/{n}": b"%d" % n for n in range(1000)}})
    shelf.put(files)
    fake.register("m", "1", source=shelf.source)
    with pytest.raises(InvalidInputError, match="more than 1,000 files"):
        MlflowSource(fake.uri, cache_dir=tmp_path, fetch=FetchSettings(max_files=1000)).fetch("m", "1")
    assert fake.calls.count("/m/model.onnx") == 0
    assert found(MlflowSource(fake.uri, cache_dir=tmp_path).fetch("m", "1")) == files


@pytest.mark.parametrize("has_description", [True, False])
def test_a_plain_graph_on_the_web_needs_no_manifest(
    fake: FakeRegistry, has_description: bool, source: MlflowSource
) -> None:
    fake.pages = {"/m/model.onnx": GRAPH, **({"/m/MLmodel": FILES["MLmodel"]} if has_description else {})}
    fake.register("m", "1", source=f"http://127.0.0.1:{fake.server_port}/m")
    assert found(source.fetch("m", "1")) == {path.removeprefix("/m/"): page for path, page in fake.pages.items()}


@pytest.mark.parametrize("content", [b"{", b"<html>", b'{"format":1,"files":{"a":"b"}}'])
def test_what_is_no_manifest_is_told(content: bytes, fake: FakeRegistry, source: MlflowSource) -> None:
    fake.pages = {"/m/model.onnx": GRAPH, f"/m/{manifest.NAME}": content}
    fake.register("m", "1", source=f"http://127.0.0.1:{fake.server_port}/m")
    with pytest.raises(InvalidInputError, match=r"manifest\.json does not say which files there are"):
        source.fetch("m", "1")


def test_each_request_has_the_query_of_the_address(fake: FakeRegistry, source: MlflowSource) -> None:
    def signed(body: bytes) -> Callable[[dict[str, str]], Any]:
        return lambda query: body if query == {"sig": "a+b/c=", "v": "1"} else (403, b"")

    fake.answers |= {f"/m/{name}": signed(content) for name, content in FILES.items()}
    fake.register("m", "1", source=f"http://127.0.0.1:{fake.server_port}/m?sig=a%2Bb%2Fc%3D&v=1")
    assert found(source.fetch("m", "1")) == FILES
    fake.register("m", "2", source=f"http://127.0.0.1:{fake.server_port}/m?sig=wrong-secret")
    with pytest.raises(UnavailableError, match="HTTP 403") as caught:
        source.fetch("m", "2")
    assert "wrong-secret" not in str(caught.value)


def test_only_the_registrys_own_server_gets_its_credentials(
    shelf: Shelf, fake: FakeRegistry, source: MlflowSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team-a")
    source.fetch("m", "1")
    is_registrys = shelf.server is fake
    assert ("authorization" in shelf.server.headers) == is_registrys
    assert ("x-mlflow-workspace" in shelf.server.headers) == is_registrys


@pytest.mark.parametrize(
    ("uri", "place", "root", "is_told"),
    [
        ("mlflow-artifacts:/1/m", "http://reg:5000/below", "1/m", True),
        ("mlflow-artifacts:/1/a b%2F", "http://reg:5000/below", "1/a b%2F", True),
        ("mlflow-artifacts://reg:5000/1/m", "http://reg:5000", "1/m", True),
        ("mlflow-artifacts://other/1/m", "http://other", "1/m", False),
        (f"http://reg:5000/below{ARTIFACTS}/1/a%20b", "http://reg:5000/below", "1/a b", True),
        (f"https://reg:5000/below{ARTIFACTS}/1/m", "https://reg:5000/below", "1/m", False),
        (f"http://reg{ARTIFACTS}/1/m", "http://reg", "1/m", False),
        (f"http://me:mine@other{ARTIFACTS}/1/m", "http://other", "1/m", True),
    ],
)  # fmt: skip
def test_addresses_of_artifacts_are_read_as_mlflow_does(uri: str, place: str, root: str, is_told: bool) -> None:
    registry = "http://user:hunter2@reg:5000/below"
    store = store_of(uri, registry, RegistryClient(registry))
    assert isinstance(store, ServerStore)
    session: HttpSession = store._session
    assert (session._base, store._root, "Authorization" in session._headers) == (place, root, is_told)


@pytest.mark.parametrize("uri", ["http://reg:5000/m", "https://other/m?a=b"])
def test_any_other_address_is_a_plain_web_servers(uri: str) -> None:
    store = store_of(uri, "http://user:hunter2@reg:5000", RegistryClient("http://reg:5000"))
    assert isinstance(store, WebStore)
    assert "Authorization" not in store._session._headers


@pytest.mark.parametrize("uri", ["http://[1/m", "https://host:port/m"])
def test_what_is_no_address_is_told(uri: str, fake: FakeRegistry, source: MlflowSource) -> None:
    fake.register("m", "1", source=uri)
    with pytest.raises(InvalidInputError, match="version 1 of model 'm' cannot be fetched: its source is no address"):
        source.fetch("m", "1")
