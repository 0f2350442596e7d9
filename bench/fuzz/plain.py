"""Plain requests among what is fuzzed: what kernels take of damaged messages must be what protobuf itself reads in them."""

import struct
import time
from math import inf
from random import Random
from typing import Any, Final

import numpy as np

from bench.fuzz.broken import BrokenError
from penstock import inference_pb2 as pb
from penstock_server.errors import UnavailableError
from penstock_server.kernels import compiled
from penstock_server.metrics.counters import STAGES
from penstock_server.plain import layout
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.plain.lane import Form, LaneBatch, RawOutput, ReplyLayout
from penstock_server.plain.requests import PlainRequests, RawColumn
from penstock_server.tracing.layout import EXEMPLAR_WORDS

METHOD: Final = "/t.T/Infer"
_COLUMNS: Final = (
    RawColumn(layout.SINGLES, 0, 0, 4),
    RawColumn(layout.DOUBLES, 0, 8, 8, is_required=True),
    RawColumn(layout.TEXTS, 1),
    RawColumn(layout.ROWS, 2, 0, 8, is_required=True),
)
_ROW_BYTES: Final = (16, 0, 8)
_USUAL_ROWS: Final = 64
_CELLS: Final = 5
"""Of a histogram of latencies: one more than its bounds."""


def request(rows: int, name: str = "flights") -> bytes:
    """A request with one tensor of each kind."""
    made = pb.ModelInferRequest(model_name=name, id=f"request-{rows}")
    made.parameters["routing_key"].string_param = "user-7"
    for at, datatype in enumerate(("FP32", "FP64", "BYTES", "INT64")):
        made.inputs.add(name=f"column_{at}", datatype=datatype, shape=[rows, 1])
    texts = [b"t" * (at % 5) for at in range(rows)]
    made.raw_input_contents.extend(
        (
            struct.pack(f"<{rows}f", *range(rows)),
            struct.pack(f"<{rows}d", *range(rows)),
            b"".join(len(text).to_bytes(4, "little") + text for text in texts),
            struct.pack(f"<{rows}q", *range(rows)),
        )
    )
    return made.SerializeToString()


class Plain:
    """The lane of the one version that there is, and what runs its batches."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._requests = PlainRequests(compiled.library(KERNELS), transport.number_of(METHOD), transport)
        lane = self._requests.open_lane(_ROW_BYTES, lambda: None)
        assert lane is not None
        self._lane = lane
        self._refused = np.zeros(layout.REASONS + 1, np.int64)
        lane.open(
            most_requests=3,  # so that many are refused
            most_rows=1 << 20,
            most_bytes=1 << 26,
            usual_rows=_USUAL_ROWS,
            objective_s=inf,
            delay_s=0.0,
            errors=[UnavailableError("refused")] * layout.REASONS,
            codes=[0] * layout.REASONS,
            latency=[
                np.arange(_CELLS - 1),
                *(np.zeros(_CELLS, np.int64) for _ in range(2)),
                *(np.zeros(1) for _ in range(2)),
                np.zeros((len(STAGES), _CELLS, EXEMPLAR_WORDS), np.int64),
                np.zeros(_CELLS, np.int64),
            ],
            routed=np.zeros(1, np.int64),
            refusals=[self._refused[at : at + 1] for at in range(layout.REASONS + 1)],
            most_reply_bytes=1 << 20,
        )
        lane.set_cost(0.0, 0.0, 32)
        self._requests.learn(request(1), _COLUMNS, lane, Form(None, None), model="m")
        transport.sifter = self._requests
        self.taken = 0

    @property
    def refused(self) -> int:
        return int(self._refused[: layout.REASONS].sum())

    def run(self, dice: Random) -> None:
        """Runs a batch, if any request waits."""
        if not self._lane.requests:
            return
        batch = self._lane.next_batch(1 + dice.getrandbits(6), time.monotonic())
        self._lane.tell_refused()
        self._check(batch)
        self.taken += batch.count
        if dice.getrandbits(3):
            self._answer(batch)
        for number in self._lane.running(batch).tolist():
            self._transport.fail(self._lane.slot(number), UnavailableError("left out"))
            self._lane.let_go(number)
        self._lane.end(batch)

    def finish(self, dice: Random) -> None:
        """Runs all that waits.

        Raises:
            BrokenError: a request keeps its place.
        """
        if self._requests.is_idle:
            return
        while self._lane.requests:
            self.run(dice)
        if not self._requests.is_idle:
            raise BrokenError("plain requests are left in their lane")

    def _answer(self, batch: LaneBatch) -> None:
        self._lane.answer(
            batch,
            [RawOutput(np.arange(2 * batch.rows, dtype=np.float32), 8)],
            key=1,
            layout_of=lambda rows, _: ReplyLayout(b"\x0a\x07flights", [(0, b"\x32" + bytes((min(8 * rows, 127),)))]),
            features_s=0.0,
            infer_s=0.0,
            began_s=time.monotonic(),
            ended_s=time.monotonic(),
        )
        self._lane.send_replies()

    def _check(self, batch: LaneBatch) -> None:
        """Compares the rows that kernels copied with those that protobuf reads."""
        numbers = batch.numbers.tolist()
        messages = [pb.ModelInferRequest.FromString(self._lane.message(number).content) for number in numbers]
        raws = [list(message.raw_input_contents) for message in messages]
        with np.errstate(invalid="ignore"):  # a NaN that signals stays a NaN
            singles = np.frombuffer(b"".join(raw[0] for raw in raws), "<f4").astype("<f8")
        doubles = np.frombuffer(b"".join(raw[1] for raw in raws), "<f8")
        expected = (
            np.stack([singles, doubles], axis=1).tobytes(),
            b"".join(raw[2] for raw in raws),
            b"".join(raw[3] for raw in raws),
        )
        if self._lane.blocks() != expected and numbers:
            raise BrokenError(
                f"other rows than protobuf reads: {[message.SerializeToString() for message in messages]}"
            )
        rows = [[list(tensor.shape) for tensor in message.inputs] for message in messages]
        if any(shapes != [[self._lane.rows_of(number), 1]] * 4 for shapes, number in zip(rows, numbers, strict=True)):
            raise BrokenError(f"other shapes than protobuf reads: {rows}")
