"""A predictor whose routing_table a test swaps, before executors of a fake version."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_server.batching.limits import BatchLimits
from penstock_server.models.artifact import Artifact
from penstock_server.models.servable import Outputs
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.prediction.decode import TensorDecoder
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.outputs import OutputReader
from penstock_server.prediction.predictor import Predictor
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.rollout.plan import TrafficPlan, VersionStatus


class Doubler:
    """Doubles its one input, [N, 1]."""

    is_batched = True
    is_on_device = False
    artifact = Artifact(Path(), Path())
    outputs: tuple[TensorInfo, ...] = (TensorInfo("y", "FP64", (ANY, 1)),)

    def __init__(self, version: str) -> None:
        self.key = ("m", version)

    def predict(self, blocks: Any, rows: int, *_: Any) -> Outputs:
        return Outputs([np.frombuffer(blocks[0], "<f8").reshape(rows, 1) * 2], 0.0, 0.0)


@pytest.fixture
def new_executor(fake_clock: Any, fake_report: Any) -> Callable[[str], Executor]:
    def make(version: str) -> Executor:
        servable = Doubler(version)
        return Executor(
            servable,
            TensorDecoder(Signature((TensorInfo("x", "FP64", (ANY, 1)),), servable.outputs, True)),
            limits=BatchLimits(),
            report=fake_report(),
            reader=OutputReader(None, None),
            clock=fake_clock(),
            activate=lambda executor: None,
        )

    return make


@pytest.fixture
def routing_table_of(new_executor: Callable[[str], Executor]) -> Callable[..., RoutingTable]:
    """A settled routing_table of models, each with its ready versions; the first of them is the champion."""

    def make(is_settled: bool = True, **models: str) -> RoutingTable:
        return RoutingTable(
            {
                name: ServedModel(
                    name,
                    TrafficPlan(versions[0]) if versions else None,
                    {version: new_executor(version) for version in versions},
                    {
                        **{version: VersionStatus("READY") for version in versions},
                        "9": VersionStatus("UNAVAILABLE", "damaged"),
                    },
                )
                for name, versions in models.items()
            },
            is_settled,
        )

    return make


@pytest.fixture
def predictor(fake_clock: Any, fake_report: Any, routing_table_of: Any) -> Predictor:
    made = Predictor(clock=fake_clock(), report=fake_report())
    made.routing_table = routing_table_of(m="12", n="")
    return made


@pytest.fixture(scope="session")
def infer_message() -> Callable[..., bytes]:
    def make(value: float, **fields: Any) -> bytes:
        request = pb.ModelInferRequest(**{"model_name": "m", "model_version": "1", **fields})
        request.inputs.add(name="x", datatype="FP64", shape=[1, 1])
        request.raw_input_contents.append(np.array([value]).tobytes())
        encoded: bytes = request.SerializeToString()
        return encoded

    return make
