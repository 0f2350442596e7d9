"""Hostile requests, ten thousand of each kind against a server of its own: what they leave in its memory."""

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import grpc
import grpc.aio
import numpy as np

from bench import inference
from bench.faults import graphs
from bench.faults.mix import callers
from bench.faults.mix.questions import Question, Questions, request
from bench.faults.number import Number
from bench.faults.scenario import Run
from bench.faults.served import ServerState, serving
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool
from penstock import inference_pb2 as pb
from penstock.names import PARAMETER_TIMEOUT

REQUESTS: Final = 10_000
OUTPUTS: Final = 8
_WARM_REQUESTS: Final = 5_000
_CONNECTIONS, _STREAMS = 4, 16
_KIND_S: Final = 60.0
_SETTLES_S: Final = 4.0
_LOOK_S: Final = 0.05
_PLANS_BYTES: Final = 200_000_000
_REASON: Final = 90
_UNREAD_STREAMS: Final = 20
_SMALL_WINDOWS: Final = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
"""What is not read stays at the server: the client's transport takes no more than this per stream."""
_UNREAD_ROWS: Final = 50
_UNREAD_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of hostile request.

    Attributes:
        messages: this many different ones; they are sent in turn until there were enough.
        count: how many of the ten thousand are sent, if each costs much: a share.
        path: the method.
        timeout_s: the deadline of each call.
    """

    messages: Callable[[int], Sequence[bytes]]
    share: float = 1.0
    path: str = inference.METHOD
    timeout_s: float | None = None


def play(run: Run) -> Iterator[Number]:
    """Plays each kind against a new server, after as many honest requests as warm it up."""
    count = run.times(full=REQUESTS, quick=2_000)
    repository = run.folder / "repository"
    graphs.put(repository, "promoted", 1, graphs.answering(1))
    graphs.put(repository, "outputs", 1, graphs.many_outputs(OUTPUTS))
    graphs.put(repository, "wide", 1, graphs.wide())
    for name in (*KINDS, _UNREAD):
        run.say(f"{name}: {count:,} requests")
        with (
            serving(
                run.folder / "server",
                *("--model-repository", str(repository)),
                models={"promoted", "outputs", "wide"},
            ) as (server, state),
            LoadPool() as pool,
        ):
            yield from _play_kind(name, count, address=server.grpc, state=state, pool=pool, run=run)


def _play_kind(
    name: str, count: int, *, address: str, state: ServerState, pool: LoadPool, run: Run
) -> Iterator[Number]:
    honest = _honest()
    pool.run(_plan(address, honest, _WARM_REQUESTS))
    before, workers_before = state.tree_bytes(), state.workers_bytes()
    with _Peak(state) as peak:
        if name == _UNREAD:
            codes, held = asyncio.run(_leave_unread(address, count, state))
            yield Number(f"{name}: RSS of the tree while unread", held / before, f"{_mb(before)} -> {_mb(held)} MB")
        else:
            codes = _send(KINDS[name], count, address, pool)
    time.sleep(_SETTLES_S)
    pool.run(_plan(address, honest, 100))
    after, workers_after = state.tree_bytes(), state.workers_bytes()
    note = (
        f"{_mb(before)} -> {_mb(after)} MB, workers {_mb(workers_before)} -> {_mb(workers_after)}, "
        f"peak {_mb(peak.most)}"
    )
    yield Number(f"{name}: RSS of the tree", after / before, note)
    yield Number(f"{name}: restarts of workers", state.restarts())
    wrong = _wrong(address)
    yield Number(f"{name}: wrong answers afterwards", wrong)
    run.details.append(f"{name}: {', '.join(f'{number:,} {code}' for code, number in codes.most_common(4))}")


def _send(kind: Kind, count: int, address: str, pool: LoadPool) -> Counter[str]:
    """Sends a kind's requests, on new connections where an answer broke the old ones."""
    left = max(1, int(count * kind.share))
    messages = kind.messages(left)
    codes: Counter[str] = Counter()
    give_up_at = time.monotonic() + _KIND_S
    while left > 0 and time.monotonic() < give_up_at:
        try:
            result = pool.run(_plan(address, messages, left, path=kind.path, timeout_s=kind.timeout_s))
        except LoadError as error:
            codes[f"load: {error}"] += 1
            break
        codes.update({reason[:_REASON]: number for reason, number in result.failures.items()})
        codes["OK"] += result.succeeded
        left -= max(1, result.attempted)
    return codes


