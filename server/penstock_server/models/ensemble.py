"""An ensemble: models in a chain, as a file describes it. What goes in, what comes out, and what runs in which order.

There are two forms of the same. A Triton repository has `ensemble_scheduling` in `config.pbtxt`. Penstock's own form stands in
the place of a version's graph, `<model>/<version>/pipeline.toml`:

    [inputs.x]
    datatype = "FP32"
    shape = [-1, 4]                          # -1 in front: the rows, so that requests share batches

    [outputs.score]
    datatype = "FP32"
    shape = [-1, 1]

    [[steps]]
    model = "scale"                          # the version that answers for it when the request comes; version = 3 for that one
    inputs = { X = "x" }                     # the model's input, and the tensor that it gets
    outputs = { Y = "scaled", kind = "kind" }

    [[steps]]
    model = "careful"
    inputs = { X = "scaled" }
    outputs = { Y = "one" }
    when = { kind = 1 }                      # runs for the rows of which `kind` is 1

    [[steps]]
    mean = ["one", "two"]                    # with weights = [2, 1], a weighted one
    output = "score"

A tensor that several steps give has the last one's values, row by row; rows that no step gave it are NaN, 0 or "". A step runs
once all steps that give what it reads have run. This module knows names alone; `ensemble_servable` binds them to versions.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Final

import msgspec

from penstock.names import PIPELINE_FILE
from penstock.tensors import NUMPY_TYPES
from penstock_server.errors import InvalidInputError
from penstock_server.models import version_folder
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.models.triton_config import NAME, TritonConfig
from penstock_server.models.version_folder import shown

MAX_BYTES: Final = 1 << 20
MAX_STEPS: Final = 32
MAX_TENSORS: Final = 1000
_TYPES: Final = ("BYTES", *NUMPY_TYPES)


@dataclass(frozen=True, slots=True)
class ModelStep:
    """A step that asks a model.

    Attributes:
        name: its own, for people and metrics.
        version: "" for the version that answers for the model.
        inputs: the ensemble's tensor by the model's input.
        outputs: the ensemble's tensor by the model's output.
        when: a tensor, and the value that rows have there for which it runs; None runs for all.
    """

    name: str
    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    version: str = ""
    when: tuple[str, int | str] | None = None

    @property
    def reads(self) -> frozenset[str]:
        return frozenset([*self.inputs.values(), *([] if self.when is None else [self.when[0]])])

    @property
    def gives(self) -> tuple[str, ...]:
        return tuple(self.outputs.values())


@dataclass(frozen=True, slots=True)
class MeanStep:
    """A step that averages tensors of one shape."""

    name: str
    of: tuple[str, ...]
    output: str
    weights: tuple[float, ...]

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(self.of)

    @property
    def gives(self) -> tuple[str, ...]:
        return (self.output,)


Step = ModelStep | MeanStep


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A sound description.

    Attributes:
        inputs, outputs: its tensors, as requests have them.
        has_rows: the first dimension of each is the rows.
        steps: in an order in which they can run.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    has_rows: bool
    steps: tuple[Step, ...] = field(default=())

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it asks, each once."""
        return tuple(dict.fromkeys(step.model for step in self.steps if isinstance(step, ModelStep)))


def read(folder: Path, config: TritonConfig | None) -> Ensemble | None:
    """The ensemble that a version's folder holds, or that the configuration beside it describes; None for other versions.

    Raises:
        InvalidInputError: it is damaged, or its steps do not fit each other; names what is wrong.
    """
    if config is not None and config.is_ensemble:
        name = NAME
    elif version_folder.has(folder, PIPELINE_FILE):
        name, config = PIPELINE_FILE, None
    else:
        return None
    try:
        if config is not None:
            return _of_config(config)
        return _of_file(version_folder.read_bytes(folder, PIPELINE_FILE, max_bytes=MAX_BYTES))
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from error


def _of_config(config: TritonConfig) -> Ensemble:
    message = config.message
    rows = (ANY,) if config.has_rows else ()
    inputs, outputs = (
        tuple(TensorInfo(each.name, config.datatype(each), (*rows, *each.dims)) for each in tensors)
        for tensors in (message.input, message.output)
    )
    steps = []
    for step in message.ensemble_scheduling.step:
        if step.model_namespace:
            raise InvalidInputError(f"model_namespace {shown(step.model_namespace)} is not served, expected none")
        version = "" if step.model_version == -1 else str(step.model_version)
        steps.append(ModelStep(step.model_name, step.model_name, dict(step.input_map), dict(step.output_map), version))
    given = [name for step in steps for name in step.gives]
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise InvalidInputError(f"several steps give tensor {shown(twice)}, expected one")
    return _checked(inputs, outputs, steps)


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    datatype: str
    shape: tuple[int, ...]


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""
    model: str = ""
    version: int | None = None
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    when: dict[str, int | str] = {}
    mean: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    output: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: dict[str, _Tensor]
    outputs: dict[str, _Tensor]
    steps: tuple[_Step, ...]


