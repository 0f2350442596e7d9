"""Requests that differ only in their last raw contents are parsed once.

A client that asks one model for one row again and again sends the same bytes but for the row itself, which protobuf puts
last. The bytes before it are kept with what they parse to; a message of the same length that begins with them is the same
request with other contents. Only plain requests are kept (one tensor, raw contents, no id and no parameters), so the
number of different heads is that of the ways in which clients ask, and hostile ones only push each other out.

Source: Protocol Buffers, "Encoding": a message is its fields one after another, and `raw_input_contents` is field 7.
"""

from typing import Final

from penstock.inference_pb2 import ModelInferRequest
from penstock_server.prediction.decode import Decoder, Rows
from penstock_server.prediction.encode import Choice, varint

_RAW_CONTENTS: Final = b"\x3a"
MAX_HEAD_BYTES: Final = 1024
MAX_LENGTHS: Final = 256
MAX_HEADS: Final = 4
"""Heads kept for one length of message; each is compared in turn."""


class Template:
    """What requests with the same head share.

    Attributes:
        head: all bytes before the raw contents themselves.
        size: their number, where the raw contents begin.
        request: what the head parses to, without contents.
        model, version: what the request asks for.
        decoder: the one that took the last request with this head; another one has to look anew.
        rows: its rows.
        chosen: the outputs asked for, of that decoder's version.
    """

    __slots__ = ("chosen", "decoder", "head", "model", "request", "rows", "size", "version")

    def __init__(self, head: bytes, request: ModelInferRequest) -> None:
        self.head = head
        self.size = len(head)
        self.request = request
        self.model: str = request.model_name
        self.version: str = request.model_version
        self.decoder: Decoder | None = None
        self.rows = 0
        self.chosen: Choice = None

    def accepted(self, decoder: Decoder, taken: Rows, chosen: Choice) -> None:
        """A decoder has taken a request with this head."""
        self.decoder, self.rows, self.chosen = decoder, taken.rows, chosen


class Templates:
    """The heads met lately, by the length of the whole message."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[Template]] = {}

    def find(self, message: bytes) -> Template | None:
        """The template that the message is of, if it is known."""
        for template in self._by_length.get(len(message), ()):
            if message.startswith(template.head):
                return template
        return None

    def keep(self, message: bytes, request: ModelInferRequest) -> Template | None:
        """Remembers the head of a parsed message, when it is one of a plain request; its template."""
        if request.id or request.parameters or len(request.inputs) != 1 or len(request.raw_input_contents) != 1:
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
        if len(self._by_length) >= MAX_LENGTHS and len(message) not in self._by_length:
            self._by_length.clear()
        heads = self._by_length.setdefault(len(message), [])
        template = Template(head, fields)
        heads.insert(0, template)
        del heads[MAX_HEADS:]
        return template


def _tag(raw: bytes) -> bytes:
    return _RAW_CONTENTS + varint(len(raw))


def _parsed(fields: bytes) -> ModelInferRequest | None:
    """The bytes before the raw contents as a request; None when they end within a field, so the tag after them is none."""
    try:
        return ModelInferRequest.FromString(fields)
    except Exception:  # noqa: BLE001 - protobuf's own error class differs by version; torn bytes are no template
        return None
