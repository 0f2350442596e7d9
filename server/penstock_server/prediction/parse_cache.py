"""Caches parsed requests: those that differ only in their last raw contents are parsed once.

A client that sends one row after another to one model sends the same bytes except for the row itself, which protobuf
puts last. The bytes before it are cached with what they parse to. A message of the same length that begins with them is
the same request with other contents. Only plain requests are cached (one tensor, raw contents, no id and no parameters),
so there are few different heads, and hostile clients only evict each other.

Source: Protocol Buffers, "Encoding": a message is its fields one after another, and `raw_input_contents` is field 7.
"""

from collections.abc import Collection
from typing import Final

from penstock.inference_pb2 import ModelInferRequest
from penstock.names import ATTRIBUTIONS
from penstock.wire import varint
from penstock_server.prediction.decode import Decoder
from penstock_server.prediction.encode import Choice

_RAW_CONTENTS: Final = b"\x3a"
MAX_HEAD_BYTES: Final = 1024
MAX_LENGTHS: Final = 256
MAX_HEADS: Final = 4
"""Heads cached per length of message; each is compared in turn."""
MAX_CACHE_BYTES: Final = 1 << 18
"""The bytes of all heads cached. What they parse to takes up to thirty times as much."""
MAX_PARTS: Final = 16
"""The dimensions and outputs of a request that is cached: one such part takes two bytes of a head, and fifty parsed."""


class CachedRequest:
    """What requests with the same head share.

    Attributes:
        head: all bytes before the raw contents themselves.
        size: the head's length, where the raw contents begin.
        request: what the head parses to, without contents.
        model, version: what the request asks for.
        decoder: the decoder of the last request with this head; a request for any other is decoded in full.
        rows: the rows of that request.
        chosen: the outputs asked for, of that decoder's version.
        explains: whether attributions are among them.
    """

    __slots__ = ("chosen", "decoder", "explains", "head", "model", "request", "rows", "size", "version")

    def __init__(self, head: bytes, request: ModelInferRequest) -> None:
        self.head = head
        self.size = len(head)
        self.request = request
        self.model: str = request.model_name
        self.version: str = request.model_version
        self.decoder: Decoder | None = None
        self.rows = 0
        self.chosen: Choice = None
        self.explains = any(output.name == ATTRIBUTIONS for output in request.outputs)

    def set_decoded(self, decoder: Decoder, rows: int, chosen: Choice) -> None:
        """Records that this decoder decoded a request with this head."""
        self.decoder, self.rows, self.chosen = decoder, rows, chosen


class ParseCache:
    """The heads of recent messages, by the length of the whole message."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[CachedRequest]] = {}
        self._bytes = 0

    def find(self, message: bytes) -> CachedRequest | None:
        """The cached request whose head this message shares; None when there is none."""
        for cached in self._by_length.get(len(message), ()):
            if message.startswith(cached.head):
                return cached
        return None

    def put(self, message: bytes, request: ModelInferRequest) -> CachedRequest | None:
        """Caches the head of a parsed message; None when the request is not a plain one."""
        if request.id or request.parameters or len(request.inputs) != 1 or len(request.raw_input_contents) != 1:
            return None
        if len(request.inputs[0].shape) + len(request.outputs) > MAX_PARTS or request.inputs[0].parameters:
            return None
        raw = request.raw_input_contents[0]
        size = len(message) - len(raw)
        head = message[:size]
        # Nothing may follow the contents, and the head must end in their tag and length.
        if size > MAX_HEAD_BYTES or not raw or not message.endswith(raw) or not head.endswith(_tag(raw)):
            return None
        fields = _parsed(head[: -len(_tag(raw))])
        if fields is None:
            return None
        is_new = len(message) not in self._by_length
        if (is_new and len(self._by_length) >= MAX_LENGTHS) or self._bytes + size > MAX_CACHE_BYTES:
            self.clear()
        heads = self._by_length.setdefault(len(message), [])
        cached = CachedRequest(head, fields)
        heads.insert(0, cached)
        self._bytes += size - sum(old.size for old in heads[MAX_HEADS:])
        del heads[MAX_HEADS:]
        return cached

    def forget(self, models: Collection[str]) -> None:
        """Forgets the heads of requests for these models."""
        for length, heads in list(self._by_length.items()):
            kept = [cached for cached in heads if cached.model not in models]
            if len(kept) < len(heads):
                self._bytes -= sum(cached.size for cached in heads if cached.model in models)
                if kept:
                    self._by_length[length] = kept
                else:
                    del self._by_length[length]

    def clear(self) -> None:
        """Forgets every head."""
        self._by_length.clear()
        self._bytes = 0


def _tag(raw: bytes) -> bytes:
    return _RAW_CONTENTS + varint(len(raw))


def _parsed(fields: bytes) -> ModelInferRequest | None:
    """The bytes before the raw contents as a request; None when they end inside a field, so what follows is no tag."""
    try:
        return ModelInferRequest.FromString(fields)
    except Exception:  # noqa: BLE001 - protobuf's own error class differs by version; torn bytes are not cached
        return None