def _of_file(content: bytes) -> Ensemble:
    try:
        file = msgspec.convert(tomllib.loads(content.decode()), _File, strict=True)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"it is not TOML: {str(error)[:200]}") from error
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInputError(str(error)[:300]) from error
    inputs, outputs = (
        tuple(TensorInfo(name, tensor.datatype, tensor.shape) for name, tensor in tensors.items())
        for tensors in (file.inputs, file.outputs)
    )
    return _checked(inputs, outputs, [_step(at, step) for at, step in enumerate(file.steps, 1)])


def _step(at: int, step: _Step) -> Step:
    name = step.name or step.model or f"mean of {', '.join(step.mean)[:60]}"
    if bool(step.model) == bool(step.mean):
        raise InvalidInputError(
            f"step {at} needs either a model or a mean, and has {'both' if step.model else 'neither'}"
        )
    if step.mean:
        if step.inputs or step.outputs or step.when or step.version is not None or not step.output:
            raise InvalidInputError(f"step {at} is a mean, expected mean, output and weights alone")
        weights = step.weights or (1.0,) * len(step.mean)
        is_sound = len(weights) == len(step.mean) and all(isfinite(each) for each in weights) and sum(weights) != 0
        if not is_sound:
            raise InvalidInputError(
                f"step {at} has weights {list(weights)[:20]}, expected {len(step.mean)} whose sum is not 0"
            )
        return MeanStep(name, step.mean, step.output, weights)
    if step.output or step.weights:
        raise InvalidInputError(f"step {at} asks a model, expected no output and no weights of a mean")
    if len(step.when) > 1:
        raise InvalidInputError(f"step {at} runs when {len(step.when)} tensors have values, expected one")
    when = next(iter(step.when.items()), None)
    version = "" if step.version is None else str(step.version)
    return ModelStep(name, step.model, step.inputs, step.outputs, version, when)


def _checked(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], steps: Sequence[Step]) -> Ensemble:
    for what, specs in (("input", inputs), ("output", outputs)):
        _check_tensors(what, specs)
    if not 1 <= len(steps) <= MAX_STEPS:
        raise InvalidInputError(f"it has {len(steps):,} steps, expected 1 to {MAX_STEPS}")
    named = _named(steps)
    given = {spec.name for spec in inputs}
    for step in named:
        if not step.reads or not step.gives:
            raise InvalidInputError(f"step {shown(step.name)} reads or gives no tensor, expected both")
        if taken := given.intersection(step.gives):
            raise InvalidInputError(f"step {shown(step.name)} gives {shown(min(taken))}, which is an input")
    known = given.union(*(step.gives for step in named))
    for name, needed in [(f"step {shown(step.name)}", step.reads) for step in named] + [
        ("the ensemble", frozenset(spec.name for spec in outputs))
    ]:
        if missing := sorted(needed - known):
            raise InvalidInputError(f"{name} needs tensor {shown(missing[0])}, which no step gives and no input is")
    all_rows = [spec.shape[:1] == (ANY,) for spec in (*inputs, *outputs)]
    return Ensemble(tuple(inputs), tuple(outputs), all(all_rows), _ordered(named))


def _check_tensors(what: str, specs: Sequence[TensorInfo]) -> None:
    if not 1 <= len(specs) <= MAX_TENSORS:
        raise InvalidInputError(f"it has {len(specs):,} {what}s, expected 1 to {MAX_TENSORS:,}")
    for spec in specs:
        if spec.datatype not in _TYPES:
            raise InvalidInputError(
                f"{what} {shown(spec.name)} has datatype {shown(spec.datatype)}, expected one of {', '.join(_TYPES)}"
            )
        if any(size < ANY or size == 0 for size in spec.shape):
            raise InvalidInputError(
                f"{what} {shown(spec.name)} has shape {list(spec.shape)}, expected sizes, or -1 for any"
            )


def _named(steps: Iterable[Step]) -> list[Step]:
    """The steps, with names of their own: metrics tell them apart by these."""
    seen: dict[str, int] = {}
    named = []
    for step in steps:
        seen[step.name] = seen.get(step.name, 0) + 1
        again = f" {seen[step.name]}" if seen[step.name] > 1 else ""
        named.append(replace(step, name=step.name + again))
    return named


def _ordered(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, each behind those that give what it reads, and behind the former ones that give the same as it."""
    left, ordered = list(steps), []
    while left:
        free = next((step for at, step in enumerate(left) if not _waits(step, left[:at], left)), None)
        if free is None:
            names = ", ".join(shown(step.name) for step in left[:5])
            raise InvalidInputError(f"its steps wait for each other in a circle: {names}")
        left.remove(free)
        ordered.append(free)
    return tuple(ordered)


def _waits(step: Step, former: Sequence[Step], left: Sequence[Step]) -> bool:
    reads_of_others = any(step.reads.intersection(other.gives) for other in left)
    return reads_of_others or any(set(step.gives).intersection(other.gives) for other in former)
