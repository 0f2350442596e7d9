"""Triton's `config.pbtxt`: what a file beside a model's versions says of how they are served.

    <model>/config.pbtxt     `inference.ModelConfig` in protobuf's text format
    <model>/labels.txt       the names of an output's classes, one a line, under the name that the output gives
    <model>/warmup/          raw contents to warm up with
    <model>/1/model.onnx     or `default_model_filename`

It decides what each field means here. What would change answers if it were left out refuses the model; what means nothing
here is told in a few words each, `TritonConfig.notes`. `declared_tensors` compares the tensors with the graph, and
`warm_up_samples` reads what to warm up with. The folder's source asks first, then whoever reads a version.

Source: Triton Inference Server, "Model Configuration", and the onnxruntime backend's README.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.names import ENSEMBLE, PLATFORM
from penstock_server.batching.limits import Batching, ModelLimits
from penstock_server.batching.policy import RequestPolicy
from penstock_server.errors import InvalidInputError
from penstock_server.models import version_folder

if TYPE_CHECKING:  # protobuf takes as long to import as a small model to load, and few folders have such a file
    from penstock import inference_pb2 as pb

NAME: Final = "config.pbtxt"
BACKEND: Final = "onnxruntime"
MODEL: Final = "model.onnx"
MAX_BYTES: Final = 1 << 20
MAX_LABEL_BYTES: Final = 1 << 24
MAX_LABELS: Final = 100_000
MAX_NOTES: Final = 20
MAX_TENSORS: Final = 1000
MAX_ROWS: Final = 1 << 20
_SHOWN: Final = 200
_PER_S: Final = 1_000_000
"""Microseconds."""
_THREADS: Final = "intra_op_thread_count"
_MOST_THREADS: Final = 256


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """What a sound file says.

    Attributes:
        message: all of it.
        folder: the model's folder, which holds the file.
        labels: the names of an output's classes, by the output's name.
        notes: what of it means nothing here, each in a few words.
    """

    message: "pb.ModelConfig" = field(compare=False)
    folder: Path
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = ()

    @property
    def model_file(self) -> str:
        """The file of a version."""
        return self.message.default_model_filename or MODEL

    @property
    def has_rows(self) -> bool:
        """Whether the tensors that it declares have rows in front of their dims."""
        return self.message.max_batch_size > 0

    @property
    def is_ensemble(self) -> bool:
        """Whether it describes a chain of models, in place of one."""
        return self.message.HasField("ensemble_scheduling")

    def datatype(self, tensor: Any) -> str:
        """The protocol's name of a declared tensor's type; "INVALID" where it has none."""
        kind = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type
        name: str = kind.values_by_number[tensor.data_type].name.removeprefix("TYPE_")
        return "BYTES" if name == "STRING" else name

    @property
    def threads(self) -> int | None:
        """Onnxruntime's threads within one operator, where it says how many."""
        return _whole(self.message, _THREADS) or None

    @property
    def batching(self) -> Batching | None:
        """Whether requests share batches, where it says so; without a scheduler it is left to the server, as Triton does."""
        message = self.message
        if message.HasField("dynamic_batching"):
            return "rows"
        says_none = message.HasField("max_batch_size") or bool(message.input)
        return None if message.max_batch_size or not says_none else "request"

    @property
    def limits(self) -> ModelLimits:
        """Its batches' and queue's limits."""
        message = self.message
        batching = message.dynamic_batching
        return ModelLimits(
            max_rows=message.max_batch_size or None,
            max_delay_s=batching.max_queue_delay_microseconds / _PER_S or None,
            queue_requests=batching.default_queue_policy.max_queue_size or None,
            ready_rows=min(batching.preferred_batch_size, default=None),
        )

    @property
    def policy(self) -> RequestPolicy | None:
        """What it says of priorities and timeouts; None where it says nothing."""
        batching = self.message.dynamic_batching
        queue = batching.default_queue_policy
        policy = RequestPolicy(
            levels=batching.priority_levels,
            timeout_s=_timeout_s(queue),
            takes_timeouts=queue.allow_timeout_override or not batching.HasField("default_queue_policy"),
        )
        if batching.priority_levels:
            policy = RequestPolicy(
                policy.levels, batching.default_priority_level, policy.timeout_s, policy.takes_timeouts
            )
        return None if policy == RequestPolicy() else policy

    @property
    def caches_responses(self) -> bool | None:
        """Whether answers are to be kept; None where it does not say."""
        return self.message.response_cache.enable if self.message.HasField("response_cache") else None

    @property
    def is_for_cpu(self) -> bool:
        """Whether it asks for the CPU, although there may be a device."""
        groups = self.message.instance_group
        return bool(groups) and all(group.kind == group.KIND_CPU for group in groups)

    @property
    def is_for_device(self) -> bool:
        """Whether it asks for a GPU."""
        return any(group.kind == group.KIND_GPU for group in self.message.instance_group)


