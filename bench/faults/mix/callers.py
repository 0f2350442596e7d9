"""The callers of the mix, each a task that asks until the time is over.

A call's own deadline ends it at the client, whatever the server does. So most callers set one that no honest wait
reaches, and a call that ends by it is one that the server did not end.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

import grpc
import grpc.aio

from bench import inference
from bench.faults.mix.questions import ALIASED, FRAGILE, MAX_ROWS, MODELS, PROMOTED, PROMOTED_SLOW, Question, Questions
from bench.faults.mix.tally import ALWAYS, FAILED, NAMED, OK, SHORT, Tally
from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE, PARAMETER_PRIORITY, PARAMETER_ROUTING_KEY, PARAMETER_TIMEOUT

LONG_S: Final = 20.0
"""A deadline that no request of the mix needs."""
MARGIN_S: Final = 5.0
"""A call that has not ended this long after its deadline never will."""
_LATE_S: Final = 3.0
STREAM: Final = f"/{INFERENCE_SERVICE}/ModelStreamInfer"
_ENDLESS: Final = "no end"
_STREAMED: Final = (10, 80)
_DISCARDED: Final = 160
_FAILING: Final = 12
_FAILING_ROWS: Final = (1, 8, 24, 64)
_UNREAD_S: Final = 2.0
_RETRY_S: Final = 0.02

Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Streaming = grpc.aio.StreamStreamMultiCallable[bytes, bytes]


@dataclass(slots=True)
class Mix:
    """What all callers share.

    Attributes:
        versions: the versions of `PROMOTED`, newest last; promotions add to it.
        ends_at: when callers begin no more calls, by the monotonic clock.
    """

    unary: list[Unary]
    streaming: list[Streaming]
    questions: Questions
    tally: Tally
    ends_at: float
    random: random.Random
    versions: deque[str] = field(default_factory=lambda: deque(["1"], maxlen=3))
    ids: "count[int]" = field(default_factory=count)

    @property
    def goes_on(self) -> bool:
        """Whether callers begin another call."""
        return time.monotonic() < self.ends_at

    def ask(self) -> tuple[Question, str]:
        """A question to any model, and the version that it names."""
        choose = self.random
        model = choose.choice(sorted(MODELS))
        rows = 1 if choose.random() < 0.7 else choose.randint(2, MAX_ROWS)
        if model in ("checked", "heavy") and choose.random() < 0.03:
            question = self.questions.marked(model, rows)
        else:
            question = self.questions.of(model, rows)
        version = ""
        if choose.random() < 0.2:
            version = "@champion" if choose.random() < 0.4 else self._number(model)
            question.request.model_version = version
        return question, version

    def _number(self, model: str) -> str:
        if model in (PROMOTED, PROMOTED_SLOW):
            return self.random.choice(self.versions)
        return str(self.random.randint(1, 3)) if model == ALIASED else ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it was sent.

    Attributes:
        allowed: how it may end.
        deadline_s: of the call.
        timeout_s: the deadline in the request itself; None for none.
    """

    question: Question
    message: bytes
    id: str
    version: str
    allowed: frozenset[str]
    deadline_s: float
    timeout_s: float | None


def dressed(mix: Mix, *, has_id: bool, is_streamed: bool = False) -> Sent:
    """A question with an id, a priority, a routing key and deadlines, or without."""
    question, version = mix.ask()
    choose, request = mix.random, question.request
    allowed = FAILED if question.is_marked else ALWAYS
    if version:
        allowed |= NAMED
    if has_id:
        request.id = f"r{next(mix.ids)}"
    if choose.random() < 0.3:
        request.parameters[PARAMETER_PRIORITY].int64_param = choose.randint(1, 9)
    if choose.random() < 0.2:
        request.parameters[PARAMETER_ROUTING_KEY].string_param = f"key {choose.randrange(1000)}"
    deadline_s, timeout_s = LONG_S, None
    chance = choose.random()
    if chance < 0.1:
        timeout_s = 10.0 ** choose.uniform(-5, 0)  # 10 us to 1 s
        request.parameters[PARAMETER_TIMEOUT].int64_param = max(1, int(timeout_s * 1e6))
        allowed |= {SHORT}
    elif chance < 0.2 and not is_streamed:
        deadline_s = 10.0 ** choose.uniform(-3, 0)
        allowed |= {SHORT}
    return Sent(question, request.SerializeToString(), request.id, version, allowed, deadline_s, timeout_s)


async def ask_singly(mix: Mix) -> None:
    """Asks one request after another, and checks each answer; cancels some."""
    while mix.goes_on:
        sent = dressed(mix, has_id=mix.random.random() < 0.6)
        if mix.random.random() < 0.08:
            await _cancel(mix, sent)
        else:
            await _call(mix, "unary", sent)


