from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import text_format

from penstock import inference_pb2 as pb
from penstock.tensors import NUMPY_TYPES
from penstock_server.batching.limits import BatchLimits
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.prediction.decode import TensorDecoder
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.routing_table import ServedModel
from penstock_server.services.model_config import config_of

NewExecutor = Callable[[str], Executor]


@pytest.fixture
def config(new_executor: NewExecutor) -> Callable[..., Any]:
    """The configuration of a version with these tensors and limits."""

    def make(
        *,
        is_batched: bool = True,
        inputs: tuple[TensorInfo, ...] = (TensorInfo("x", "FP64", (ANY, 1)),),
        outputs: tuple[TensorInfo, ...] = (TensorInfo("y", "FP64", (ANY, 1)),),
        is_on_device: bool = False,
        versions: str = "1",
        workers: int = 1,
        declared: str = "",
        responses: Any = None,
        **limits: Any,
    ) -> Any:
        executor = new_executor("1")
        servable: Any = executor.servable
        servable.is_batched, servable.outputs, servable.is_on_device = is_batched, outputs, is_on_device
        if declared:
            config: Any = SimpleNamespace(message=text_format.Parse(declared, pb.ModelConfig()))
            servable.artifact = replace(servable.artifact, config=config)
        executor.responses = responses
        executor.decoder = TensorDecoder(Signature(inputs, outputs, is_batched))
        executor.limits = replace(BatchLimits(), **limits)
        model = ServedModel("m", None, dict.fromkeys(versions.split(), executor))
        return config_of(model, executor, workers)

    return make


def test_dimensions_are_those_of_a_row(config: Any) -> None:
    inputs = (TensorInfo("x", "FP32", (ANY, 4, ANY)), TensorInfo("text", "BYTES", (ANY, 1)))
    found = config(inputs=inputs, outputs=(TensorInfo("y", "INT64", (ANY,)),), max_rows=64)
    assert found.max_batch_size == 64
    assert [(one.name, one.data_type, list(one.dims)) for one in found.input] == [
        ("x", pb.TYPE_FP32, [4, ANY]), ("text", pb.TYPE_STRING, [1]),
    ]  # fmt: skip
    assert [(one.name, one.data_type, list(one.dims)) for one in found.output] == [("y", pb.TYPE_INT64, [])]


def test_what_runs_alone_has_whole_shapes_and_no_batching(config: Any) -> None:
    found = config(is_batched=False, inputs=(TensorInfo("x", "BOOL", (ANY, 3)),))
    assert (found.max_batch_size, found.HasField("dynamic_batching")) == (0, False)
    assert (list(found.input[0].dims), list(found.output[0].dims)) == ([ANY, 3], [ANY, 1])


def test_how_requests_wait(config: Any) -> None:
    found = config(max_delay_s=0.0025, queue_requests=7).dynamic_batching
    assert (found.max_queue_delay_microseconds, found.default_queue_policy.max_queue_size) == (2500, 7)
    assert (found.priority_levels, found.default_priority_level) == (9, 5)
    assert found.default_queue_policy.allow_timeout_override


def test_versions_and_instances(config: Any) -> None:
    found = config(versions="10 9 2 draft", workers=3)
    assert list(found.version_policy.specific.versions) == [2, 9, 10]
    assert [(one.count, one.kind) for one in found.instance_group] == [(3, pb.ModelInstanceGroup.KIND_CPU)]
    assert config(is_on_device=True).instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert not found.model_transaction_policy.decoupled


@pytest.mark.parametrize("datatype", [*NUMPY_TYPES, "BYTES"])
def test_every_datatype_has_a_name(config: Any, datatype: str) -> None:
    found = config(outputs=(TensorInfo("y", datatype, (ANY, 1)),)).output[0].data_type
    assert pb.DataType.Name(found) == f"TYPE_{datatype.replace('BYTES', 'STRING')}"


@pytest.mark.parametrize("declared", ["", "response_cache { enable: true }", "response_cache { enable: false }"])
@pytest.mark.parametrize("keeps", [True, False])
def test_answers_are_kept_where_they_are_whatever_the_file_says(config: Any, declared: str, keeps: bool) -> None:
    assert config(declared=declared, responses=object() if keeps else None).response_cache.enable == keeps
