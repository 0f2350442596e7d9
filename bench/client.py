"""`python -m bench.client`: what a call costs its caller, for Penstock's client and others, one row per request.

Two requests are made: an array for a model of one tensor, and a dict of 15 values for a model that takes one tensor per
column. Each caller is a process of its own, as the server is, since grpcio's threads cost whoever is in theirs; all its
threads are counted. They take turns, so that what else the machine does meets all, and medians are shown.
"""

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import numpy as np

from bench import models, strings
from bench.servers.measured import SERVERS, running
from penstock import inference_pb2 as pb
from penstock.names import INFER_METHOD
from penstock_client import AsyncClient, Client
from penstock_client.base import Transport
from penstock_client.session import METHODS

TURNS: Final = 15
CALLS: Final = 200
IN_FLIGHT: Final = (4, 16, 64)
BARE: Final = "raw stub, message made before"
TRITON: Final = "tritonclient.grpc"
_TIMEOUT_S: Final = 10.0
_WARM_UP_CALLS: Final = 20

Caller = Callable[[int], None]
"""Makes so many calls and looks at each answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One row, as each caller has it.

    Attributes:
        rows: for Penstock's client.
        message: makes the request, for stubs.
        infer: makes the call of a tritonclient.
    """

    model: str
    rows: Any
    message: Callable[[], pb.ModelInferRequest]
    infer: Callable[[Any], Any]


def matrix() -> Asked:
    """One tensor of 30 numbers."""
    row = models.sample("tabular", rows=1)

    def message() -> pb.ModelInferRequest:
        tensor = pb.ModelInferRequest.InferInputTensor(name=models.INPUT, datatype="FP32", shape=row.shape)
        return pb.ModelInferRequest(model_name="tabular", inputs=[tensor], raw_input_contents=[row.tobytes()])

    def infer(client: Any) -> Any:
        from tritonclient.grpc import InferInput

        given = InferInput(models.INPUT, list(row.shape), "FP32")
        given.set_data_from_numpy(row)
        return client.infer("tabular", [given])

    return Asked("tabular", row, message, infer)


def columns() -> Asked:
    """Ten numbers and five texts, a tensor each."""
    table = strings.table(1, seed=3)
    row: dict[str, float | str] = {name: float(table[name][0]) for name in strings.NUMBERS}
    row |= {name: bytes(table[name][0]).decode() for name in strings.STRINGS}  # type: ignore[arg-type]

    def infer(client: Any) -> Any:
        from tritonclient.grpc import InferInput

        given = []
        for name, value in row.items():
            is_text = isinstance(value, str)
            array = np.array([value], object) if is_text else np.array([value], np.float32)
            given.append(InferInput(name, [1], "BYTES" if is_text else "FP32"))
            given[-1].set_data_from_numpy(array)
        return client.infer(strings.NAME, given)

    return Asked(strings.NAME, row, lambda: strings.request(table, slice(0, 1)), infer)


REQUESTS: Final[Mapping[str, Callable[[], Asked]]] = {
    "an array of one row of 30 numbers": matrix,
    "a dict of one row of 15 columns": columns,
}


def _read(answer: Mapping[str, Any]) -> None:
    assert len(answer["label"]) == len(answer["probabilities"]) == 1


def _read_raw(reply: pb.ModelInferResponse) -> None:
    outputs = {tensor.name: raw for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)}
    assert len(np.frombuffer(outputs["label"], np.int64)) == 1
    assert len(np.frombuffer(outputs["probabilities"], np.float32)) == 2


