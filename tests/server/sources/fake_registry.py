"""An MLflow server that is told what to answer: right, wrong, slowly, or never."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TIMEOUT_S = 20.0
API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

Query = dict[str, str]
Answer = Callable[[Query], Any]


class FakeRegistry(ThreadingHTTPServer):
    """Answers by path: `answers[path](query)` gives JSON, bytes as they are, or an (HTTP status, body).

    Attributes:
        models, versions: what the registry's own calls answer with, as MLflow writes it.
        files: the artifacts by path.
        pages: what a plain web server has, by path.
        calls: the path of every request so far; `headers` are those of the last one, in lower case.
        hangs: while it is set, no request is answered; `hung` counts them.
        cut_bytes: so many bytes are missing at the end of each answer; `cut_next` cuts the answers after this one.
        cut_paths: the paths whose answers miss three bytes.
        redirect_to: where every caller is sent instead; `redirects` says so of single paths.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: list[dict[str, Any]] = []
        self.versions: dict[tuple[str, str], dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.pages: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.headers: dict[str, str] = {}
        self.hung = threading.Semaphore(0)
        self.is_over = threading.Event()
        self.hangs = False
        self.cut_bytes = 0
        self.cut_next = False
        self.cut_paths: set[str] = set()
        self.redirect_to = ""
        self.redirects: dict[str, str] = {}
        self.answers: dict[str, Answer] = {
            f"{API}/registered-models/search": lambda _: {"registered_models": self.models},
            f"{API}/registered-models/get": self._model,
            f"{API}/model-versions/get": lambda query: {"model_version": self._version(query)},
            f"{API}/model-versions/get-download-uri": lambda query: {"artifact_uri": self._version(query)["source"]},
            ARTIFACTS: self._listing,
        }

    @property
    def uri(self) -> str:
        return f"http://user:hunter2@127.0.0.1:{self.server_port}"

    def register(self, model: str, version: str, source: str = "", created: int = 1, **aliases: str) -> None:
        """Adds a version, and a model with these aliases in place of the one of this name."""
        self.versions[model, version] = {
            "name": model, "version": version, "status": "READY", "source": source,
            "creation_timestamp": created, "run_id": "run",
        }  # fmt: skip
        self.models = [one for one in self.models if one["name"] != model]
        self.models.append(
            {
                "name": model,
                "creation_timestamp": created,
                "last_updated_timestamp": created,
                "aliases": [{"alias": alias, "version": version} for alias, version in aliases.items()],
                "latest_versions": [self.versions[model, version]],
            }
        )

    def count(self, end: str) -> int:
        return sum(call.endswith(end) for call in self.calls)

    def _model(self, query: Query) -> Any:
        found = [one for one in self.models if one["name"] == query["name"]]
        return {"registered_model": found[0]} if found else refusal(404, "RESOURCE_DOES_NOT_EXIST")

    def _version(self, query: Query) -> dict[str, Any]:
        return self.versions[query["name"], query["version"]]

    def _listing(self, query: Query) -> Any:
        start = f"{query['path']}/"
        below = {name.removeprefix(start).partition("/")[:2] for name in self.files if name.startswith(start)}
        return {
            "files": [
                {"path": name, "is_dir": True}
                if slash
                else {"path": name, "is_dir": False, "file_size": len(self.files[start + name])}
                for name, slash in sorted(below)
            ]
        }


def refusal(status: int, code: str) -> tuple[int, bytes]:
    return status, json.dumps({"error_code": code, "message": "the registry's words"}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: FakeRegistry

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.server.calls.append(address.path)
        self.server.headers = {name.lower(): value for name, value in self.headers.items()}
        if self.server.hangs:
            self.server.hung.release()
            self.server.is_over.wait(TIMEOUT_S)
            return
        if redirect_to := self.server.redirects.get(address.path, self.server.redirect_to):
            self.send_response(302)
            self.send_header("Location", redirect_to)
            self.end_headers()
            return
        if self.server.cut_next:
            self.server.cut_bytes = 3
        try:
            answer = self._answer(address.path, query)
        except KeyError:
            answer = refusal(404, "RESOURCE_DOES_NOT_EXIST")
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        if not isinstance(body, bytes | Iterator):
            body = json.dumps(body).encode()
        self._send(status, body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, path: str, query: Query) -> Any:
        if path in self.server.answers:
            return self.server.answers[path](query)
        if not path.startswith("/api/"):
            return self.server.pages.get(unquote(path), (404, b"<html>there is no such page</html>"))
        return self.server.files[unquote(path.removeprefix(f"{ARTIFACTS}/"))]

    def _send(self, status: int, body: bytes | Iterator[bytes]) -> None:
        try:
            self.send_response(status)
            if isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                cut_bytes = 3 if urlsplit(self.path).path in self.server.cut_paths else self.server.cut_bytes
                self.wfile.write(body[: len(body) - cut_bytes])
                return
            self.end_headers()
            for part in body:
                self.wfile.write(part)
        except OSError:
            pass  # the caller has left

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()
