"""Requests that are alike: what Python found out about one, written down so that kernels answer those that follow.

`steps` says how a request's bytes become its message, and how a reply becomes an answer's body; both are tried on the request
or reply that they were made of before kernels get them. `Forms` keeps the tables that it shares with the kernels, and says
which connections they may read. It is for the reactor's thread.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from penstock.names import INFERENCE_SERVICE
from penstock_server.call import Cancellable
from penstock_server.kernels.compiled import Library
from penstock_server.rest import layout
from penstock_server.rest.answers import Answer
from penstock_server.rest.http import JSON, Request
from penstock_server.rest.open_inference import TIMING, ReplyText, text_of
from penstock_server.rest.powers import powers
from penstock_server.rest.steps import (
    LENGTH,
    TRACEPARENT,
    Example,
    Parts,
    Step,
    form_steps,
    infer_parts,
    row_parts,
    row_text_steps,
    text_steps,
)
from penstock_server.transport.layout import EPOLL_EVENT_BYTES
from penstock_server.transport.local import Begin, GuestKernels, Outcome

_SEEN: Final = 256
_TRIES: Final = 8
"""How many forms requests with one head may have."""
_NS: Final = 1e-9
_INFER: Final = f"/{INFERENCE_SERVICE}/ModelInfer"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: " % JSON
_KEY_BYTES: Final = 64

Render = Callable[[bytes], Answer]


class BodyKind(NamedTuple):
    """How bodies of one kind are read and answered.

    Attributes:
        kind: of the forms and the texts, as `layout` has it.
        parts: finds what differs from one body to the next, of a body and its message.
    """

    kind: int
    parts: Callable[[bytes, bytes], Parts | None]


TENSORS: Final = BodyKind(layout.OF_TENSORS, infer_parts)
"""The Open Inference Protocol."""
ROW: Final = BodyKind(layout.OF_ROWS, row_parts)
"""One row of `/predict/MODEL`. Its message says what the version takes, so it holds as long as the same versions serve."""


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
        render: makes the answer of the reply.
        begun: of a request that is not whole.
        unsent: of an answer that is not sent.
    """

    slot: int
    request: Request | None
    render: Render | None
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
        generation: an object that is another one whenever other versions may be served.

    Attributes:
        claimed: is told the descriptor of a connection whose call has ended otherwise than with a reply that kernels take.
    """

    def __init__(
        self, kernels: Library, calls: Calls | None = None, generation: Callable[[], object] = lambda: None
    ) -> None:
        self._kernels = kernels.brief
        self._library = kernels  # the transport calls it by its address
        self._calls = calls
        self._generation = generation
        self._seen: object = generation()
        self.claimed: Callable[[int], None] = _claim_nothing
        self._kept: list[Any] = []
        self._of_form: dict[int, tuple[Request, Render, Any]] = {}
        self._texts_tried: dict[bytes, int] = {}
        self._known: dict[int, tuple[Step, ...]] = {}
        self._of_text: dict[int, Any] = {}
        self._prefixes: dict[int, tuple[int, bytes]] = {}
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
        request = render = None
        if slot >= 0:
            learnt, render, _ = self._of_form[form]
            request = Request(learnt.method, learnt.target, learnt.headers, b"", is_kept=True)
        return TakenBack(slot, request, render, kept if is_begun else b"", b"" if is_begun else kept)

    def claim(self, slot: int, outcome: Outcome) -> Cancellable:
        """Has an outcome told how a call ends that was taken back."""
        assert self._calls is not None
        return self._calls.claim(slot, outcome)

    def _claim(self, slot: int, taker: int) -> None:
        descriptor = (taker - self._connections_at) // layout.CONNECTION_BYTES
        if self._word(descriptor, layout.R_CALL) == slot + 1:
            self.claimed(descriptor)

    def look_after(self) -> None:
        """Forgets what held for the versions that were served before."""
        now = self._generation()
        if now is self._seen:
            return
        self._seen = now
        self._tries.clear()
        for number in self.known:
            if self._forms[number, layout.F_KIND // 8] == layout.OF_ROWS:
                self._forget_form(number)

    def _forget_form(self, number: int) -> None:
        """Has kernels read no more requests of a form. Those in flight are answered."""
        self._forms[number, layout.F_COUNT // 8] = 0
        del self._known[number]

    def learn(self, example: Example, way: BodyKind, render: Render) -> None:
        """Has kernels read the requests that are like this one, if its head has come before.

        Args:
            example: the request.
            way: how it was read.
            render: makes the answer of the reply, which is JSON.
        """
        seen = TRACEPARENT.sub(b"", LENGTH.sub(b"", example.head))
        if seen not in self._tries:
            if len(self._tries) >= _SEEN:
                self._tries.clear()
            self._tries[seen] = 0
            return
        if self._tries[seen] >= _TRIES:
            return
        self._tries[seen] += 1
        steps = form_steps(example, way.parts)
        if steps is None or tuple(steps) in self._known.values():
            return
        number = self._free_form()
        if number < 0:
            return
        row = self._forms[number]
        kept_block = np.frombuffer(example.block + b"\0", np.uint8)
        table, kept = _steps(steps)
        row[:] = 0
        row[layout.F_STEPS // 8], row[layout.F_COUNT // 8] = table.ctypes.data, len(steps)
        row[layout.F_HEADERS // 8], row[layout.F_HEADERS_BYTES // 8] = kept_block.ctypes.data, len(example.block)
        row[layout.F_KIND // 8] = way.kind
        self._of_form[number] = (example.request, render, (table, kept, kept_block))
        self._known[number] = tuple(steps)
        if self.made(number, example.raw) != example.message:
            self._forget_form(number)

    @property
    def known(self) -> list[int]:
        """The numbers of the forms that kernels read."""
        return list(self._known)

    def made(self, number: int, raw: bytes) -> bytes | None:
        """The message that kernels make of a request by the form at a number; None if it is not of that form."""
        size = self._kernels["message"](self._at, number, raw, len(raw))
        return ctypes.string_at(self._message.ctypes.data, size) if size >= 0 else None

    def awaits(self, number: int, raw: bytes) -> bool:
        """Whether these bytes are the beginning of a request of the form at a number, so that kernels wait for the rest."""
        return bool(self._kernels["message"](self._at, number, raw, len(raw)) == layout.SHORT)

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

    def learn_text(self, text: ReplyText, message: bytes, body: bytes) -> None:
        """Has kernels write the answers whose replies have this text.

        Args:
            text: what they have in common.
            message: one of them.
            body: its answer's.
        """
        self._learn_text(text, text_steps(text), TENSORS, message, body)

    def learn_row_text(self, message: bytes, body: bytes) -> None:
        """Has kernels write the answers to one row whose replies are like this one.

        Args:
            message: the reply.
            body: its answer's.
        """
        key = message[:_KEY_BYTES]
        tries = self._texts_tried.get(key, 0)
        if tries >= _TRIES:
            return
        if len(self._texts_tried) >= _SEEN:
            self._texts_tried.clear()
        self._texts_tried[key] = tries + 1
        if (text := text_of(message)) is not None:
            self._learn_text(text, row_text_steps(text, message), ROW, message, body)

    def _learn_text(
        self, text: ReplyText, steps: Sequence[Step] | None, way: BodyKind, message: bytes, body: bytes
    ) -> None:
        if steps is None or (way.kind, text.prefix) in self._prefixes.values():
            return
        number = self._next_text
        self._next_text = (number + 1) % layout.MOST_TEXTS
        self._prefixes[number] = (way.kind, text.prefix)
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
            (layout.X_KIND, way.kind),
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
