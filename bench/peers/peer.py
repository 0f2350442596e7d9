"""The peers as data, read from `peers.toml`: what is installed, how each is set up and why, how its answers are read."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from bench import inference
from bench.protocols import GRPC, JSON, GrpcProtocol, JsonProtocol, RequestProtocol
from penstock import inference_pb2 as pb

FILE: Final = Path(__file__).with_name("peers.toml")
PROGRAMS: Final = "bench.servers.peers"


class GrpcColumnsProtocol(GrpcProtocol):
    """The Open Inference Protocol from servers that give every output two axes: [N] comes as [N, 1]."""

    def check(self, address: str, sent: Sequence[bytes], outputs: list[inference.Outputs], timeout_s: float) -> None:
        inference.first_answer(address, sent[0], timeout_s=timeout_s)
        inference.check(address, tuple(sent), outputs, read=flat_columns)


class JsonRowsProtocol(JsonProtocol):
    """JSON from servers that split a batch by its rows: a list with one object of outputs per row."""

    def read(self, answer: Any) -> inference.Outputs:
        return {name: np.asarray([row[name] for row in answer]) for name in answer[0]}


class RawProtocol(JsonProtocol):
    """Bytes over HTTP, as cheap as a server can have them: float32 rows in, an int64 label and its float32 scores out."""

    def messages(self, model: str, *, rows: int, copies: int) -> tuple[bytes, ...]:
        if rows != 1 or copies != 1:
            raise ValueError("servers of raw bytes take one row of one model")
        return tuple(part.tobytes() for part in inference.tensors(model, rows))

    def parse(self, body: bytes) -> Any:
        return body

    def read(self, answer: Any) -> inference.Outputs:
        label, scores = np.frombuffer(answer[:8], np.int64), np.frombuffer(answer[8:], np.float32)
        return {"label": label, "probabilities": scores[None]}


def flat_columns(response: pb.ModelInferResponse) -> inference.Outputs:
    """The outputs of a response, with those of shape [N, 1] as [N]."""
    outputs = inference.decode(response)
    return {name: array[:, 0] if array.shape[1:] == (1,) else array for name, array in outputs.items()}


PROTOCOLS: Final[Mapping[str, RequestProtocol]] = MappingProxyType(
    {
        "grpc": GRPC,
        "grpc-columns": GrpcColumnsProtocol(),
        "json": JSON,
        "json-rows": JsonRowsProtocol(),
        "raw": RawProtocol(),
    }
)
"""By the names in `peers.toml`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to measure together with Penstock.

    Attributes:
        name: in tables and results.
        module: its program, in `bench.servers.peers`.
        packages: the packages of its environment, each NAME==VERSION, the peer's own first.
        protocol: the name of its protocol, one of `PROTOCOLS`.
        settings: passed to its program unchanged.
        env: variables of its process.
        processes: which processes it consists of, in words.
        documentation: where its settings are recommended.
        why: what was chosen, and why.
        python: the versions of Python that it runs on, if the bench's own will not do.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    protocol: str
    settings: Mapping[str, Any]
    env: Mapping[str, str]
    processes: str
    documentation: tuple[str, ...]
    why: str
    python: str | None = None

    def __post_init__(self) -> None:
        if not self.packages:
            raise ValueError(f"peer {self.name!r} needs its packages")
        for package in self.packages:
            if not all(package.partition("==")[::2]):
                raise ValueError(f"a package of peer {self.name!r} is NAME==VERSION, got {package!r}")
        if self.protocol not in PROTOCOLS:
            raise ValueError(
                f"the protocol of peer {self.name!r} is one of {', '.join(PROTOCOLS)}, got {self.protocol!r}"
            )

    @property
    def version(self) -> str:
        """The peer's own version."""
        return self.packages[0].partition("==")[2]

    @property
    def request_protocol(self) -> RequestProtocol:
        """How requests are sent to it."""
        return PROTOCOLS[self.protocol]

    def command(
        self, python: Path, file: Path, *, model: str, port: int, folder: Path, env: Mapping[str, str]
    ) -> list[str]:
        """The command line that serves a model's file.

        Args:
            python: of the peer's environment.
            file: of the model.
            model: the name that requests use.
            port: where the server listens.
            folder: its working directory.
            env: variables in addition to the peer's own.
        """
        variables = [f"{name}={value}" for name, value in {**self.env, **env}.items()]
        arguments = (f"{model}={file}", "--port", str(port), "--settings", json.dumps(dict(self.settings)))
        return ["env", f"--chdir={folder}", *variables, str(python), "-m", f"{PROGRAMS}.{self.module}", *arguments]


def read(file: Path = FILE) -> dict[str, Peer]:
    """The peers of a file by name, in its order.

    Raises:
        ValueError: an entry is malformed.
    """
    try:
        peers = [_peer(entry) for entry in tomllib.loads(file.read_text())["peer"]]
    except (TypeError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file.name} is malformed: {error}") from error
    return {peer.name: peer for peer in peers}


def _peer(entry: dict[str, Any]) -> Peer:
    lists = {name: tuple(entry.pop(name)) for name in ("packages", "documentation")}
    return Peer(**{"settings": {}, "env": {}, **entry, **lists})
