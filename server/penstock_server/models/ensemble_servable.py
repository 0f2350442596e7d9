"""An ensemble bound to loaded versions: one batch goes through all of its steps, in this process, as arrays.

It is a servable like any other, so requests wait, share batches and are answered as those of a model. The versions behind its
steps are bound anew whenever plans or versions change (`prediction.ensembles`). What a step runs for is counted with the
ensemble, not with the step's model, whose requests stay those of its own callers; nor are these rows in that model's drift.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock.tensors import NUMPY_TYPES, to_raw
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.models.artifact import Artifact
from penstock_server.models.ensemble import Ensemble, MeanStep, ModelStep, Step
from penstock_server.models.independence import obstacle
from penstock_server.models.onnx_file import OnnxFile
from penstock_server.models.onnx_model import array_of
from penstock_server.models.rows import blocks_of
from penstock_server.models.servable import BatchingVerdict, Blocks, Given, Outputs, Servable, Shapes
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.models.version_folder import shown

Array = NDArray[Any]
Resolve = Callable[[str, str], Servable]
"""The loaded version of a model that a step asks; `NotReadyError` or `NotFoundError` says why there is none."""
_ALONE: Final = "each request runs alone: {}"


class _DeclaredModel:
    """What stands in the place of a graph: the tensors that the file declares."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.file = OnnxFile()


@dataclass(frozen=True, slots=True)
class BoundStep:
    """A step, and the version that runs it; None for a mean."""

    step: Step
    servable: Servable | None


class EnsembleServable(Servable):
    """All steps as one function from rows to outputs.

    Args:
        steps: in order, bound.
        counters: int64 [steps, 3]: the batches, rows and nanoseconds of each; who runs the ensemble adds to them.
    """

    def __init__(
        self,
        key: VersionKey,
        artifact: Artifact,
        ensemble: Ensemble,
        steps: Sequence[BoundStep],
        counters: NDArray[np.int64],
    ) -> None:
        signature = Signature(ensemble.inputs, ensemble.outputs, is_batched=True)
        super().__init__(key, artifact, _DeclaredModel(signature), None)
        self.steps = tuple(steps)
        self._counted = counters.reshape(-1).data
        self._runs = [_runner(step) for step in steps]
        self.unexplained = "it is an ensemble, and only single models are explained"
        servables = [step.servable for step in steps if step.servable is not None]
        self.is_elsewhere = any(each.is_elsewhere for each in servables)
        self._is_on_device = any(each.is_on_device for each in servables)
        alone = next((each for each in servables if not each.is_batched), None)
        why = obstacle(signature) if alone is None else f"model {alone.key[0]!r} runs each request alone"
        if why:
            self.decide(BatchingVerdict("request", _ALONE.format(why), _ALONE.format(why)))
        else:
            self.decide(BatchingVerdict("rows", "requests are batched by rows, as those of all its models are"))

    @property
    def engine(self) -> str:
        return f"ensemble: {', '.join(bound.step.name for bound in self.steps)}"

    @property
    def is_on_device(self) -> bool:
        return self._is_on_device

    @property
    def varies(self) -> str:
        steps = (step.servable for step in self.steps if step.servable is not None)
        return next((f"of its model {each.key[0]!r}, {each.varies}" for each in steps if each.varies), "")

    def _predict(
        self,
        blocks: Blocks,
        rows: int,
        shapes: Shapes | None,
        cells: NDArray[np.int64] | None,  # noqa: ARG002 - it has no baseline
        given: Given,  # noqa: ARG002 - and no defaults
    ) -> Outputs:
        started = began = time.perf_counter()
        specs = self.model.signature.inputs
        tensors = Tensors(specs, blocks, shapes or [(rows, *spec.shape[1:]) for spec in specs])
        counted = self._counted
        for at, run in enumerate(self._runs):
            ran = run(tensors)
            ended = time.perf_counter()
            counted[3 * at] += ran > 0
            counted[3 * at + 1] += ran
            counted[3 * at + 2] += int((ended - began) * 1e9)
            began = ended
        return Outputs([tensors[spec.name] for spec in self.outputs], 0.0, began - started)


class Tensors:
    """The tensors of one batch: those that came in as raw contents, which a graph may take as they are, and arrays."""

    def __init__(self, specs: Sequence[TensorInfo], blocks: Blocks, shapes: Shapes) -> None:
        self.blocks = {spec.name: block for spec, block in zip(specs, blocks, strict=True)}
        self._given = {spec.name: (spec.datatype, shape) for spec, shape in zip(specs, shapes, strict=True)}
        self._arrays: dict[str, Array] = {}
        self.rows = next(iter(shapes))[0] if shapes[0] else 1

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            self._arrays[name] = array_of(self.blocks[name], *self._given[name])
        return self._arrays[name]

    def __setitem__(self, name: str, array: Array) -> None:
        self._arrays[name] = array

    def get(self, name: str) -> Array | None:
        """The tensor, if it was given by a step."""
        return self._arrays.get(name)

    def block(self, name: str) -> bytes:
        """A tensor's raw contents."""
        block = self.blocks.get(name)
        return to_raw(self._arrays[name]) if block is None else block