def read(folder: Path) -> TritonConfig | None:
    """The configuration of the model in this folder; None where it has none.

    Raises:
        InvalidInputError: it is damaged, contradicts itself, or asks for what is not served and changes answers.
    """
    if not version_folder.has(folder, NAME):
        return None
    content = version_folder.read_bytes(folder, NAME, max_bytes=MAX_BYTES)
    try:
        message = _parsed(content)
        _check(message, folder.name)
        labels = {each.name: _labels(folder, each.label_filename) for each in message.output if each.label_filename}
    except InvalidInputError as error:
        raise InvalidInputError(f"{NAME}: {error}") from error
    return TritonConfig(message, folder, labels, tuple(_bounded(_notes(message))))


def _parsed(content: bytes) -> "pb.ModelConfig":
    from google.protobuf import text_format

    from penstock import inference_pb2

    message: pb.ModelConfig = inference_pb2.ModelConfig()
    try:
        text_format.Parse(content.decode("utf-8"), message)
    except UnicodeDecodeError as error:
        raise InvalidInputError("it is no text in UTF-8") from error
    except text_format.ParseError as error:
        # Its text has the place in front, and perhaps the whole line.
        said = str(error).removeprefix(f"{error.GetLine()}:{error.GetColumn()} : ").rpartition("': ")[2]
        place = f"line {error.GetLine() or 1}, column {error.GetColumn() or 1}"
        raise InvalidInputError(f"{place}: {' '.join(said.split())[:_SHOWN]}") from error
    return message


def _check(message: "pb.ModelConfig", name: str) -> None:
    """Refuses what is not served, and what cannot be meant."""
    if message.name not in ("", name):
        raise InvalidInputError(
            f"it is of model {version_folder.shown(message.name)}, expected the folder's name {version_folder.shown(name)}"
        )
    is_ensemble = message.HasField("ensemble_scheduling")
    for given, known in ((message.platform, PLATFORM), (message.backend, BACKEND)):
        allowed = ("", known) if not is_ensemble else (ENSEMBLE, "")
        if given not in allowed:
            what = "platform" if known == PLATFORM else "backend"
            raise InvalidInputError(f"{what} {version_folder.shown(given)} is not served, expected {known!r}")
    if message.runtime:
        raise InvalidInputError(f"runtime {version_folder.shown(message.runtime)} is not served, expected none")
    if (refused := next(_refused(message), None)) is not None:
        raise InvalidInputError(f"{refused} is not served, and without it answers would differ")
    if not 0 <= message.max_batch_size <= MAX_ROWS:
        raise InvalidInputError(f"max_batch_size is {message.max_batch_size}, expected 0 to {MAX_ROWS:,}")
    for what, tensors in (("input", message.input), ("output", message.output)):
        _check_tensors(what, tensors)
    if message.HasField("dynamic_batching"):
        _check_batching(message)
    _check_versions(message.version_policy)
    threads = _whole(message, _THREADS)
    if not 0 <= threads <= _MOST_THREADS:
        raise InvalidInputError(f"parameters {_THREADS!r} is {threads}, expected 0 to {_MOST_THREADS}")