async def ask_promptly(mix: Mix) -> None:
    """Asks single rows of the cheap models, many of which wait in one batch, without anything special."""
    while mix.goes_on:
        model = mix.random.choice((PROMOTED, PROMOTED, "checked", ALIASED))
        question = mix.questions.of(model, 1)
        await _call(mix, "single row", _plain(question, ALWAYS))


async def ask_by_version(mix: Mix) -> None:
    """Asks promoted models by a version's number, again and again, until it is not there: while it is unloaded, too."""
    while mix.goes_on:
        question = mix.questions.of(mix.random.choice((PROMOTED, PROMOTED_SLOW, PROMOTED_SLOW)), 1)
        version = question.request.model_version = mix.versions[-1]
        sent = replace(_plain(question, ALWAYS | NAMED), version=version)
        while mix.goes_on and await _call(mix, "by version", sent) == OK:
            pass
        await asyncio.sleep(_RETRY_S)


async def _call(mix: Mix, caller: str, sent: Sent) -> str:
    """Sends a request, counts how it ended, and says so."""
    tally = mix.tally
    tally.calls += 1
    tally.requests += 1
    call = mix.random.choice(mix.unary)(sent.message, timeout=sent.deadline_s)
    started = time.monotonic()
    limit_s = sent.deadline_s if sent.timeout_s is None else min(sent.deadline_s, sent.timeout_s)
    try:
        async with asyncio.timeout(limit_s + MARGIN_S):
            reply = pb.ModelInferResponse.FromString(await call)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        if code == SHORT and SHORT not in sent.allowed:
            _never_ended(tally, caller, sent)
        else:
            tally.end(caller, code, sent.allowed, error.details() or "")
        return code
    except TimeoutError:
        _never_ended(tally, caller, sent)
        return _ENDLESS
    tally.end(caller, OK, sent.allowed)
    tally.answer(reply, sent.question.check(reply), expected_id=sent.id, version=sent.version)
    if sent.timeout_s is not None and time.monotonic() - started > sent.timeout_s + _LATE_S:
        tally.late += 1
        tally.say(f"{caller}: an answer after {time.monotonic() - started:.1f} s, expected in {sent.timeout_s:.3f} s")
    return OK


async def _cancel(mix: Mix, sent: Sent) -> None:
    mix.tally.calls += 1
    mix.tally.requests += 1
    call = mix.random.choice(mix.unary)(sent.message, timeout=LONG_S)
    await asyncio.sleep(mix.random.choice((0.0, 0.0005, 0.002, 0.01)))
    call.cancel()
    mix.tally.codes["cancelled", "CANCELLED" if call.cancelled() else "ended before"] += 1


def _never_ended(tally: Tally, caller: str, sent: Sent) -> None:
    tally.endless += 1
    tally.codes[caller, _ENDLESS] += 1
    request = sent.question.request
    tally.say(f"{caller}: a call of {request.model_name} version {sent.version!r} did not end")


async def ask_streams(mix: Mix, *, pause_s: float = 0.0, caller: str = "stream") -> None:
    """Sends many requests over each stream, some of which fail, and pairs the answers; it may not read for a while."""
    while mix.goes_on:
        sent = [dressed(mix, has_id=True, is_streamed=True) for _ in range(mix.random.randint(*_STREAMED))]
        await _stream(mix, caller, sent, pause_s=pause_s)


