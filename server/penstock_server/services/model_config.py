"""Triton's model configuration extension: how a loaded version is served, in the terms of its `config.pbtxt`.

Only what is true here is filled in. Triton's clients and perf_analyzer decide by it how a request's shapes begin.

Source: Triton Inference Server, "Model Configuration Extension"; field numbers of `model_config.proto`.
"""

from typing import Final

from penstock import inference_pb2 as pb
from penstock.names import PLATFORM
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT, LOWEST
from penstock_server.models.signature import TensorInfo
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.routing_table import ServedModel

_BACKEND: Final = "onnxruntime"
_GROUP: Final = pb.ModelInstanceGroup


def config_of(model: ServedModel, executor: Executor, workers: int) -> pb.ModelConfig:
    """The configuration of one version of a model.

    Args:
        model: whose versions there are.
        executor: of the version.
        workers: the processes that each have an instance.
    """
    servable, limits = executor.servable, executor.limits
    is_batched = servable.is_batched
    config = pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=_BACKEND,
        max_batch_size=limits.most_rows if is_batched else 0,
        input=[
            pb.ModelInput(
                name=spec.name,
                data_type=_type(spec),
                dims=_dims(spec, is_batched=is_batched and not spec.is_optional),
                optional=spec.is_optional,
            )
            for spec in executor.decoder.inputs
        ],
        output=[
            pb.ModelOutput(name=spec.name, data_type=_type(spec), dims=_dims(spec, is_batched=is_batched))
            for spec in servable.outputs
        ],
        instance_group=[
            _GROUP(
                name=f"{model.name}_0",
                count=workers,
                kind=_GROUP.KIND_GPU if servable.is_on_device else _GROUP.KIND_CPU,
            )
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
        response_cache=pb.ModelResponseCache(enable=False),
    )
    config.version_policy.specific.versions.extend(
        int(version) for version in sorted(model.executors, key=_in_order) if version.isdecimal()
    )
    if is_batched:
        config.dynamic_batching.CopyFrom(_batching(limits))
    return config


def _batching(limits: BatchLimits) -> pb.ModelDynamicBatching:
    return pb.ModelDynamicBatching(
        max_queue_delay_microseconds=round(limits.max_delay_s * 1e6),
        priority_levels=LOWEST,
        default_priority_level=DEFAULT,
        default_queue_policy=pb.ModelQueuePolicy(
            timeout_action=pb.ModelQueuePolicy.REJECT,
            allow_timeout_override=True,
            max_queue_size=limits.queue_requests,
        ),
    )


def _type(spec: TensorInfo) -> str:
    return f"TYPE_{'STRING' if spec.datatype == 'BYTES' else spec.datatype}"


def _dims(spec: TensorInfo, *, is_batched: bool) -> tuple[int, ...]:
    """The tensor's dimensions without the rows, where requests are joined."""
    return spec.shape[1:] if is_batched else spec.shape


def _in_order(version: str) -> tuple[int, str]:
    """Numbers by their size: "9" comes before "10"."""
    return len(version), version
