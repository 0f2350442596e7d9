"""A version to ask, and the parts around it: real graphs, and doubles for everything else."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock import inference_pb2 as pb
from penstock.tensors import TYPED_FIELDS, from_raw, to_raw
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits
from penstock_server.features.cells import AnswerCells, ClassCells, NumberCells
from penstock_server.models.artifact import Artifact
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable, Outputs
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.prediction.decode import TensorDecoder
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.outputs import Number, OutputReader, number_readers, output_reader
from penstock_server.prediction.recent import RecentRequests
from penstock_server.response_cache.responses import ResponseCache

TIMEOUT_S = 20.0
PLAIN = (TensorInfo("x", "FP64", (ANY, 2)),)


class FakeServable:
    """Doubles its one input; `fails` decides by the rows it is given, `on_run` is called before it answers."""

    def __init__(self, *, is_batched: bool = True, key: tuple[str, str] = ("m", "1")) -> None:
        self.key = key
        self.inputs = PLAIN
        self.outputs = (TensorInfo("y", "FP64", (ANY, 2)),)
        self.is_batched = is_batched
        self.kernel_calls = None
        self.runs: list[int] = []
        self.fails: Callable[[NDArray[np.float64]], Exception | None] = lambda rows: None
        self.on_run: Callable[[], None] = lambda: None

    def counted_rows(self, rows: int) -> int:
        return rows

    def count(self, blocks: Sequence[bytes], rows: int, cells: NDArray[np.int64]) -> None:
        cells += rows

    def predict(
        self,
        blocks: Sequence[bytes],
        rows: int,
        shapes: Any,
        cells: NDArray[np.int64] | None,
        given: Any = (),
    ) -> Outputs:
        self.runs.append(rows)
        x = np.frombuffer(blocks[0], "<f8").reshape(rows, 2)
        if cells is not None:
            cells += rows
        self.on_run()
        if error := self.fails(x):
            raise error
        return Outputs([x * 2], 0.001, 0.002)


def answers_of(servable: Any) -> tuple[AnswerCells, ...]:
    """What is counted of the answers of a version whose features are counted: its class or score, and each output's largest."""
    pipeline = getattr(servable, "pipeline", None)
    if pipeline is None or not pipeline.cells_shape[1]:
        return ()
    number = NumberCells((-0.5, 0.5), -1.0, 1.0)
    predictions = ClassCells((0, 1)) if len(servable.outputs) > 1 else number
    return (AnswerCells(predictions), *(AnswerCells(number, spec.name) for spec in servable.outputs))


def reader_of(servable: Any) -> OutputReader:
    """Of classifiers: all outputs are labels or scores of classes."""
    names = frozenset(spec.name for spec in servable.outputs)
    reader = output_reader(servable.outputs, ClassOutputs(names, names))
    return reader._replace(numbers=number_readers(servable.outputs, reader, answers_of(servable)))


def _with_score(reader: OutputReader) -> OutputReader:
    """The score of a version without classes is counted too."""
    has_score = reader.classes is None and reader.score is not None and not reader.numbers
    return reader._replace(numbers=(Number(reader.score, 0),)) if has_score else reader  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def fake_servable() -> type[FakeServable]:
    return FakeServable


@pytest.fixture(scope="session")
def executor_of(fake_clock: Any, fake_report: Any) -> Callable[..., Executor]:
    """An executor for a servable, with doubles for what is not given."""

    def new(
        servable: Any,
        *,
        report: Any = None,
        clock: Any = None,
        activate: Callable[[Executor], None] = lambda executor: None,
        thread: ModelThread | None = None,
        cost: Cost | None = None,
        large_thread: ModelThread | None = None,
        slice_rows: int | None = None,
        reply_bytes: int = 1 << 26,
        short_s: float = 0.0,
        is_alone: Callable[[Executor, float], bool] = lambda executor, now_s: True,
        cache: ResponseCache | None = None,
        recent: RecentRequests | None = None,
        **limits: Any,
    ) -> Executor:
        inputs = servable.inputs if isinstance(servable, FakeServable) else servable.model.signature.inputs
        report = report or fake_report()
        return Executor(
            servable,
            TensorDecoder(Signature(inputs, servable.outputs, servable.is_batched)),
            limits=BatchLimits(**limits),
            report=report,
            reader=_with_score(reader_of(servable)),
            clock=clock or fake_clock(),
            activate=activate,
            cost=cost,
            thread=thread,
            large_thread=large_thread,
            slice_rows=slice_rows,
            reply_bytes=reply_bytes,
            short_s=short_s,
            is_alone=is_alone,
            responses=None if cache is None else cache.version(report),
            recent=recent,
        )

    return new


