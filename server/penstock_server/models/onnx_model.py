"""Runs one ONNX graph in onnxruntime; no other module imports that library.

It turns raw blocks into feeds and returns arrays. The batch scheduler decides which rows run together.
"""

import ctypes
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from penstock.tensors import BF16, NUMPY_TYPES, element_bytes, narrowed, split_bytes, widened
from penstock_server.errors import (
    InvalidInputError,
    ModelFailedError,
    RefusedByModelError,
    UnavailableError,
    first_line,
)
from penstock_server.models import execution, onnx_file, sized_batches
from penstock_server.models.declared_tensors import declared, signature_of
from penstock_server.models.execution import CPU, PROVIDERS, ExecutionSettings, Placement
from penstock_server.models.manifest import GraphOptimization
from penstock_server.models.signature import ANY, GivenTensor, Signature, TensorInfo
from penstock_server.models.sized_batches import SIZES, Feeds, Run, SizedBatches
from penstock_server.models.triton_config import TritonConfig

# Some builds record usage events; a server's requests are confidential.
onnxruntime.disable_telemetry_events()
# What goes wrong is raised as well, and logged in the server's own form. Of devices it reports what it gets by without, too.
onnxruntime.set_default_logger_severity(4)

_OrtValue: Final = onnxruntime.OrtValue
_ONNX_BF16: Final = 16
_SMALLEST: Final = (
    b'\x08\x08:9\n\x10\n\x01X\x12\x01Y"\x08Identity\x12\x01gZ\x10\n\x01X\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01N'
    b"b\x10\n\x01Y\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01NB\x04\n\x00\x10\x11"
)
"""A graph that gives back a row of numbers."""
"""`TensorProto.BFLOAT16`."""
_LEVELS: Final[dict[GraphOptimization, Any]] = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_DATATYPES: Final[dict[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}


class OnnxModel:
    """A session and its signature. `run` may be called from several threads at once.

    Attributes:
        signature: what goes in and out, as requests have it.
        config: the configuration, if there is one.
        declared: how that has the graph's tensors.
        file: the graph's structure, which was checked before onnxruntime saw it.
        placement: what it runs on.

    Args:
        path: the .onnx file; external data is in the same folder.
        threads: onnxruntime's threads within one operator. One is right for small models: cores are used by processes.
        settings: which providers run it; the CPU where that is left out.
        config: declares the tensors; None takes them as the graph has them.
        graph_optimization: how much onnxruntime may rewrite the graph.

    Raises:
        InvalidInputError: the file is refused, onnxruntime cannot run it, an input or output is not a tensor of a known
            type, or the configuration declares others.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        settings: ExecutionSettings = ExecutionSettings(),  # noqa: B008 - frozen
        config: TritonConfig | None = None,
        graph_optimization: GraphOptimization = "all",
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = _LEVELS[graph_optimization]
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Batches grow at load until a device has no memory for them, which is no error.
        options.log_severity_level = 4 if settings.has_device else 3
        # A spinning thread pool would take the core that the batch scheduler needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.file = onnx_file.read(path)
        source: str | bytes = onnx_file.without_maps(path, self.file) or str(path)
        try:
            session, self.placement = _opened(source, options, settings)
        except InvalidInputError:
            raise
        except Exception as error:
            raise InvalidInputError(f"{path.name} cannot be loaded by onnxruntime: {first_line(error)}") from error
        self._session: Any = session
        self._open = partial(_opened, source, options) if self.placement.devices else None
        self._settings = settings
        self.config = config
        self.declared = declared(_signature(session, path), config)
        self.signature = self.declared.signature
        self._outputs = [output.name for output in self.signature.outputs]
        signature = self.signature
        self._optional = {spec.name: spec for spec in signature.optional}
        datatypes = {spec.datatype for spec in (*signature.inputs, *signature.optional, *signature.outputs)}
        has_bf16 = BF16 in datatypes
        if datatypes >= {BF16, "BYTES"}:
            raise InvalidInputError(
                f"{path.name} has tensors of bfloat16 and of strings, which onnxruntime's Python cannot pass together"
            )
        self._has_bf16 = has_bf16
        self._run: Run = self._runs(session)

    def _runs(self, session: Any) -> Run:
        run: Run = partial(_run_values, session, self.signature) if self._has_bf16 else session.run
        return run

    def run_in_sizes(self, feeds_of: Callable[[int], Feeds], most: int) -> tuple[int, ...]:
        """From now on runs batches in a few sizes, each in a session of its own; rows must be independent of each other.

        The sessions share the memory that the settings allow. The sizes are none where there is too little of it, where larger
        batches of this graph are no cheaper, or where a configuration gives inputs other shapes.

        Args:
            feeds_of: inputs of so many rows, to measure with.
            most: the largest batch.
        """
        if self._open is None or self.declared.reshaped:
            return ()
        settings = self._settings
        if settings.memory_mib is not None:
            settings = replace(settings, memory_mib=max(1, settings.memory_mib // len(SIZES)))

        def open_run() -> Run:
            assert self._open is not None
            session, placement = self._open(settings)
            if placement.devices != self.placement.devices:
                raise UnavailableError(placement.note)
            return self._runs(session)

        sized = sized_batches.opened(open_run, self._outputs, feeds_of, most)
        if not sized:
            return ()
        batches = SizedBatches(sized, frozenset(spec.name for spec in self.signature.inputs), most)
        self._session, self._run, self._open = None, batches, None
        self.placement = replace(self.placement, sizes=batches.sizes)
        return batches.sizes

    def run(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for these inputs, in the signature's order.

        Raises:
            ModelFailedError: onnxruntime raised; its exception is the cause.
        """
        try:
            outputs: list[NDArray[Any]] = self._run(self._outputs, feeds)
        except Exception as error:
            raise ModelFailedError("the model failed on this input") from error
        if self.declared.reshaped:
            return [self._reshaped(name, output) for name, output in zip(self._outputs, outputs, strict=True)]
        return outputs

    def _reshaped(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        try:
            return self.declared.reshape(name, array)
        except ValueError as error:
            raise ModelFailedError(
                "the model's output does not have the elements that config.pbtxt declares"
            ) from error

    def close(self) -> None:
        """Frees the session, and with it the memory on a device, whoever still has the model; a run that goes on ends first."""
        self._session = self._open = None
        self._run = _refuse

    def feeds(self, blocks: Sequence[bytes], shapes: Sequence[tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        """Inputs from raw contents and their shapes, both in the signature's order."""
        feeds = {
            spec.name: array_of(block, spec.datatype, shape)
            for spec, block, shape in zip(self.signature.inputs, blocks, shapes, strict=True)
        }
        if self.declared.reshaped:
            return {name: self._reshaped_input(name, array) for name, array in feeds.items()}
        return feeds

    def _reshaped_input(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        try:
            return self.declared.reshape(name, array)
        except ValueError as error:
            raise RefusedByModelError(
                f"input {name!r} of shape {list(array.shape)} cannot be reshaped to {list(self.declared.reshaped[name])}"
            ) from error

    def given_feeds(self, given: Sequence[GivenTensor]) -> dict[str, NDArray[Any]]:
        """What a request gives in place of defaults, as inputs."""
        return {name: array_of(block, self._optional[name].datatype, shape) for name, block, shape in given}


def _run_values(
    session: Any, signature: Signature, outputs: Sequence[str], feeds: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Runs a graph that takes or gives BF16, which numpy lacks: such tensors are FP32 here, and cross as words."""
    datatypes = {spec.name: spec.datatype for spec in (*signature.inputs, *signature.optional)}
    values = {
        name: _OrtValue.ortvalue_from_numpy_with_onnx_type(narrowed(array), _ONNX_BF16)
        if datatypes[name] == BF16
        else _OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    return [_array_of(value) for value in session.run_with_ort_values(outputs, values)]


def _array_of(value: Any) -> NDArray[Any]:
    if value.data_type() != "tensor(bfloat16)":
        array: NDArray[Any] = value.numpy()
        return array
    shape = value.shape()
    raw = ctypes.string_at(value.data_ptr(), element_bytes(BF16) * prod(shape)) if prod(shape) else b""
    return widened(raw).reshape(shape)


def _refuse(*_: object) -> Any:
    raise UnavailableError("the model is closed")


def available() -> Sequence[str]:
    """The providers that the installed onnxruntime offers, by its own names."""
    return tuple(onnxruntime.get_available_providers())


def version() -> str:
    """The installed onnxruntime's, whichever package brought it: those for devices have other names."""
    return str(onnxruntime.__version__)


def _opened(source: str | bytes, options: Any, settings: ExecutionSettings) -> tuple[Any, Placement]:
    """A session, and what its graph runs on: the first of the settings' providers that can, and those behind it.

    onnxruntime goes on with the CPU where a provider cannot start, and a session may have a provider that runs none of its
    nodes. Both are found out here, because nobody who has paid for a device wants to learn it from a bill.
    """
    if not settings.has_device:
        return onnxruntime.InferenceSession(source, options, providers=[PROVIDERS[CPU].name]), Placement()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    names, notes = execution.offered(settings, available()), []
    failure: Exception | None = None
    if note := execution.missing(settings, available()):
        notes.append(note)
    for at, name in enumerate(names):
        if name in ("cuda", "tensorrt"):
            _load_libraries()
        arguments = execution.arguments(settings, names[at:])
        try:
            # Without `enable_fallback=0` it would print to standard output, and open the session anew on the CPU.
            session = onnxruntime.InferenceSession(source, options, providers=arguments, enable_fallback=0)
        except Exception as error:
            if at == len(names) - 1 and name == CPU:
                raise
            notes.append(f"{name} cannot run it: {_said(error)}")
            failure = error
            continue
        if name == CPU:
            return session, Placement(note="; ".join(notes), is_told=True)
        if PROVIDERS[name].name not in session.get_providers():
            notes.append(f"{name} cannot start: its libraries, its driver or its device are not there")
            continue
        devices, on_cpu, nodes = _runs_on(session, names[at:])
        if devices:
            return session, Placement(devices, on_cpu, nodes, "; ".join(notes), is_told=True)
        notes.append(f"none of its nodes runs on {name}")
    raise InvalidInputError(f"{'; '.join(notes)}; execution.providers does not list {CPU}") from failure


def _runs_on(session: Any, names: Sequence[str]) -> tuple[tuple[str, ...], int, int]:
    """Which of these providers run nodes of the graph, how many are left to the CPU, and how many there are."""
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    devices = tuple(name for name in names if name != CPU and nodes[PROVIDERS[name].name])
    return devices, nodes[PROVIDERS[CPU].name], nodes.total()


_PLACES: Final = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |\[with [^\]]*\] |\S+\.(?:cc|h):\d+ (?:[^()]*\([^()]*\)|\w+) "
)
"""Where in onnxruntime's source an error was raised, and of which kind it is."""


def start_runtime() -> None:
    """Has onnxruntime take what it takes once in a process, whatever it runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    onnxruntime.InferenceSession(_SMALLEST, options, providers=[PROVIDERS[CPU].name]).run(
        None, {"X": np.zeros(1, np.float32)}
    )


def _said(error: BaseException) -> str:
    """An error of a provider without the places in the source, which come first and fill lines."""
    return " ".join(_PLACES.sub("", str(error)).split())[:300]


@cache
def _load_libraries() -> None:
    """Loads CUDA and cuDNN from the packages that pip installs them by, where no system search finds them."""
    with redirect_stdout(sys.stderr):  # it prints what it does not find, and a session says that better
        onnxruntime.preload_dlls()


def array_of(block: bytes, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A tensor from its raw contents, with texts as str."""
    if datatype == "BYTES":
        count = int(np.prod(shape))
        values = np.empty(count, dtype=object)
        values[:] = [_text(element) for element in split_bytes(block, count)]
        return values.reshape(shape)
    return np.frombuffer(block, NUMPY_TYPES[datatype]).reshape(shape)


def _text(element: bytes) -> str:
    # onnxruntime's strings are UTF-8; a wrong byte becomes a replacement character, so that it fails no batch.
    return element.decode("utf-8", "replace")


def _signature(session: Any, path: Path) -> Signature:
    inputs = tuple(_spec(argument, path) for argument in session.get_inputs())
    outputs = tuple(_spec(argument, path) for argument in session.get_outputs())
    # Constants that are inputs too: what they hold is the default. Before IR version 4 all constants were.
    optional = tuple(
        replace(_spec(argument, path), is_optional=True) for argument in session.get_overridable_initializers()
    )
    if not inputs or not outputs:
        raise InvalidInputError(
            f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs, expected at least one each"
        )
    return signature_of(inputs, outputs, optional)


def _spec(argument: Any, path: Path) -> TensorInfo:
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        advice = " (convert classifiers with zipmap=False)" if "map" in argument.type else ""
        raise InvalidInputError(
            f"{path.name}: {argument.name!r} is a {argument.type}, expected a tensor of numbers or strings{advice}"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else ANY for size in argument.shape or ())
    return TensorInfo(argument.name, datatype, shape)
