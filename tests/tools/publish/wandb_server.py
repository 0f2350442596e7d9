"""A server of Weights & Biases, as far as one release of its client asks for an artifact, answered from files."""

import base64
import hashlib
import http.server
import json
import re
import threading
from pathlib import Path
from typing import Any, Self

RELEASE = "0.31."
"""Of the client whose questions are known here; others ask in other words."""

_PROJECT = {"id": "1", "internalId": "1", "name": "churn", "entity": {"name": "team"}}
_COLLECTION = {"__typename": "ArtifactSequence", "name": "model", "project": _PROJECT}
_WHEN = "2026-01-01T00:00:00"


class WandbServer:
    """Keeps version 3 of the artifact team/churn/model, which has the alias `latest`, of the run `abc`.

    Args:
        files: its files by name.

    Attributes:
        url: its address, until the context is left.
    """

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path != "/graphql":  # what the client tells of itself
                    self._say(b"{}")
                    return
                asked = json.loads(body)
                self._say(json.dumps({"data": server.answer(asked["query"], asked.get("variables") or {})}).encode())

            def do_GET(self) -> None:
                self._say(server.file(self.path.lstrip("/")))

            def _say(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def file(self, path: str) -> bytes:
        """What lies at a path: the list of files, or one of them."""
        if path != "manifest":
            return self._files[path].read_bytes()
        contents = {
            name: {"digest": _digest(file.read_bytes()), "size": file.stat().st_size, "birthArtifactID": "1"}
            for name, file in self._files.items()
        }
        policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
        return json.dumps({"version": 1, **policy, "contents": contents}).encode()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What the query asks for, by its name."""
        found = re.search(r"query (\w+)", query)
        assert found is not None, query
        match found[1]:
            case "Viewer" | "GetDefaultEntity":
                person = {"id": "1", "entity": "team", "username": "u", "email": "a@b", "flags": "{}"}
                return {"viewer": {**person, "teams": {"edges": []}}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "ArtifactMembershipByName":
                known = variables["name"] in ("model:v3", "model:latest")
                return {"project": {"artifactCollectionMembership": self._membership() if known else None}}
            case "ArtifactCreatedBy":
                run = {"__typename": "Run", "id": "1", "name": "abc", "project": _PROJECT}
                return {"artifact": {"createdBy": run}}
            case "Run":
                return {"project": {"run": _run()}}
            case "FetchArtifactManifest":
                return {"artifact": {"currentManifest": {"file": {"directUrl": f"{self.url}/manifest"}}}}
            case "GetArtifactMembershipFileUrls":
                files = [
                    {"__typename": "File", "name": name, "directUrl": f"{self.url}/{name}"} for name in self._files
                ]
                page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
                told = {"pageInfo": page, "edges": [{"node": file} for file in files]}
                return {
                    "project": {
                        "artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": {"files": told}}
                    }
                }
        raise AssertionError(f"what is {query}?")

    def _membership(self) -> dict[str, Any]:
        artifact = {
            "__typename": "Artifact", "id": "1", "artifactSequence": _COLLECTION, "versionIndex": 3,
            "artifactType": {"name": "model"}, "description": None, "metadata": "{}", "ttlDurationSeconds": -1,
            "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED", "size": 1, "digest": "1",
            "commitHash": "1", "fileCount": len(self._files), "createdAt": _WHEN, "updatedAt": None, "aliases": [],
        }  # fmt: skip
        told = {"__typename": "ArtifactCollectionMembership", "id": "1", "versionIndex": 3, "createdAt": _WHEN}
        return {**told, "aliases": [], "artifactCollection": _COLLECTION, "artifact": artifact}


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def _run() -> dict[str, Any]:
    nothing = dict.fromkeys(("sweepName", "group", "jobType", "commit", "notes"))
    return {
        **nothing, "projectId": "1", "id": "1", "tags": [], "name": "abc", "displayName": "first", "state": "finished",
        "readOnly": False, "createdAt": _WHEN, "heartbeatAt": _WHEN, "description": "", "historyLineCount": 0,
        "user": {"name": "u", "username": "u"},
    }  # fmt: skip