def _refused(message: "pb.ModelConfig") -> Iterator[str]:
    """What decides answers and is not served."""
    if message.HasField("sequence_batching"):
        yield "sequence_batching"
    if message.platform == ENSEMBLE and not message.HasField("ensemble_scheduling"):
        yield "platform 'ensemble' without ensemble_scheduling"
    if message.model_transaction_policy.decoupled:
        yield "model_transaction_policy.decoupled"
    if message.batch_input or message.batch_output:
        yield "batch_input and batch_output"
    if message.model_operations.op_library_filename:
        yield "model_operations.op_library_filename"
    if message.model_repository_agents.agents:
        yield "model_repository_agents"
    ragged = [each.name for each in message.input if each.allow_ragged_batch]
    if ragged:
        yield f"allow_ragged_batch of input {version_folder.shown(ragged[0])}"
    for tensor in _tensors(message):
        if tensor.is_shape_tensor:
            yield f"is_shape_tensor of {version_folder.shown(tensor.name)}"


def _tensors(message: "pb.ModelConfig") -> list[Any]:
    return [*message.input, *message.output]


def _check_tensors(what: str, tensors: Any) -> None:
    if len(tensors) > MAX_TENSORS:
        raise InvalidInputError(f"it has {len(tensors):,} {what}s, expected at most {MAX_TENSORS:,}")
    names = [each.name for each in tensors]
    for each in tensors:
        named = f"{what} {version_folder.shown(each.name)}"
        if not each.name:
            raise InvalidInputError(f"an {what} has no name")
        if names.count(each.name) > 1:
            raise InvalidInputError(f"{named} is declared twice")
        for field_name, dims in (("dims", each.dims), ("reshape.shape", each.reshape.shape)):
            if any(size < -1 or (size == 0 and field_name == "dims") for size in dims):
                raise InvalidInputError(f"{field_name} of {named} are {list(dims)}, expected sizes, or -1 for any")
        if each.HasField("reshape"):
            _check_reshape(named, list(each.dims), list(each.reshape.shape))


def _check_reshape(named: str, dims: list[int], shape: list[int]) -> None:
    if dims.count(-1) > 1 or shape.count(-1) > 1:
        raise InvalidInputError(
            f"reshape of {named} has several dims of any size, which is not served; expected one at most"
        )
    sizes = []
    for each in (dims, shape):
        product = 1
        for size in each:
            product *= abs(size)
        sizes.append(product)
    if dims.count(-1) != shape.count(-1) or (not dims.count(-1) and sizes[0] != sizes[1]):
        raise InvalidInputError(f"reshape of {named} from {dims} to {shape} changes the number of elements")


def _check_batching(message: "pb.ModelConfig") -> None:
    batching = message.dynamic_batching
    if not message.max_batch_size:
        raise InvalidInputError("dynamic_batching is given and max_batch_size is 0, expected both or neither")
    for size in batching.preferred_batch_size:
        if not 1 <= size <= message.max_batch_size:
            raise InvalidInputError(
                f"preferred_batch_size has {size}, expected 1 to max_batch_size, which is {message.max_batch_size}"
            )
    levels, default = batching.priority_levels, batching.default_priority_level
    if (levels or default) and not 1 <= default <= levels:
        raise InvalidInputError(
            f"default_priority_level is {default}, expected 1 to priority_levels, which is {levels}"
        )


def _check_versions(policy: "pb.ModelVersionPolicy") -> None:
    if policy.HasField("specific") and not all(version >= 0 for version in policy.specific.versions):
        raise InvalidInputError(
            f"version_policy names versions {list(policy.specific.versions)[:20]}, expected 0 or more"
        )


def _labels(folder: Path, name: str) -> tuple[str, ...]:
    content = version_folder.read_bytes(folder, name, max_bytes=MAX_LABEL_BYTES)
    labels = tuple(line.strip() for line in content.decode("utf-8", "replace").splitlines())
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(
            f"file {version_folder.shown(name)} has {len(labels):,} labels, expected at most {MAX_LABELS:,}"
        )
    return labels