def _stub(address: str, asked: Asked, exits: ExitStack, *, is_made: bool) -> Caller:
    stub = exits.enter_context(grpc.insecure_channel(address)).unary_unary(
        METHODS[INFER_METHOD], pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    made = asked.message()
    if is_made:
        return _times(lambda: _read_raw(stub(made, timeout=_TIMEOUT_S)))
    return _times(lambda: _read_raw(stub(asked.message(), timeout=_TIMEOUT_S)))


def _triton(address: str, asked: Asked, exits: ExitStack) -> Caller:
    from tritonclient.grpc import InferenceServerClient

    client = exits.enter_context(InferenceServerClient(address))

    def call() -> None:
        result = asked.infer(client)
        assert len(result.as_numpy("label")) == len(result.as_numpy("probabilities")) == 1

    return _times(call)


def _client(address: str, asked: Asked, exits: ExitStack, *, transport: Transport = "sockets") -> Caller:
    client = exits.enter_context(Client(address, transport=transport))
    return _times(lambda: _read(client.predict(asked.model, asked.rows)))


def _async_client(address: str, asked: Asked, exits: ExitStack, *, transport: Transport = "sockets") -> Caller:
    client = AsyncClient(address, transport=transport)
    loop = asyncio.new_event_loop()
    exits.callback(loop.close)
    exits.callback(lambda: loop.run_until_complete(client.close()))

    async def several(times: int) -> None:
        for _ in repeat(None, times):
            _read(await client.predict(asked.model, asked.rows))

    return lambda times: loop.run_until_complete(several(times))


def _many(address: str, asked: Asked, exits: ExitStack, *, in_flight: int) -> Caller:
    client = exits.enter_context(Client(address, transport="sockets"))

    def call(times: int) -> None:
        for answer in client.predict_many(asked.model, [asked.rows] * times, in_flight=in_flight):
            _read(answer)

    return call


CALLERS: Final[Mapping[str, Callable[[str, Asked, ExitStack], Caller]]] = {
    BARE: partial(_stub, is_made=True),
    "raw stub, message made per call": partial(_stub, is_made=False),
    TRITON: _triton,
    "Client.predict": _client,
    "Client.predict, by grpcio": partial(_client, transport="grpcio"),
    "AsyncClient.predict": _async_client,
    "AsyncClient.predict, by grpcio": partial(_async_client, transport="grpcio"),
    **{f"Client.predict_many, {most} in flight": partial(_many, in_flight=most) for most in IN_FLIGHT},
}
"""By name: each gets the server's address, and what leaves it tidy."""


def _times(call: Callable[[], None]) -> Caller:
    def several(times: int) -> None:
        for _ in repeat(None, times):
            call()

    return several


def _play(pipe: Connection, address: str, request: str, name: str) -> None:
    """One caller's process: makes as many calls as it is told, and tells what one took."""
    with ExitStack() as exits:
        call = CALLERS[name](address, REQUESTS[request](), exits)
        while times := pipe.recv():
            cpu, wall = time.process_time(), time.perf_counter()
            call(times)
            pipe.send(((time.process_time() - cpu) / times, (time.perf_counter() - wall) / times))


def measure(address: str, request: str, turns: int, calls: int) -> dict[str, tuple[float, float]]:
    """Each caller's seconds per call: of its process's CPU, and of time."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in CALLERS:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=_play, args=(theirs, address, request, name), daemon=True))
        processes[-1].start()
        theirs.close()  # with an end here, a process that has ended would be waited for
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CALLERS}
    for turn in range(turns + 1):
        for name, pipe in pipes.items():
            pipe.send(calls if turn else _WARM_UP_CALLS)
            found = pipe.recv()
            if turn:
                taken[name].append(found)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(0)
        process.join()
    return {name: (median(c for c, _ in each), median(w for _, w in each)) for name, each in taken.items()}


def table_of(found: Mapping[str, tuple[float, float]]) -> str:
    """Microseconds, and CPU as a multiple of the bare stub's and of tritonclient's."""
    lines = [f"{'microseconds per call':36}{'CPU':>8}{'time':>8}{'of stub':>10}{'of triton':>11}"]
    for name, (cpu, wall) in found.items():
        ratios = f"{cpu / found[BARE][0]:>10.2f}{cpu / found[TRITON][0]:>11.2f}"
        lines.append(f"{name:36}{cpu * 1e6:8.0f}{wall * 1e6:8.0f}{ratios}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.client", description="What a call costs its caller.")
    parser.add_argument("--server", choices=SERVERS, default="penstock", help="(default: penstock)")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"of each caller (default: {TURNS})")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"in a turn (default: {CALLS})")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        repository = Path(scratch) / "models"
        files = models.write(repository, {"tabular", strings.NAME})
        with running(SERVERS[options.server].command(repository, files)) as server:
            for name in REQUESTS:
                print(f"{name}, to {options.server}")
                print(table_of(measure(server.grpc, name, options.turns, options.calls)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
