"""Compares the tensors that a model's configuration declares with those of its graph: what requests send and get by it.

A configuration may say less than the graph (fewer outputs, dims that the graph leaves open) and it may have tensors reshaped.
It may not say otherwise. `onnx_model` asks once per version.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.models.triton_config import NAME, TritonConfig
from penstock_server.models.version_folder import shown

_INVALID: Final = "INVALID"


@dataclass(frozen=True, slots=True)
class DeclaredTensors:
    """What a version's requests have.

    Attributes:
        signature: the tensors as requests send and get them.
        reshaped: by name, the dims behind the rows that the graph has in place of those, of inputs, and the other way round of
            outputs: -1 is what remains.
        has_rows: those dims stand behind the rows.
        is_whole: the outputs are all of the graph's.
    """

    signature: Signature
    reshaped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_rows: bool = False
    is_whole: bool = True

    def reshape(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """A tensor in the other form; as it is where both are the same."""
        dims = self.reshaped.get(name)
        if dims is None:
            return array
        shape = (len(array), *dims) if self.has_rows else dims
        if array.size == 0:
            shape = tuple(0 if size == ANY else size for size in shape)
        return np.reshape(array, shape)


def declared(signature: Signature, config: TritonConfig | None) -> DeclaredTensors:
    """The graph's tensors as the configuration has them.

    Raises:
        InvalidInputError: the two disagree.
    """
    if config is None:
        return DeclaredTensors(signature)
    try:
        return _declared(signature, config)
    except InvalidInputError as error:
        raise InvalidInputError(f"{NAME} and the graph disagree: {error}") from error


def _declared(signature: Signature, config: TritonConfig) -> DeclaredTensors:
    message = config.message
    has_rows = config.has_rows
    reshaped: dict[str, tuple[int, ...]] = {}
    inputs, outputs, optional = signature.inputs, signature.outputs, signature.optional
    known: dict[str, Any]
    if message.input:
        known = {each.name: each for each in message.input}
        _check_names("input", known, [spec.name for spec in (*inputs, *optional)], [spec.name for spec in inputs])
        inputs = tuple(_facing("input", spec, known[spec.name], config, reshaped, has_rows=has_rows) for spec in inputs)
        optional = tuple(
            _facing("input", spec, known[spec.name], config, reshaped, has_rows=False)
            for spec in optional
            if spec.name in known
        )
        for spec in inputs:
            if known[spec.name].optional:
                raise InvalidInputError(f"input {shown(spec.name)} is optional, and the graph has no default for it")
    if message.output:
        known = {each.name: each for each in message.output}
        _check_names("output", known, [spec.name for spec in outputs], [])
        outputs = tuple(
            _facing("output", spec, known[spec.name], config, reshaped, has_rows=has_rows)
            for spec in outputs
            if spec.name in known
        )
    if has_rows:
        _check_rows(message.max_batch_size, (("input", inputs), ("output", outputs)))
    outputs = tuple(replace(spec, labels=config.labels.get(spec.name, spec.labels)) for spec in outputs)
    is_whole = len(outputs) == len(signature.outputs)
    return DeclaredTensors(signature_of(inputs, outputs, optional), reshaped, has_rows, is_whole)


def signature_of(
    inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], optional: tuple[TensorInfo, ...]
) -> Signature:
    """A signature, and whether its requests can be joined along the first axis.

    With more than one free axis they would have to agree on the others.
    """
    joinable = all(spec.shape and spec.shape[0] == ANY and ANY not in spec.shape[1:] for spec in inputs)
    is_batched = joinable and all(spec.shape and spec.shape[0] == ANY for spec in outputs)
    return Signature(inputs, outputs, is_batched, optional)


def _check_names(what: str, declared_names: Iterable[str], known: Sequence[str], needed: Sequence[str]) -> None:
    unknown = [name for name in declared_names if name not in known]
    missing = [name for name in needed if name not in set(declared_names)]
    for names, said in ((unknown, f"the graph has no {what}"), (missing, f"the file lacks {what}")):
        if names:
            raise InvalidInputError(f"{said} {shown(names[0])}; expected {', '.join(map(shown, known[:20]))}")


def _facing(
    what: str, spec: TensorInfo, declared_tensor: Any, config: TritonConfig, reshaped: dict[str, Any], *, has_rows: bool
) -> TensorInfo:
    """A tensor as requests have it."""
    datatype = config.datatype(declared_tensor)
    if datatype not in (_INVALID, spec.datatype):
        raise InvalidInputError(
            f"{what} {shown(spec.name)} is {_type(datatype)}, and the graph has {_type(spec.datatype)}"
        )
    rows = (ANY,) if has_rows else ()
    dims, has_reshape = tuple(declared_tensor.dims), declared_tensor.HasField("reshape")
    if not dims and not has_reshape:
        return spec
    own = (*rows, *(declared_tensor.reshape.shape if has_reshape else dims))
    # An output of which the graph tells no shape has any.
    is_untold = what == "output" and not spec.shape
    if not is_untold and not _fits(spec.shape, own):
        graph = list(spec.shape)
        raise InvalidInputError(
            f"{what} {shown(spec.name)} has shape {list(own)}, and the graph has {graph} (-1 is any size)"
        )
    if has_reshape:
        reshaped[spec.name] = tuple(declared_tensor.reshape.shape) if what == "input" else dims
    return replace(spec, shape=(*rows, *dims))


def _fits(graph: tuple[int, ...], own: tuple[int, ...]) -> bool:
    return len(graph) == len(own) and all(size in (ANY, said) for size, said in zip(graph, own, strict=True))


def _check_rows(most: int, tensors: Iterable[tuple[str, Sequence[TensorInfo]]]) -> None:
    for what, specs in tensors:
        for spec in specs:
            # An output of unknown shape may have rows.
            if spec.shape[:1] != (ANY,) and (spec.shape or what == "input"):
                shape = list(spec.shape)
                raise InvalidInputError(
                    f"max_batch_size is {most}, and {what} {shown(spec.name)} of shape {shape} has no free first axis"
                )


def _type(datatype: str) -> str:
    return f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}"