def _whole(message: "pb.ModelConfig", name: str) -> int:
    """A parameter that is a whole number; 0 where it is not given."""
    if name not in message.parameters:
        return 0
    text = message.parameters[name].string_value
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInputError(f"parameters {name!r} is {version_folder.shown(text)}, expected a whole number")
    return int(text)


def _timeout_s(policy: "pb.ModelQueuePolicy") -> float:
    """The time after which a request is refused; infinite where it is only served later."""
    is_refused = policy.timeout_action == policy.REJECT and policy.default_timeout_microseconds
    return policy.default_timeout_microseconds / _PER_S if is_refused else inf


def _notes(message: "pb.ModelConfig") -> Iterator[str]:
    """What means nothing here, and what is done in its place."""
    yield from _notes_of_instances(message.instance_group)
    yield from _notes_of_batching(message.dynamic_batching)
    yield from _notes_of_optimization(message.optimization)
    yield from _notes_of_parameters(message.parameters)
    for name in ("metric_tags", "cc_model_filenames"):
        if getattr(message, name):
            yield name
    if message.model_metrics.metric_control:
        yield "model_metrics: histograms have the same buckets for all models"
    if any(each.is_non_linear_format_io for each in _tensors(message)):
        yield "is_non_linear_format_io"


def _notes_of_instances(groups: "Sequence[pb.ModelInstanceGroup]") -> Iterator[str]:
    if any(group.count > 1 for group in groups):
        yield "instance_group.count: each worker has one instance, and --workers says how many workers there are"
    for name in ("gpus", "profile", "rate_limiter", "passive", "secondary_devices", "host_policy"):
        if any(_is_given(group, name) for group in groups):
            where = ": the device is the setting execution.device" if name == "gpus" else ""
            yield f"instance_group.{name}{where}"


def _notes_of_parameters(parameters: "Mapping[str, pb.ModelParameter]") -> Iterator[str]:
    for name, parameter in parameters.items():
        if name == _THREADS or (name == "execution_mode" and parameter.string_value == "0"):
            continue
        why = ": operators run one after another" if name in {"inter_op_thread_count", "execution_mode"} else ""
        yield f"parameters {version_folder.shown(name)}{why}"


def _is_given(message: Any, name: str) -> bool:
    given = getattr(message, name)
    return message.HasField(name) if name == "rate_limiter" else bool(given)


def _notes_of_batching(batching: "pb.ModelDynamicBatching") -> Iterator[str]:
    queue = batching.default_queue_policy
    if queue.timeout_action == queue.DELAY and queue.default_timeout_microseconds:
        yield "timeout_action DELAY: requests that are late keep their places, and none is refused for it"
    if batching.priority_queue_policy:
        yield "priority_queue_policy: the default policy is that of every priority"
    if batching.preserve_ordering:
        yield "preserve_ordering: requests of one priority are served in the order of their arrival, by each worker"
    levels = RequestPolicy(batching.priority_levels, batching.default_priority_level)
    if levels.merges_levels:
        yield "priority_levels: those more than four away from the default are one level"


def _notes_of_optimization(optimization: "pb.ModelOptimizationPolicy") -> Iterator[str]:
    if optimization.graph.level:
        yield "optimization.graph.level: all of onnxruntime's optimisations are on"
    if optimization.HasField("execution_accelerators"):
        yield "optimization.execution_accelerators: what runs graphs is the setting execution.providers"
    for name in ("priority", "gather_kernel_buffer_threshold", "eager_batching"):
        if getattr(optimization, name):
            yield f"optimization.{name}"
    for name in ("cuda", "input_pinned_memory", "output_pinned_memory"):
        if optimization.HasField(name):
            yield f"optimization.{name}"


def _bounded(notes: Iterable[str]) -> Iterator[str]:
    """The first of them, and how many there are besides: a file may have thousands of parameters."""
    every = list(notes)
    yield from every[:MAX_NOTES]
    if len(every) > MAX_NOTES:
        yield f"and {len(every) - MAX_NOTES:,} more"
