"""Requests that are alike: what Python found out about one, written down so that kernels answer those that follow.

`form_steps` says how a request's bytes become its message, and `text_steps` how a reply becomes an answer's body; both are
tried on the request or reply that they were made of before kernels get them. `Forms` keeps the tables that it shares with
the kernels, and says which connections they may read. It is for the reactor's thread.
"""

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from penstock.names import INFERENCE_SERVICE
from penstock.wire import read_field, varint
from penstock_server.call import Cancellable, Metadata
from penstock_server.kernels.compiled import Library
from penstock_server.rest import layout
from penstock_server.rest.http import JSON, Request
from penstock_server.rest.open_inference import TIMING, Text
from penstock_server.rest.powers import powers
from penstock_server.transport import headers
from penstock_server.transport.layout import EPOLL_EVENT_BYTES
from penstock_server.transport.local import Begin, GuestKernels, Outcome

MOST_BYTES: Final = layout.MOST_KEPT_BYTES
"""A larger request is not alike to others."""
_MOST_MESSAGE_BYTES: Final = 48 * 1024
_MOST_ANSWER_BYTES: Final = 4095
"""Larger ones are compressed for callers who wish it."""
_MOST_ID_BYTES: Final = 127
_SEEN: Final = 256
_TRIES: Final = 8
"""How many forms requests with one head may have."""
_NS: Final = 1e-9
_INFER: Final = f"/{INFERENCE_SERVICE}/ModelInfer"
_ID_FIELD, _RAW_FIELD, _VERSION_FIELD = 3, 7, 2
_RAW: Final = b"\x3a"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: " % JSON
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,7})[ \t]*\r\n", re.IGNORECASE)
_TRACEPARENT: Final = re.compile(rb"\r\ntraceparent:[ \t]*([0-9a-f-]{55})[ \t]*\r\n", re.IGNORECASE)
_SPACE: Final = rb"[ \t\r\n]*"
_NUMBER: Final = rb"-?[0-9][0-9.eE+-]*"
_TEXT: Final = rb'"[^"\\]*"'
_NUMBERS: Final = re.compile(rb"%b(?:%b,%b%b)*" % (_NUMBER, _SPACE, _SPACE, _NUMBER))
_TEXTS: Final = re.compile(rb"%b(?:%b,%b%b)*" % (_TEXT, _SPACE, _SPACE, _TEXT))
_OTHERWISE: Final = frozenset(
    {b"content-encoding", b"inference-header-content-length", b"transfer-encoding", b"expect", b"upgrade"}
)
"""With these fields a body is no plain JSON, or a connection is no plain one."""


class Step(NamedTuple):
    """A step of `layout`, with the bytes that it names."""

    kind: int
    content: bytes = b""
    size: int = 0
    more: int = 0


class _Tensor(msgspec.Struct):
    datatype: str
    shape: list[int]
    data: msgspec.Raw


class _Body(msgspec.Struct):
    inputs: list[_Tensor]
    id: msgspec.Raw = msgspec.Raw(b"")


_decode: Final = msgspec.json.Decoder(_Body).decode


class Happening(NamedTuple):
    """What a turn leaves to Python.

    Attributes:
        happened: what epoll says.
        kind: as `layout` has it.
        data: what has come, or what is not sent.
    """

    descriptor: int
    happened: int
    kind: int
    data: bytes


class TakenBack(NamedTuple):
    """What kernels had of a connection.

    Attributes:
        slot: of the call that they have begun for it; -1 for none.
        request: the one that is called for, without its body.
        begun: of a request that is not whole.
        unsent: of an answer that is not sent.
    """

    slot: int
    request: Request | None
    begun: bytes
    unsent: bytes


class Calls(Protocol):
    """What the native transport does for kernels that begin calls."""

    def take_calls(self, path: str, guest: GuestKernels, claim: Callable[[int, int], None]) -> Begin | None: ...

    def claim(self, slot: int, outcome: Outcome) -> Cancellable: ...