class Reactor:
    """The tests' own thread as the reactor: model threads post to it, and it acts when the test says so."""

    def __init__(self) -> None:
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.post = self._posted.put

    def act(self) -> None:
        """Waits for one posted action, and runs it."""
        self._posted.get(timeout=TIMEOUT_S)()

    def act_now(self) -> bool:
        """Runs a posted action if there is one."""
        with suppress(Empty):
            self._posted.get_nowait()()
            return True
        return False

    def serve(self, *executors: Executor) -> None:
        """Runs these executors until none has anything to do."""
        while not all(executor.is_idle for executor in executors):
            due = [executor for executor in executors if executor.due_s() <= 0]
            for executor in due:
                executor.run(0.0)
            if not due:
                self.act()


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def thread(reactor: Reactor) -> Iterator[ModelThread]:
    """A model thread that posts to the reactor."""
    made = ModelThread("model", reactor.post)
    yield made
    made.close()
    made.join()


@pytest.fixture(scope="session")
def mixed(write_onnx: Callable[..., Path]) -> OnnxServable:
    """Two inputs, and outputs of three types, each row for itself: 2x, a text echoed, and the sign of x's first column."""
    path = write_onnx(
        [
            ("Add", ["x", "x"], ["double"], {}),
            ("Identity", ["text"], ["echo"], {}),
            ("ArgMax", ["x"], ["label"], {"axis": 1, "keepdims": 0}),
        ],
        inputs=[("x", "FP32", ["N", 3]), ("text", "BYTES", ["N", 1])],
        outputs=[("double", "FP32", ["N", 3]), ("echo", "BYTES", ["N", 1]), ("label", "INT64", ["N"])],
    )
    return OnnxServable(("mixed", "7"), Artifact(path.parent, path), OnnxModel(path), None)


@pytest.fixture(scope="session")
def infer_request() -> Callable[..., pb.ModelInferRequest]:
    """A `ModelInferRequest` from arrays: raw, or typed where the datatype allows it."""

    def make(
        arrays: dict[str, NDArray[Any]],
        datatypes: dict[str, str] | None = None,
        *,
        typed: bool = False,
        outputs: Sequence[str] = (),
        **fields: Any,
    ) -> pb.ModelInferRequest:
        from penstock.tensors import datatype_of

        request = pb.ModelInferRequest(**{"model_name": "m", **fields})
        for name, array in arrays.items():
            datatype = (datatypes or {}).get(name) or datatype_of(array.dtype)
            tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            if typed:
                flat = array.ravel().tolist()
                values = [text.encode() if isinstance(text, str) else text for text in flat]
                getattr(tensor.contents, TYPED_FIELDS[datatype]).extend(values)
            else:
                request.raw_input_contents.append(to_raw(array, datatype))
        for name in outputs:
            request.outputs.add(name=name)
        return request

    return make


@pytest.fixture(scope="session")
def outputs_of() -> Callable[[bytes], dict[str, NDArray[Any]]]:
    """The arrays of an encoded `ModelInferResponse`."""

    def read(message: bytes) -> dict[str, NDArray[Any]]:
        reply = pb.ModelInferResponse.FromString(message)
        return {
            tensor.name: from_raw(raw, tensor.datatype, tensor.shape)
            for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
        }

    return read
