"""What kernels are told of a version; that they do with it what Python does is `test_plain_equal`'s."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.queue import BatchQueue
from penstock_server.metrics.counters import MAX_CLASSES
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.plain import layout
from penstock_server.prediction.fusing import Fused, fused
from penstock_server.prediction.outputs import LabelOutput, Largest, OutputReader
from tests.server.prediction.plain_world import World, message

Make = Callable[..., Fused | None]


@pytest.fixture
def world(fake_servable: Any, fake_clock: Any, new_counters: Any) -> World:
    def report() -> Any:
        return Recorder(new_counters())

    made = World({"1": fake_servable()}, report_of=report, clock=fake_clock())
    made.warm(message([0, 0]))
    return made


@pytest.fixture
def make(world: World, new_counters: Any) -> Make:
    def make(reader: OutputReader, *outputs: TensorInfo) -> Fused | None:
        executor = world.executors["1"]
        executor.servable.outputs = outputs
        assert executor.plain_batches is not None
        return fused(
            executor.servable,
            may_run=True,
            lane=executor.plain_batches.lane,
            report=Recorder(new_counters()),
            reader=reader,
            queue=BatchQueue(BatchLimits(), Cost(1.0, 1.0)),
            sampler=None,
            joint=None,
        )

    return make


LABEL = TensorInfo("label", "INT64", (ANY,))
SCORES = TensorInfo("scores", "FP32", (ANY, 2))


@pytest.mark.parametrize(
    ("reader", "outputs", "is_made"),
    [
        (OutputReader(None, 0), [SCORES], True),
        (OutputReader(LabelOutput(0), None), [LABEL], True),
        (OutputReader(Largest(1), None), [LABEL, SCORES], True),
        (OutputReader(LabelOutput(0), None), [TensorInfo("label", "INT32", (ANY,))], False),
        (OutputReader(LabelOutput(0), None), [TensorInfo("label", "BYTES", (ANY,))], False),
        (OutputReader(Largest(0), None), [TensorInfo("scores", "FP16", (ANY, 2))], False),
        (OutputReader(Largest(0), None), [TensorInfo("scores", "FP32", (ANY, ANY))], False),
    ],
)
def test_what_kernels_cannot_count_is_left_to_python(
    make: Make, reader: OutputReader, outputs: list[TensorInfo], is_made: bool
) -> None:
    assert (make(reader, *outputs) is not None) == is_made


@pytest.mark.parametrize(
    ("arrays", "are_taken"),
    [
        ([np.zeros(3, np.int64), np.zeros((3, 2), np.float32)], True),
        ([np.zeros((3, 1), np.int64), np.zeros((3, 2), np.float32)], True),
        ([np.zeros(3, np.int32), np.zeros((3, 2), np.float32)], False),
        ([np.zeros((3, 2), np.int64), np.zeros((3, 2), np.float32)], False),
        ([np.zeros(3, np.int64), np.zeros((2, 3), np.float32).T], False),
        ([np.zeros(3, np.int64), np.zeros((3, 2), ">f4")], False),
        ([np.zeros(3, np.int64), np.array(["a", "b", "c"], object)], False),
    ],
)
def test_outputs_that_are_not_as_said_are_left_to_python(make: Make, arrays: list[Any], are_taken: bool) -> None:
    made = make(OutputReader(LabelOutput(0), None), LABEL, SCORES)
    assert made is not None
    assert made.takes(arrays) == are_taken


def test_more_classes_than_cells_take_no_more_memory_each_time(make: Make) -> None:
    made = make(OutputReader(LabelOutput(0), None), LABEL)
    assert made is not None
    made._report.classes(np.arange(2 * MAX_CLASSES))
    kept = len(made._kept)
    for _ in range(3):
        made.learn_classes()
        assert made._words[layout.U_CLASS_COUNT // 8] == MAX_CLASSES
    assert len(made._kept) == kept