class Forms:
    """What kernels know, and what they do, of one REST port.

    Args:
        kernels: the set `rest`.
        calls: the transport; None where kernels only learn.

    Attributes:
        claimed: is told the descriptor of a connection whose call has ended otherwise than with a reply that kernels take.
    """

    def __init__(self, kernels: Library, calls: Calls | None = None) -> None:
        self._kernels = kernels.brief
        self._library = kernels  # the transport calls it by its address
        self._calls = calls
        self.claimed: Callable[[int], None] = _claim_nothing
        self._kept: list[Any] = []
        self._of_form: dict[int, tuple[Request, Any]] = {}
        self._known: dict[int, tuple[Step, ...]] = {}
        self._of_text: dict[int, Any] = {}
        self._next_form = self._next_text = 0
        self._tries: dict[bytes, int] = {}
        self._state = self._array(layout.STATE_BYTES // 8)
        self._connections = self._array(layout.DESCRIPTORS, layout.CONNECTION_BYTES // 8)
        self._forms = self._array(layout.MOST_FORMS, layout.FORM_BYTES // 8)
        self._texts = self._array(layout.MOST_TEXTS, layout.TEXT_BYTES // 8)
        self._events = self._array(layout.EVENTS + layout.DESCRIPTORS, layout.EVENT_BYTES // 8)
        self._message = self._array(2 * layout.MESSAGE_BYTES // 8)
        self._reply = self._array(layout.REPLY_BYTES // 8)
        self._at: int = self._state.ctypes.data
        self._connections_at: int = self._connections.ctypes.data
        self._words = self._connections.data.cast("B").cast("q")
        head = np.frombuffer(_ANSWER, np.uint8)
        powers_of_ten = powers()
        self._kept += (head, powers_of_ten)
        for at, value in (
            (layout.EPOLL, -1),
            (layout.EPOLL_EVENTS, self._bytes(layout.EVENTS * EPOLL_EVENT_BYTES)),
            (layout.CONNECTIONS, self._connections_at),
            (layout.CONNECTION_COUNT, layout.DESCRIPTORS),
            (layout.RECEIVED, self._bytes(layout.ROOM_BYTES)),
            (layout.OUT, self._events.ctypes.data),
            (layout.FORMS, self._forms.ctypes.data),
            (layout.FORM_COUNT, layout.MOST_FORMS),
            (layout.TEXTS, self._texts.ctypes.data),
            (layout.TEXT_COUNT, layout.MOST_TEXTS),
            (layout.MESSAGE, self._message.ctypes.data),
            (layout.REPLY, self._reply.ctypes.data),
            (layout.POWERS, powers_of_ten.ctypes.data),
            (layout.UNSENT, self._bytes(8 * layout.DESCRIPTORS)),
            (layout.NUMBER, self._bytes(64)),
            (layout.TIMING, self._bytes(64)),
            (layout.HEADERS, self._bytes(layout.HEADERS_BYTES)),
            (layout.HEAD, head.ctypes.data),
            (layout.HEAD_BYTES, len(_ANSWER)),
        ):
            self._state[at // 8] = value

    def _array(self, *shape: int) -> Any:
        return np.zeros(shape, np.int64)

    def _bytes(self, size: int) -> int:
        block = np.zeros(size, np.uint8)
        self._kept.append(block)
        return int(block.ctypes.data)

    def begin(self, epoll: int) -> bool:
        """Has kernels read the connections that this epoll watches; false if they can make no calls."""
        if self._calls is None:
            return False
        addresses = self._library.addresses
        guest = GuestKernels(self._at, addresses["turn"], addresses["reply"])
        found = self._calls.take_calls(_INFER, guest, self._claim)
        if found is None:
            return False
        for at, value in (
            (layout.EPOLL, epoll),
            (layout.TRANSPORT, found.state),
            (layout.BEGIN, found.address),
            (layout.LOCAL, found.connection),
            (layout.METHOD, found.method),
        ):
            self._state[at // 8] = value
        return True

    def turn(self) -> list[Happening]:
        """Takes up what is there, unless the transport has; what is left."""
        found = self._left()
        if not found or self._state[layout.UNSENT_COUNT // 8]:
            self._kernels["turn"](self._at)
            found += self._left()
        return found

    def _left(self) -> list[Happening]:
        """What the last turn has left."""
        count = self._state[layout.OUT_COUNT // 8]
        self._state[layout.OUT_COUNT // 8] = 0
        return [
            Happening(descriptor, happened, kind, ctypes.string_at(data, size) if size else b"")
            for descriptor, happened, kind, data, size in self._events[:count].tolist()
        ]

    def _word(self, descriptor: int, at: int) -> int:
        found: int = self._words[(descriptor * layout.CONNECTION_BYTES + at) // 8]
        return found

    def _address(self, descriptor: int) -> int:
        return self._connections_at + descriptor * layout.CONNECTION_BYTES

    def free(self, descriptor: int) -> None:
        """Lets kernels read a connection, since nothing of it is with Python."""
        self._words[(descriptor * layout.CONNECTION_BYTES + layout.R_FLAGS) // 8] = layout.IS_FREE

    def forget(self, descriptor: int) -> None:
        """A connection begins, or is closed; nothing of it is with kernels."""
        self._kernels["forget"](self._address(descriptor))

    def is_busy(self, descriptor: int) -> bool:
        """Whether kernels wait for the answer to a request of a connection."""
        return self._word(descriptor, layout.R_CALL) != 0

    def answered_at_s(self, descriptor: int) -> float:
        """When kernels answered last; 0 if they never did."""
        return self._word(descriptor, layout.R_ANSWERED_AT) * _NS

    def begun_at_s(self, descriptor: int) -> float:
        """When the request began of which kernels keep a part; 0 if there is none."""
        return self._word(descriptor, layout.R_KEPT_AT) * _NS

    def take_back(self, descriptor: int) -> TakenBack:
        """Leaves a connection to Python alone, with what kernels had of it."""
        form = self._word(descriptor, layout.R_FORM)
        kept_at, is_begun = self._word(descriptor, layout.R_KEPT), self._word(descriptor, layout.R_KEPT_AT) != 0
        kept = ctypes.string_at(kept_at, self._word(descriptor, layout.R_KEPT_BYTES)) if kept_at else b""
        slot = self._kernels["release"](self._at, self._address(descriptor)) - 1
        if kept_at:
            self.forget(descriptor)
        request = None
        if slot >= 0:
            learnt = self._of_form[form][0]
            request = Request(learnt.method, learnt.target, learnt.headers, b"", is_kept=True)
        return TakenBack(slot, request, kept if is_begun else b"", b"" if is_begun else kept)

    def claim(self, slot: int, outcome: Outcome) -> Cancellable:
        """Has an outcome told how a call ends that was taken back."""
        assert self._calls is not None
        return self._calls.claim(slot, outcome)

    def _claim(self, slot: int, taker: int) -> None:
        descriptor = (taker - self._connections_at) // layout.CONNECTION_BYTES
        if self._word(descriptor, layout.R_CALL) == slot + 1:
            self.claimed(descriptor)

    def learn(self, raw: bytes, request: Request, message: bytes, metadata: Metadata) -> None:
        """Has kernels read the requests that are like this one, if its head has come before.

        Args:
            raw: the request as it came.
            request: what was read.
            message: what was made of it, whose answer is JSON.
            metadata: of the call.
        """
        head = raw[: raw.find(_HEAD_END) + len(_HEAD_END)]
        seen = _TRACEPARENT.sub(b"", _LENGTH.sub(b"", head))
        if seen not in self._tries:
            if len(self._tries) >= _SEEN:
                self._tries.clear()
            self._tries[seen] = 0
            return
        if self._tries[seen] >= _TRIES:
            return
        self._tries[seen] += 1
        block = headers.as_received(metadata)
        steps = form_steps(raw, head, request, message, block)
        if steps is None or tuple(steps) in self._known.values():
            return
        number = self._free_form()
        if number < 0:
            return
        row = self._forms[number]
        kept_block = np.frombuffer(block + b"\0", np.uint8)
        table, kept = _steps(steps)
        row[:] = 0
        row[layout.F_STEPS // 8], row[layout.F_COUNT // 8] = table.ctypes.data, len(steps)
        row[layout.F_HEADERS // 8], row[layout.F_HEADERS_BYTES // 8] = kept_block.ctypes.data, len(block)
        self._of_form[number] = (request, (table, kept, kept_block))
        self._known[number] = tuple(steps)
        if self.made(number, raw) != message:
            row[layout.F_COUNT // 8] = 0
            del self._known[number]

    @property
    def known(self) -> list[int]:
        """The numbers of the forms that kernels read."""
        return list(self._known)

    def made(self, number: int, raw: bytes) -> bytes | None:
        """The message that kernels make of a request by the form at a number; None if it is not of that form."""
        size = self._kernels["message"](self._at, number, raw, len(raw))
        return ctypes.string_at(self._message.ctypes.data, size) if size >= 0 else None

    def metadata(self, number: int) -> bytes:
        """The metadata of the call that was `made` last, by the form at this number."""
        return ctypes.string_at(
            int(self._state[layout.HEADERS // 8]), int(self._forms[number, layout.F_HEADERS_BYTES // 8])
        )

    def _free_form(self) -> int:
        """The place of a form that no call is in flight of: an empty one, or the one whose turn it is; -1 if there is none."""
        for _ in range(layout.MOST_FORMS):
            number = self._next_form
            self._next_form = (number + 1) % layout.MOST_FORMS
            if not self._forms[number, layout.F_CALLS // 8]:
                return number
        return -1

    def learn_text(self, text: Text, message: bytes, body: bytes) -> None:
        """Has kernels write the answers whose replies have this text.

        Args:
            text: what they have in common.
            message: one of them.
            body: its answer's.
        """
        steps = text_steps(text)
        if steps is None:
            return
        number = self._next_text
        self._next_text = (number + 1) % layout.MOST_TEXTS
        row = self._texts[number]
        row[:] = 0
        table, kept = _steps(steps)
        prefix = np.frombuffer(text.prefix, np.uint8)
        names = [np.frombuffer(name.encode(), np.uint8) for name in TIMING]
        sizes = np.array([[name.ctypes.data, len(name)] for name in names], np.int64)
        self._of_text[number] = (table, kept, prefix, names, sizes)
        for at, value in (
            (layout.X_PREFIX, prefix.ctypes.data),
            (layout.X_PREFIX_BYTES, len(prefix)),
            (layout.X_STEPS, table.ctypes.data),
            (layout.X_COUNT, len(steps)),
            (layout.X_TAIL_BYTES, text.tail_bytes),
            (layout.X_NAMES, sizes.ctypes.data),
        ):
            row[at // 8] = value
        if self.written(number, message) != body:
            row[layout.X_COUNT // 8] = 0

    def written(self, number: int, message: bytes) -> bytes | None:
        """The body that kernels write of a reply by the text at a number; None if it has another one."""
        end = self._kernels["body"](self._at, number, message, len(message))
        begin = self._reply.ctypes.data + layout.HEAD_ROOM
        return ctypes.string_at(begin, end - begin) if end > begin else None


def _claim_nothing(_descriptor: int) -> None:
    """Where there are no connections yet."""


def _steps(steps: Sequence[Step]) -> tuple[Any, list[Any]]:
    """The table of steps, and what is to be kept as long as it."""
    kept = [np.frombuffer(step.content, np.uint8) if step.content else None for step in steps]
    rows = [
        [step.kind, step.more if content is None else content.ctypes.data, len(step.content) or step.size, step.more]
        for step, content in zip(steps, kept, strict=True)
    ]
    return np.array(rows, np.int64), kept


def form_steps(raw: bytes, head: bytes, request: Request, message: bytes, block: bytes) -> list[Step] | None:
    """How requests like this one become messages like this one; None if there is no plain way.

    Args:
        raw: the request as it came: its head, and its body behind that.
        head: up to the empty line and with it.
        request: what was read.
        message: what was made of it.
        block: the metadata of the call.
    """
    length = _LENGTH.search(head)
    if (
        length is None
        or len(raw) > MOST_BYTES
        or len(message) > _MOST_MESSAGE_BYTES
        or len(block) > layout.HEADERS_BYTES
        or not request.is_kept
        or not request.headers.keys().isdisjoint(_OTHERWISE)
        or raw[len(head) :] != request.body
    ):
        return None
    try:
        body = _decode(request.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    slots = [(length.span(1), Step(layout.LENGTH))]
    if (trace := _TRACEPARENT.search(head)) is not None:
        place = block.find(headers.pair("traceparent", trace[1]))
        if place < 0:
            return None
        value_at = place + len(headers.pair("traceparent", b""))
        slots.append((trace.span(1), Step(layout.TRACE, more=value_at)))
    slots.append(((len(head), len(head)), Step(layout.BODY)))
    names, tensors = _head_of(message)
    slots.append(((len(head), len(head)), Step(layout.PUT, names)))
    puts: list[tuple[tuple[int, int], Step]] = [((len(head), len(head)), Step(layout.PUT, tensors))]
    if (identifier := bytes(body.id)) not in (b"", b"null"):
        if len(identifier) > _MOST_ID_BYTES or b"\\" in identifier:
            return None
        at = _place(raw, request.body, body.id) + 1
        span = (at, at + len(identifier) - 2)
        puts = [(span, Step(layout.IDENTIFIER)), ((span[1], span[1]), Step(layout.PUT, tensors))]
    slots.sort(key=lambda slot: slot[0])
    slots += puts
    for tensor in body.inputs:
        if (found := _tensor_slots(tensor, _place(raw, request.body, tensor.data))) is None:
            return None
        slots += found
    return _with_literals(raw, slots)


def _with_literals(raw: bytes, slots: Sequence[tuple[tuple[int, int], Step]]) -> list[Step] | None:
    """The steps of these places, and what stands between them; None if they are not in this order."""
    steps: list[Step] = []
    at = 0
    for (begin, end), step in slots:
        if begin < at:
            return None
        if begin > at:
            steps.append(Step(layout.LITERAL, raw[at:begin]))
        if step.kind != layout.PUT or step.content:
            steps.append(step)
        at = end
    if at < len(raw):
        steps.append(Step(layout.LITERAL, raw[at:]))
    return steps


def _place(raw: bytes, body: bytes, part: msgspec.Raw) -> int:
    """Where a part of the body lies in the request."""
    inside = np.frombuffer(memoryview(part), np.uint8).ctypes.data - np.frombuffer(body, np.uint8).ctypes.data
    return int(inside) + len(raw) - len(body)


def _head_of(message: bytes) -> tuple[bytes, bytes]:
    """What of a message comes before its id, and what comes between that and its contents."""
    at = names_end = tensors_at = 0
    while at < len(message):
        number, _, _, _, following = read_field(message, at, len(message))
        if number == _RAW_FIELD:
            break
        if number <= _VERSION_FIELD:
            names_end = tensors_at = following
        elif number == _ID_FIELD:
            tensors_at = following
        at = following
    return message[:names_end], message[tensors_at:at]


def _tensor_slots(tensor: _Tensor, place: int) -> Iterator[tuple[tuple[int, int], Step]] | None:
    """Where the elements of a tensor stand whose data begin at a place; None if they are not numbers or texts alone."""
    data = bytes(tensor.data)
    if tensor.datatype == "BYTES":
        runs = list(_TEXTS.finditer(data))
        if len(runs) != 1:
            return None
        count = sum(1 for _ in re.finditer(_TEXT, runs[0][0]))
        return iter([((place + runs[0].start(), place + runs[0].end()), Step(layout.STRINGS, size=count))])
    kind = layout.KINDS.get(tensor.datatype)
    if kind is None:
        return None
    runs = list(_NUMBERS.finditer(data))
    counts = [run[0].count(b",") + 1 for run in runs]
    if not runs or sum(counts) != prod(tensor.shape):
        return None
    size = layout.KIND_BYTES[kind] * sum(counts)
    first = place + runs[0].start()
    slots = [((first, first), Step(layout.PUT, _RAW + varint(size)))]
    slots += [
        ((place + run.start(), place + run.end()), Step(layout.NUMBERS, size=count, more=kind))
        for run, count in zip(runs, counts, strict=True)
    ]
    return iter(slots)


def text_steps(text: Text) -> list[Step] | None:
    """How replies of a text become the bodies of answers; None if there is no plain way."""
    steps = [Step(layout.LITERAL, text.opening), Step(layout.IDENTIFIED, b'"id":"')]
    first, second, third, last = text.timed
    for number, part in enumerate((first, second, third)):
        steps += (Step(layout.LITERAL, part), Step(layout.MICROSECONDS, size=number))
    steps.append(Step(layout.LITERAL, last))
    for (head, _, datatype, shape, _), following in zip(text.raws, text.between, strict=True):
        kind = layout.KINDS.get(datatype)
        if kind is None:
            return None
        steps += (
            Step(layout.EXPECT, head),
            Step(layout.LITERAL, b"["),
            Step(layout.NUMBERS, size=prod(shape), more=kind),
            Step(layout.LITERAL, b"]" + following),
        )
    longest = sum(
        step.size * (layout.NUMBER_BYTES + 1)
        if step.kind == layout.NUMBERS
        else len(step.content) + layout.NUMBER_BYTES
        for step in steps
    )
    return steps if longest + _MOST_ID_BYTES <= _MOST_ANSWER_BYTES else None