def _plan(
    address: str,
    messages: Sequence[bytes],
    requests: int,
    *,
    path: str = inference.METHOD,
    timeout_s: float | None = None,
) -> LoadPlan:
    return LoadPlan(
        address,
        path,
        tuple(messages),
        connections=_CONNECTIONS,
        streams=_STREAMS,
        duration_s=_KIND_S,
        max_requests=requests,
        timeout_s=timeout_s,
    )


def _honest() -> list[bytes]:
    questions = Questions(0)
    found = [questions.of("promoted", 1 + at % 3).request.SerializeToString() for at in range(64)]
    found += [_outputs(1 + at % 3, ()).SerializeToString() for at in range(16)]
    return [*found, _wide(_UNREAD_ROWS).SerializeToString()]


def _wrong(address: str) -> int:
    """How many of some honest requests get no right answer."""
    questions = Questions(1)
    asked: list[Question] = [questions.of("promoted", 1 + at) for at in range(10)]
    wrong = 0
    with inference.channel(address) as opened:
        call = inference.infer(opened)
        for each in asked:
            try:
                wrong += each.check(call(each.request.SerializeToString(), timeout=10)) is not None
            except grpc.RpcError:
                wrong += 1
    return wrong


def _outputs(rows: int, names: Sequence[str]) -> pb.ModelInferRequest:
    """A request to the model of many outputs that chooses some."""
    made = request("outputs", "FP32", (rows, 2), bytes(8 * rows))
    for name in names:
        made.outputs.add(name=name)
    return made


def _wide(rows: int, *, request_id: str = "") -> pb.ModelInferRequest:
    made = request("wide", "FP32", (rows, 2), bytes(8 * rows))
    made.id = request_id
    return made


def _repeated(rows: int, times: int, different: int) -> Callable[[int], list[bytes]]:
    """One output named again and again."""
    return lambda _: [_outputs(rows + at, ["y0"] * times).SerializeToString() for at in range(different)]


def _layouts(count: int) -> list[bytes]:
    """Each with another order of outputs or another number of rows."""
    orders = [
        order
        for size in range(2, OUTPUTS + 1)
        for order in itertools.permutations([f"y{at}" for at in range(OUTPUTS)], size)
    ]
    choose = random.Random(0)
    return [_outputs(1 + at % 200, choose.choice(orders)).SerializeToString() for at in range(count)]