def bound_steps(ensemble: Ensemble, resolve: Resolve) -> list[BoundStep]:
    """The steps with the versions that run them.

    Raises:
        InvalidInputError: a version does not take what its step is given, or the ensemble's outputs are of another form.
        NotReadyError, NotFoundError: a model is not there.
    """
    known = {spec.name: spec for spec in ensemble.inputs}
    found = []
    for step in ensemble.steps:
        try:
            servable = None if isinstance(step, MeanStep) else resolve(step.model, step.version)
            given = _gives(step, servable, known)
        except InvalidInputError as error:
            raise InvalidInputError(f"step {shown(step.name)}: {error}") from error
        for name, spec in given.items():
            if name in known:
                _check_same(
                    spec, known[name], f"step {shown(step.name)} gives tensor {shown(name)} as", "a former step as"
                )
            known.setdefault(name, spec)
        found.append(BoundStep(step, servable))
    for spec in ensemble.outputs:
        _check_same(known[spec.name], spec, f"output {shown(spec.name)} is", "the file says")
    return found


def _gives(step: Step, servable: Servable | None, known: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors that a step gives, once what it gets fits."""
    if isinstance(step, MeanStep):
        first = known[step.of[0]]
        for name in step.of:
            _check_same(known[name], first, f"tensor {shown(name)} is", f"{shown(first.name)} is")
        if first.datatype not in {"FP16", "FP32", "FP64", "BF16"}:
            raise InvalidInputError(
                f"tensor {shown(first.name)} is {first.datatype}, expected floating-point numbers to average"
            )
        return {step.output: first}
    assert servable is not None
    if isinstance(servable, EnsembleServable):
        raise InvalidInputError(f"model {shown(step.model)} is an ensemble itself, which cannot be a step")
    _check_inputs(step, servable, known)
    outputs = {spec.name: spec for spec in servable.outputs}
    if unknown := next((name for name in step.outputs if name not in outputs), None):
        raise InvalidInputError(f"model {shown(step.model)} has no output {shown(unknown)}; it has {_names(outputs)}")
    if step.when is not None:
        _check_when(step.when, known[step.when[0]], servable)
    return {name: outputs[own] for own, name in step.outputs.items()}


def _check_inputs(step: ModelStep, servable: Servable, known: Mapping[str, TensorInfo]) -> None:
    pipeline = servable.pipeline
    wanted = {spec.name: spec for spec in servable.model.signature.inputs}
    if pipeline is not None:
        wanted = {name: TensorInfo(name, "FP64", (ANY, 1)) for name in pipeline.numbers}
        wanted |= {name: TensorInfo(name, "INT64", (ANY, 1)) for name in pipeline.times}
        wanted |= {name: TensorInfo(name, "BYTES", (ANY, 1)) for name in pipeline.strings}
    for names, others, said in ((step.inputs, wanted, "has no input"), (wanted, step.inputs, "needs input")):
        if missing := next((name for name in names if name not in others), None):
            raise InvalidInputError(f"model {shown(step.model)} {said} {shown(missing)}; it takes {_names(wanted)}")
    for own, name in step.inputs.items():
        given, spec = known[name], wanted[own]
        if pipeline is not None and own in pipeline.numbers and given.datatype in NUMPY_TYPES:
            spec = TensorInfo(own, given.datatype, spec.shape)
        if pipeline is not None and len(given.shape) == 1:
            spec = TensorInfo(own, spec.datatype, (ANY,))
        _check_same(given, spec, f"tensor {shown(name)} is", f"input {shown(own)} of model {shown(step.model)} is")


def _check_when(when: tuple[str, int | str], spec: TensorInfo, servable: Servable) -> None:
    name, value = when
    is_one = spec.shape in ((ANY,), (ANY, 1))
    is_right = (spec.datatype == "BYTES") == isinstance(value, str)
    if not is_one or not is_right:
        raise InvalidInputError(
            f"it runs when {shown(name)} is {value!r}, and that is {spec.datatype} of shape {list(spec.shape)}; "
            "expected one value of the same kind per row"
        )
    if not servable.is_batched:
        raise InvalidInputError(
            f"it runs for some rows alone, and model {shown(servable.key[0])} runs each request whole"
        )


def _check_same(one: TensorInfo, other: TensorInfo, first: str, second: str) -> None:
    # Of some outputs a graph does not tell the shape.
    is_told = bool(one.shape) and bool(other.shape)
    fits = len(one.shape) == len(other.shape) and all(
        ANY in pair or pair[0] == pair[1] for pair in zip(one.shape, other.shape, strict=True)
    )
    if one.datatype != other.datatype or (is_told and not fits):
        raise InvalidInputError(
            f"{first} {one.datatype} of shape {list(one.shape)}, {second} {other.datatype} of shape {list(other.shape)}"
        )


def _names(names: Mapping[str, object]) -> str:
    return ", ".join(map(shown, list(names)[:20]))


def _runner(bound: BoundStep) -> Callable[[Tensors], int]:
    """What runs a step, adds what it gives, and returns for how many rows it ran."""
    step, servable = bound.step, bound.servable
    if isinstance(step, MeanStep):
        return partial(_average, step)
    assert servable is not None
    if step.when is None and servable.is_batched and servable.pipeline is None:
        return _whole(step, servable)
    return partial(_run, step, servable)


def _average(step: MeanStep, tensors: Tensors) -> int:
    parts = [tensors[name] for name in step.of]
    mean = np.average(np.stack(parts).astype(np.float64), axis=0, weights=step.weights)
    tensors[step.output] = mean.astype(parts[0].dtype)
    return len(mean) if mean.ndim else 1


def _whole(step: ModelStep, servable: Servable) -> Callable[[Tensors], int]:
    """Runs a graph for all rows: its blocks are the tensors as they are, whose types and shapes fit."""
    names = [step.inputs[spec.name] for spec in servable.model.signature.inputs]
    places = {spec.name: at for at, spec in enumerate(servable.outputs)}
    gives = [(places[own], name) for own, name in step.outputs.items()]
    predict = servable.predict

    def run(tensors: Tensors) -> int:
        rows = tensors.rows
        arrays = predict([tensors.block(name) for name in names], rows, None, None).arrays
        for at, name in gives:
            array = arrays[at]
            if len(array) != rows:
                raise ModelFailedError("a step gave another number of rows than it got")
            tensors[name] = array
        return rows

    return run


def _run(step: ModelStep, servable: Servable, tensors: Tensors) -> int:
    places = None if step.when is None else _places(tensors[step.when[0]], step.when[1])
    arrays = {own: tensors[name] if places is None else tensors[name][places] for own, name in step.inputs.items()}
    first = next(iter(arrays.values()))
    rows = len(first) if first.ndim else 1
    if places is not None and not rows:
        _scatter(tensors, places, {name: _none(servable, own) for own, name in step.outputs.items()})
        return 0
    blocks, shapes = blocks_of(servable, arrays, rows)
    outputs = servable.predict(blocks, rows, None if servable.is_batched else shapes, None)
    if outputs.refusal is not None:
        # The batch runs again request by request, and the one with such rows is told.
        raise outputs.refusal.error(0, rows)
    given = {spec.name: array for spec, array in zip(servable.outputs, outputs.arrays, strict=True)}
    if servable.is_batched and any(len(array) != rows for array in given.values()):
        raise ModelFailedError("a step gave another number of rows than it got")
    _scatter(tensors, places, {name: given[own] for own, name in step.outputs.items()})
    return rows


def _places(values: Array, wanted: int | str) -> NDArray[np.bool_]:
    """The rows that have this value."""
    flat = values.reshape(len(values))
    if isinstance(wanted, str):
        return np.fromiter((each == wanted for each in flat), bool)
    found: NDArray[np.bool_] = flat == wanted
    return found


def _none(servable: Servable, output: str) -> Array:
    """No rows of an output."""
    at = [spec.name for spec in servable.outputs].index(output)
    dtype = NUMPY_TYPES.get(servable.outputs[at].datatype, np.dtype(object))
    return np.empty((0, *(0 if size == ANY else size for size in servable.tails[at])), dtype)


def _scatter(tensors: Tensors, places: NDArray[np.bool_] | None, given: Mapping[str, Array]) -> None:
    """Adds what a step gave; for some rows alone, the others keep what they have."""
    for name, array in given.items():
        if places is None:
            tensors[name] = array
            continue
        former = tensors.get(name)
        if former is None:
            fill: Any = "" if array.dtype == object else np.nan if array.dtype.kind == "f" else 0
            former = np.full((len(places), *array.shape[1:]), fill, array.dtype)
        elif former.shape[1:] != array.shape[1:] and len(array):
            raise ModelFailedError(f"steps give rows of tensor {name!r} other shapes")
        else:
            former = former.copy()
        if len(array):
            former[places] = array
        tensors[name] = former
