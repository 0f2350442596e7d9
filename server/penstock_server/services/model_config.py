"""Triton's model configuration extension: how a loaded version is served, in the terms of its `config.pbtxt`.

A model of a Triton repository has what its own file says, and the others what is true of them. Triton's clients and
perf_analyzer decide by it how a request's shapes begin.

Source: Triton Inference Server, "Model Configuration Extension"; field numbers of `model_config.proto`.
"""

from collections.abc import Sequence
from typing import Any, Final

from penstock import inference_pb2 as pb
from penstock.names import ENSEMBLE, PLATFORM
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT, LOWEST
from penstock_server.models.signature import TensorInfo
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.routing_table import ServedModel

_BACKEND: Final = "onnxruntime"
_GROUP: Final = pb.ModelInstanceGroup


def config_of(model: ServedModel, executor: Executor, workers: int) -> pb.ModelConfig:
    """The configuration of one version of a model: what its file says, and what is true where it says nothing.

    Args:
        model: whose versions there are.
        executor: of the version.
        workers: the processes that each have an instance.
    """
    servable, limits = executor.servable, executor.limits
    is_batched = servable.is_batched
    config = pb.ModelConfig()
    declared = servable.artifact.config
    if declared is not None:
        config.CopyFrom(declared.message)
    # Dims leave out the rows where there may be several.
    has_rows = config.max_batch_size > 0 if config.HasField("max_batch_size") else is_batched
    config.name, config.platform = model.name, platform_of(executor)
    config.backend = "" if config.platform == ENSEMBLE else _BACKEND
    if config.platform == ENSEMBLE and not config.HasField("ensemble_scheduling"):
        _describe_steps(config, servable.artifact.ensemble)
    if not config.HasField("max_batch_size"):
        config.max_batch_size = limits.most_rows if is_batched else 0
    _complete(config.input, executor.decoder.inputs, has_rows=has_rows)
    _complete(config.output, servable.outputs, has_rows=has_rows)
    if not config.instance_group:
        kind = _GROUP.KIND_GPU if servable.is_on_device else _GROUP.KIND_CPU
        config.instance_group.add(name=f"{model.name}_0", count=workers, kind=kind)
    config.model_transaction_policy.decoupled = False
    config.response_cache.enable = executor.responses is not None
    if not config.HasField("version_policy"):
        config.version_policy.specific.versions.extend(
            int(version) for version in sorted(model.executors, key=_in_order) if version.isdecimal()
        )
    if is_batched and config.WhichOneof("scheduling_choice") is None:
        config.dynamic_batching.CopyFrom(_batching(limits))
    return config


def platform_of(executor: Executor) -> str:
    """What runs a version, in Triton's words."""
    return PLATFORM if executor.servable.artifact.ensemble is None else ENSEMBLE


def _describe_steps(config: pb.ModelConfig, ensemble: Any) -> None:
    """The steps that ask models; Triton has no word for the others."""
    config.ensemble_scheduling.SetInParent()
    for step in ensemble.steps:
        if hasattr(step, "model"):
            version = int(step.version) if step.version else -1
            config.ensemble_scheduling.step.add(
                model_name=step.model, model_version=version, input_map=step.inputs, output_map=step.outputs
            )


def _complete(tensors: Any, specs: Sequence[TensorInfo], *, has_rows: bool) -> None:
    """Adds the tensors where the file has none, and what it leaves out of those that it has."""
    known = {each.name: each for each in tensors}
    if not known:
        known = {spec.name: tensors.add(name=spec.name) for spec in specs}
    for spec in specs:
        tensor = known.get(spec.name)
        if tensor is None:
            continue
        if not tensor.data_type:
            tensor.data_type = _type(spec)
        if not tensor.dims and not tensor.HasField("reshape"):
            tensor.dims.extend(_dims(spec, is_batched=has_rows and not spec.is_optional))
        if spec.is_optional:
            tensor.optional = True


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


def _type(spec: TensorInfo) -> int:
    return pb.DataType.Value(f"TYPE_{'STRING' if spec.datatype == 'BYTES' else spec.datatype}")


def _dims(spec: TensorInfo, *, is_batched: bool) -> tuple[int, ...]:
    """The tensor's dimensions without the rows, where requests are joined."""
    return spec.shape[1:] if is_batched else spec.shape


def _in_order(version: str) -> tuple[int, str]:
    """Numbers by their size: "9" comes before "10"."""
    return len(version), version
