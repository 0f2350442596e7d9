"""REST in front of a fake server: the protocol as other servers have it, with Triton's binary extension or without."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import numpy as np

from penstock import inference_pb2 as pb
from penstock.tensors import from_raw, join_bytes, numpy_type, split_bytes, to_raw
from penstock_client.testing import FakeServer

NAMES = {"bool_param": bool, "int64_param": int, "double_param": float, "string_param": str}


class Front:
    """Answers by the models of a fake server, and keeps what came.

    Attributes:
        is_binary: whether it offers the binary extension.
        seen: verb, path, headers and body of each request.
        answers: what the next requests are answered with: status, headers and body; False closes the connection.
    """

    def __init__(self, fake: FakeServer, *, is_binary: bool = True, context: Any = None) -> None:
        self.fake = fake
        self.is_binary = is_binary
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[Any] = []
        self.connections: set[Any] = set()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                front.connections.add(self.client_address)
                front.seen.append((self.command, self.path, headers, body))
                answer = front.answers.pop(0) if front.answers else front.answer(self.path, headers, body)
                if answer is False:
                    self.close_connection = True
                    return
                status, more, content = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - http.server's name

            def do_CONNECT(self) -> None:
                front.seen.append((self.command, self.path, dict(self.headers.items()), b""))
                self.send_error(502)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"http{'s' if context else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = [unquote(part) for part in path.removeprefix("/prefix").strip("/").split("/")]
        if parts == ["v2"]:
            extensions = ["binary_tensor_data"] if self.is_binary else []
            return self._json({"name": "front", "version": "1", "extensions": extensions})
        if parts[:2] == ["v2", "health"]:
            return self._json({"ready": True}, 200 if self.fake.is_healthy else 503)
        if parts == ["v2", "repository", "index"]:
            asked = pb.RepositoryIndexRequest(ready=bool(json.loads(body or b"{}").get("ready")))
            lines = self.fake.index(asked).models
            return self._json(
                [{"name": m.name, "version": m.version, "state": m.state, "reason": m.reason} for m in lines]
            )
        if parts[:2] != ["v2", "models"]:
            return self._json({"detail": "Not Found"}, 404)
        model = self.fake.models.get(parts[2])
        if model is None:
            return self._json({"error": f"no model {parts[2]!r} is served"}, 404)
        version = parts[4] if parts[3:4] == ["versions"] else ""
        verb = parts[3 if not version else 5 :]
        if verb == ["ready"]:
            return self._json({"name": parts[2], "ready": model.is_ready})
        if not verb:
            return self._metadata(model.metadata(parts[2]))
        try:
            return self._inferred(model.reply(self._asked(parts[2], version, headers, body)), body, headers)
        except ValueError as error:
            return self._json({"error": str(error)}, 400)

    def _json(self, found: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
        return status, {"Content-Type": "application/json"}, json.dumps(found).encode()

    def _metadata(self, message: Any) -> tuple[int, dict[str, str], bytes]:
        def tensors(found: Any) -> list[Any]:
            return [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": list(tensor.shape),
                    "parameters": {name: each.string_param for name, each in tensor.parameters.items()},
                }
                for tensor in found
            ]

        whole = {"name": message.name, "versions": list(message.versions), "platform": message.platform}
        return self._json({**whole, "inputs": tensors(message.inputs), "outputs": tensors(message.outputs)})

    def _asked(self, name: str, version: str, headers: dict[str, str], body: bytes) -> pb.ModelInferRequest:
        size = int(headers.get("inference-header-content-length") or len(body))
        head, at = json.loads(body[:size]), size
        made = pb.ModelInferRequest(model_name=name, model_version=version, id=head.get("id", ""))
        for key, value in head.get("parameters", {}).items():
            field = next(field for field, kind in NAMES.items() if type(value) is kind)
            setattr(made.parameters[key], field, value)
        for tensor in head["inputs"]:
            made.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
            raw_bytes = tensor.get("parameters", {}).get("binary_data_size")
            if raw_bytes is None:
                made.raw_input_contents.append(self._raw(tensor))
            else:
                made.raw_input_contents.append(body[at : at + raw_bytes])
                at += raw_bytes
        assert at == len(body)
        for output in head.get("outputs", []):
            made.outputs.add(name=output["name"])
        return made

    def _raw(self, tensor: Any) -> bytes:
        if tensor["datatype"] == "BYTES":
            return join_bytes([text.encode() for text in tensor["data"]])
        values = [float(each.replace("Infinity", "inf")) if isinstance(each, str) else each for each in tensor["data"]]
        return to_raw(np.array(values, numpy_type(tensor["datatype"])), tensor["datatype"])

    def _inferred(self, reply: Any, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        head = json.loads(body[: int(headers.get("inference-header-content-length") or len(body))])
        wants = bool(head.get("parameters", {}).get("binary_data_output") or any(
            output.get("parameters", {}).get("binary_data") for output in head.get("outputs", [])
        ))  # fmt: skip
        outputs: list[dict[str, Any]] = []
        contents = []
        for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True):
            made: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
            if wants:
                made["parameters"] = {"binary_data_size": len(raw)}
                contents.append(raw)
            elif tensor.datatype == "BYTES":
                made["data"] = [each.decode() for each in split_bytes(raw, math.prod(tensor.shape))]
            else:
                values = from_raw(raw, tensor.datatype, tensor.shape)
                is_whole = np.isfinite(values.astype(float)).all()
                # Nested where JSON has a number for each, else flat with null, as servers have it.
                made["data"] = values.tolist() if is_whole else [_number(each) for each in values.ravel().tolist()]
            outputs.append(made)
        parameters = {name: p.string_param or p.int64_param for name, p in reply.parameters.items()}
        whole = {"model_name": reply.model_name, "model_version": reply.model_version, "id": reply.id}
        text = json.dumps({**whole, "parameters": parameters, "outputs": outputs}).encode()
        if not wants:
            return 200, {"Content-Type": "application/json"}, text
        return 200, {"Inference-Header-Content-Length": str(len(text))}, b"".join((text, *contents))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