async def ask_failing_streams(mix: Mix) -> None:
    """Streams that end with a status at the first error: a failure on a model's thread discards what waits elsewhere.

    Each caller sends the same requests again and again, since those that are discarded are what matters, and many of
    them. The one that fails takes another time in each stream, and is not always the first.
    """
    asked = [mix.questions.of(PROMOTED, mix.random.randint(1, 3)) for _ in range(_DISCARDED)]
    # The more rows, the later it fails: while more or fewer of the others wait.
    marked = [mix.questions.marked(FRAGILE, rows) for rows in _FAILING_ROWS]
    for number, question in enumerate((*asked, *marked)):
        question.request.id = f"d{number}"
    ready = [_plain(question, ALWAYS) for question in asked]
    failing = [_plain(question, FAILED) for question in marked]
    while mix.goes_on:
        # Answers go out in order: the first request's error ends the stream at once, on the thread of its model.
        place = 0 if mix.random.random() < 0.8 else mix.random.randrange(_DISCARDED // 4)
        sent = list(ready)
        sent.insert(place, mix.random.choice(failing))
        await _stream(mix, "stream with status", sent, ends_with_status=True)


def _plain(question: Question, allowed: frozenset[str]) -> Sent:
    request = question.request
    return Sent(question, request.SerializeToString(), request.id, "", allowed, LONG_S, None)


async def _stream(
    mix: Mix, caller: str, sent: list[Sent], *, pause_s: float = 0.0, ends_with_status: bool = False
) -> None:
    tally = mix.tally
    tally.calls += 1
    tally.requests += len(sent)
    metadata = (("triton_grpc_error", "true"),) if ends_with_status else ()
    call = mix.random.choice(mix.streaming)(_messages(sent), timeout=LONG_S + pause_s, metadata=metadata)
    waiting = {each.id: each for each in sent}
    anonymous: list[str] = []
    try:
        async with asyncio.timeout(LONG_S + pause_s + MARGIN_S):
            await asyncio.sleep(pause_s)
            async for message in call:
                _take(tally, caller, pb.ModelStreamInferResponse.FromString(message), waiting, anonymous)
            code, details = (await call.code()).name, await call.details() or ""
    except grpc.aio.AioRpcError as error:
        code, details = error.code().name, error.details() or ""
    except TimeoutError:
        code, details = SHORT, ""
        call.cancel()
    if code == SHORT:
        tally.endless += 1
        tally.codes[caller, _ENDLESS] += 1
        tally.say(f"{caller}: a stream did not end; {len(waiting)} of {len(sent)} requests have no answer")
        return
    tally.end(f"{caller}, whole", code, FAILED if ends_with_status else frozenset({OK}), details)
    if code == OK:
        _settle(tally, caller, waiting, anonymous)


async def _messages(sent: list[Sent]) -> AsyncIterator[bytes]:
    for each in sent:
        yield each.message


def _take(
    tally: Tally,
    caller: str,
    message: pb.ModelStreamInferResponse,
    waiting: dict[str, Sent],
    anonymous: list[str],
) -> None:
    """Counts one message of a stream. An error may or may not name its request; an answer always does."""
    reply = message.infer_response
    asked = waiting.pop(reply.id, None)
    if message.error_message:
        if asked is None:
            anonymous.append(message.error_message)
        else:
            _check_error(tally, caller, asked, message.error_message)
        return
    if asked is None:
        tally.wrong += 1
        tally.say(f"{caller}: an answer to {reply.id!r}, which was not asked on this stream or was answered before")
        return
    tally.end(caller, OK, asked.allowed)
    tally.answer(reply, asked.question.check(reply), expected_id=asked.id, version=asked.version)


def _settle(tally: Tally, caller: str, waiting: dict[str, Sent], anonymous: list[str]) -> None:
    """What is left when a stream has ended well: each request without an answer must have had an error."""
    for asked, error in zip(waiting.values(), anonymous, strict=False):
        _check_error(tally, caller, asked, error)
    if len(waiting) != len(anonymous):
        tally.lost += abs(len(waiting) - len(anonymous))
        tally.say(f"{caller}: {len(waiting)} requests without an answer and {len(anonymous)} errors; expected as many")


def _check_error(tally: Tally, caller: str, asked: Sent, error: str) -> None:
    """Errors in a stream are sentences; what is checked is that only a request that may fail has one."""
    tally.codes[caller, "error"] += 1
    if not (asked.question.is_marked or SHORT in asked.allowed or asked.version) and not _is_full(error):
        tally.unexpected[caller, "error"] += 1
        tally.say(f"{caller}: unexpected error for {asked.question.request.model_name}: {error}")


def _is_full(error: str) -> bool:
    """Whether an error says that a queue is full, which any request may meet."""
    return "full" in error or "wait" in error or "queue" in error


def start(mix: Mix, *, asking: int) -> list["asyncio.Task[None]"]:
    """Starts the callers: this many that ask singly, and the streams beside them."""
    coroutines = [
        *(ask_singly(mix) for _ in range(asking // 4)),
        *(ask_promptly(mix) for _ in range(asking // 2)),
        *(ask_by_version(mix) for _ in range(asking // 4)),
        *(ask_streams(mix) for _ in range(2)),
        *(ask_failing_streams(mix) for _ in range(_FAILING)),
        ask_streams(mix, pause_s=_UNREAD_S, caller="stream read late"),
    ]
    return [asyncio.create_task(each) for each in coroutines]


def channels(address: str, many: int, *more: tuple[str, int]) -> list[grpc.aio.Channel]:
    """Channels with connections of their own, which the workers share."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *more)
    return [grpc.aio.insecure_channel(address, options) for _ in range(many)]


def methods(opened: list[grpc.aio.Channel]) -> tuple[list[Unary], list[Streaming]]:
    """ModelInfer and ModelStreamInfer of each channel, with serialized messages."""
    return (
        [channel.unary_unary(inference.METHOD) for channel in opened],
        [channel.stream_stream(STREAM) for channel in opened],
    )
