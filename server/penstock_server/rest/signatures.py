"""What each model takes, as its metadata say; read once for each state of the routes."""

from collections.abc import Callable
from typing import Final

from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE
from penstock_server.parse import OPEN_INFERENCE, parse
from penstock_server.rest.rows import RowSignature, signature_of
from penstock_server.transport.local import CallMaker
from penstock_server.transport.status import Status

_METADATA: Final = f"/{INFERENCE_SERVICE}/ModelMetadata"
_INDEX: Final = f"/{INFERENCE_SERVICE}/RepositoryIndex"
_KEPT: Final = 256


class _Answered:
    """What a method said that answers at once."""

    def __init__(self) -> None:
        self.message: bytes | None = None

    def replied(self, message: bytes) -> None:
        self.message = message

    def ended(self, status: Status) -> None:
        """Nothing is known then."""


class Signatures:
    """The signatures of the models that are served.

    Args:
        caller: calls methods that answer at once, and asks nobody for rights.
        generation: an object that is another one whenever other versions may be served.
    """

    def __init__(self, caller: CallMaker, generation: Callable[[], object]) -> None:
        self._caller = caller
        self._generation = generation
        self._seen: object = None
        self._metadata: dict[tuple[str, str], tuple[pb.ModelMetadataResponse, RowSignature] | None] = {}

    def of(self, model: str, version: str) -> RowSignature | None:
        """What a version takes, or the champion if none is named; None if there is no such model or version."""
        found = self._found(model, version)
        return None if found is None else found[1]

    def metadata(self, model: str, version: str = "") -> pb.ModelMetadataResponse | None:
        """A version's metadata; None if there is no such model or version."""
        found = self._found(model, version)
        return None if found is None else found[0]

    def models(self) -> list[str]:
        """The names of the models that are served now."""
        message = self._ask(_INDEX, pb.RepositoryIndexRequest(ready=True).SerializeToString())
        index = parse(pb.RepositoryIndexResponse, message or b"", OPEN_INFERENCE)
        return sorted({model.name for model in index.models})

    def _found(self, model: str, version: str) -> tuple[pb.ModelMetadataResponse, RowSignature] | None:
        now = self._generation()
        if now is not self._seen or len(self._metadata) >= _KEPT:
            self._seen = now
            self._metadata.clear()
        key = (model, version)
        if key not in self._metadata:
            message = self._ask(_METADATA, pb.ModelMetadataRequest(name=model, version=version).SerializeToString())
            if message is None:
                self._metadata[key] = None
            else:
                metadata = parse(pb.ModelMetadataResponse, message, OPEN_INFERENCE)
                self._metadata[key] = (metadata, signature_of(metadata))
        return self._metadata[key]

    def _ask(self, path: str, message: bytes) -> bytes | None:
        answered = _Answered()
        self._caller.begin(path, message, (), answered)
        return answered.message