def _growing(count: int) -> list[bytes]:
    """Each with another number of rows and another number of outputs, named twice and more."""
    return [_outputs(1 + at % 500, ["y0", "y1"] * (1 + at // 500 + at % 37)).SerializeToString() for at in range(count)]


def _heads(count: int) -> list[bytes]:
    """Plain requests that are answered, and whose bytes before the row all differ, in content and in length.

    Each names a model twice; protobuf takes the last name.
    """
    made = []
    for at in range(count):
        other = pb.ModelInferRequest(model_name=f"{at} {'x' * (at % 900)}").SerializeToString()
        made.append(other + request("promoted", "FP64", (1, 2), bytes(16)).SerializeToString())
    return made


def _tiny_timeouts(count: int) -> list[bytes]:
    made = []
    for at in range(min(count, 1000)):
        each = request("promoted", "FP64", (1, 2), bytes(16))
        each.parameters[PARAMETER_TIMEOUT].int64_param = 1 + at % 50
        made.append(each.SerializeToString())
    return made


def _malformed(count: int) -> list[bytes]:
    """Shapes, lengths, datatypes and names that are wrong, and bytes that are no message."""
    choose = random.Random(0)
    noise = np.random.default_rng(0)
    shapes: tuple[list[int], ...] = ([0, 2**62], [-1, 2], [2**63 - 1], [], [1, 2, 3], [2, 1], [2**31, 2**31], [1] * 300)
    made = []
    for at in range(count):
        if at % 5 == 0:
            made.append(noise.bytes(choose.randrange(1, 400)))
            continue
        each = request(choose.choice(("promoted", "outputs", "nobody")), "FP64", (1, 2), bytes(choose.randrange(64)))
        tensor = each.inputs[0]
        if at % 5 == 1:
            del tensor.shape[:]
            tensor.shape.extend(choose.choice(shapes))
        elif at % 5 == 2:
            tensor.datatype = choose.choice(("FP32", "BYTES", "", "FP128", f"X{at}", "x" * 500))
        elif at % 5 == 3:
            tensor.name = f"unknown {at} {'n' * choose.randrange(500)}"
        else:
            each.parameters[f"triton_{at}"].string_param = "v" * choose.randrange(500)
        made.append(each.SerializeToString())
    return made


def _huge_names(count: int) -> list[bytes]:
    """Models, versions, tensors, outputs and ids with names of 64 KiB, all different."""
    made = []
    size = 65_536
    for at in range(min(count, _PLANS_BYTES // size // 2)):
        name = f"{at} " + "é" * (size // 2)
        each = request("promoted", "FP64", (1, 2), bytes(16))
        match at % 5:
            case 0:
                each.model_name = name
            case 1:
                each.model_version = name
            case 2:
                each.inputs[0].name = name
            case 3:
                each.outputs.add(name=name)
            case _:
                each.id = name
        made.append(each.SerializeToString())
    return made


KINDS: Final = {
    "outputs named 2,000 times": Kind(_repeated(1, 2_000, 16)),
    "outputs named 1,000 times, 20,000 rows": Kind(_repeated(20_000, 1_000, 4), share=0.004),
    "outputs named 200,000 times": Kind(_repeated(1, 200_000, 20), share=0.01),
    "layouts, chosen outputs": Kind(_layouts),
    "layouts, outputs named again": Kind(_growing),
    "heads for the parse cache": Kind(_heads),
    "tiny deadlines of calls": Kind(lambda _: _honest(), timeout_s=2e-5),
    "tiny deadlines of requests": Kind(_tiny_timeouts),
    "malformed tensors": Kind(_malformed),
    "huge names": Kind(_huge_names),
    "unknown methods": Kind(lambda _: _honest(), path="/inference.GRPCInferenceService/Nothing"),
}
"""Unary kinds; unread streams are played besides."""
_UNREAD: Final = "streams that are not read"


async def _leave_unread(address: str, count: int, state: ServerState) -> tuple[Counter[str], int]:
    """Sends the requests over some streams and reads nothing; says what the server holds then. Then cuts the streams."""
    opened = callers.channels(address, 1, *_SMALL_WINDOWS)
    _, streaming = callers.methods(opened)
    sent = Counter[str]()
    message = _wide(_UNREAD_ROWS, request_id="unread").SerializeToString()

    async def messages() -> AsyncIterator[bytes]:
        for _ in range(count // _UNREAD_STREAMS):
            sent["messages taken by the client's transport"] += 1
            yield message
        await asyncio.Event().wait()

    calls = [streaming[0](messages(), timeout=2 * _KIND_S) for _ in range(_UNREAD_STREAMS)]
    await asyncio.sleep(_UNREAD_S)
    held = await asyncio.to_thread(state.tree_bytes)
    for call in calls:
        call.cancel()
    for channel in opened:
        await channel.close()
    return sent, held


class _Peak:
    """The most memory that the server's processes hold while the context lasts."""

    def __init__(self, state: ServerState) -> None:
        self.most = 0
        self._state = state
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.most = max(self.most, self._state.tree_bytes())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}"
