"""Which of onnxruntime's execution providers run a model: the settings, and what follows from what is installed.

A list of providers is an order of preference. What is not there is passed over; a version is refused where none of its list
is there. `models.onnx_model` opens sessions by this; `checks` says at the start what is missing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from penstock_server.errors import InvalidInputError
from penstock_server.per_model import check_own, with_own

CPU: Final = "cpu"
_MEBIBYTE: Final = 1 << 20

Option = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Provider:
    """One of onnxruntime's providers.

    Attributes:
        name: onnxruntime's.
        package: brings it.
        device: its option for the number of the device; "" where it numbers none.
        memory: its option for how much of the device's memory a session may take; "" where it has none.
        options: Penstock's values in place of onnxruntime's own.
    """

    name: str
    package: str
    device: str = ""
    memory: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


# Several versions and workers share a device, so none takes more than it asks for. Products of float32 are made of float32:
# TF32 keeps three digits, and golden requests compare more. Batches have all sizes, and a convolution tried out anew for each
# takes seconds.
_CUDA: Final = {
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
    "use_tf32": "0",
}
_AMD: Final = {"arena_extend_strategy": "kSameAsRequested"}
PROVIDERS: Final[dict[str, Provider]] = {
    "tensorrt": Provider("TensorrtExecutionProvider", "onnxruntime-gpu", "device_id", "trt_max_workspace_size"),
    "cuda": Provider("CUDAExecutionProvider", "onnxruntime-gpu", "device_id", "gpu_mem_limit", _CUDA),
    "migraphx": Provider("MIGraphXExecutionProvider", "onnxruntime-migraphx", "device_id", "migraphx_mem_limit"),
    "rocm": Provider("ROCMExecutionProvider", "onnxruntime-rocm", "device_id", "gpu_mem_limit", _AMD),
    "openvino": Provider("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    CPU: Provider("CPUExecutionProvider", "onnxruntime"),
}
"""By the names that the settings have for them."""
_EXPECTED: Final = f"expected some of {', '.join(PROVIDERS)}"


@dataclass(frozen=True, slots=True)
class OwnExecutionSettings:
    """One model's own values in place of those of `ExecutionSettings`; None keeps the value there."""

    providers: tuple[str, ...] | None = None
    device: int | None = None
    memory_mib: int | None = None
    options: dict[str, dict[str, Option]] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class ExecutionSettings:
    """What runs the graphs that onnxruntime runs.

    Attributes:
        providers: in the order of preference. What the first one cannot run of a graph goes to the next, and in the end to
            the CPU. With "cpu" in the list, a version may run on the CPU altogether, as kernels too; without it, a version
            is refused that none of the others can run.
        device: the number of the GPU.
        memory_mib: what a version may take of the device's memory, in each worker; None sets no limit. TensorRT's is of its
            workspace alone, and OpenVINO knows none.
        options: by provider, what else onnxruntime is told, by onnxruntime's names and untouched.
        models: other values for models of these names.
    """

    providers: tuple[str, ...] = (CPU,)
    device: int = 0
    memory_mib: int | None = None
    options: dict[str, dict[str, Option]] = field(default_factory=dict, hash=False)
    models: dict[str, OwnExecutionSettings] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        self._check_providers()
        if self.device < 0:
            raise InvalidInputError(f"execution.device is {self.device}, expected 0 or more")
        if self.memory_mib is not None and self.memory_mib < 1:
            raise InvalidInputError(f"execution.memory_mib is {self.memory_mib}, expected at least 1")
        for name in self.options:
            if name not in PROVIDERS:
                raise InvalidInputError(f"execution.options.{name} is of no provider; {_EXPECTED}")
        check_own("execution", self.models, self.of)

    def _check_providers(self) -> None:
        if not self.providers:
            raise InvalidInputError("execution.providers is empty, expected at least one provider")
        for name in self.providers:
            if name not in PROVIDERS:
                raise InvalidInputError(f"execution.providers has {name!r}; {_EXPECTED}")
        if len(set(self.providers)) < len(self.providers):
            raise InvalidInputError(f"execution.providers is {list(self.providers)}, expected each once")
        if CPU in self.providers[:-1]:
            raise InvalidInputError(
                f"execution.providers is {list(self.providers)}, expected {CPU!r} at the end, because it runs all"
            )

    @property
    def has_device(self) -> bool:
        """Whether something else than the CPU may run a graph."""
        return self.providers != (CPU,)

    @property
    def allows_cpu(self) -> bool:
        """Whether the CPU may run it altogether."""
        return CPU in self.providers

    def of(self, model: str) -> "ExecutionSettings":
        own = self.models.get(model)
        if own is None:
            return replace(self, models={}) if self.models else self
        options = {name: self.options.get(name, {}) | options for name, options in (own.options or {}).items()}
        return with_own(self, replace(own, options=self.options | options))

    def each(self) -> Iterator[tuple[str, "ExecutionSettings"]]:
        """The settings of all models, and of those that have their own, by the names that the settings have in the file."""
        yield "execution", self.of("")
        yield from ((f"execution.models.{model}", self.of(model)) for model in self.models)


@dataclass(frozen=True, slots=True)
class Placement:
    """What runs a graph.

    Attributes:
        devices: the providers that run parts of it, but for the CPU; empty if the CPU runs all.
        on_cpu: how many of its nodes the CPU runs.
        nodes: how many it has.
        note: why it does not run on the provider that is preferred; "" where it does.
        is_told: there was a choice.
        sizes: the rows of the batches that it runs in; empty where a batch of any size is run as it is.
    """

    devices: tuple[str, ...] = ()
    on_cpu: int = 0
    nodes: int = 0
    note: str = ""
    is_told: bool = False
    sizes: tuple[int, ...] = ()

    @property
    def engine(self) -> str:
        """What runs it, in a few words."""
        if not self.is_told:
            return "onnxruntime"
        cpu = (CPU,) if self.on_cpu or not self.devices else ()
        return f"onnxruntime on {' and '.join((*self.devices, *cpu))}"

    def told(self, reason: str, *, is_shared: bool) -> str:
        """The reason for an engine, with what onnxruntime runs on; `is_shared` if kernels serve some batches."""
        if not self.is_told:
            return reason
        engine, _, why = reason.partition(": ")
        if is_shared:
            engine = f"{engine}, else {self.engine}"
        elif engine == "onnxruntime":
            engine = self.engine
        parts = f"the CPU runs {self.on_cpu} of {self.nodes} nodes" if self.devices and self.on_cpu else ""
        sizes = f"in batches of {', '.join(map(str, self.sizes))} rows" if self.sizes else ""
        return ": ".join(filter(None, (engine, "; ".join(filter(None, (self.note, parts, sizes, why))))))


def offered(settings: ExecutionSettings, available: Sequence[str]) -> tuple[str, ...]:
    """Those of the list that onnxruntime offers; `available` are its names of them.

    Raises:
        InvalidInputError: it offers none; says what would bring them.
    """
    names = tuple(name for name in settings.providers if PROVIDERS[name].name in available)
    if not names:
        raise InvalidInputError(missing(settings, available))
    return names


def missing(settings: ExecutionSettings, available: Sequence[str]) -> str:
    """What onnxruntime does not offer of the list, and what brings it; "" for nothing."""
    names = [name for name in settings.providers if PROVIDERS[name].name not in available]
    if not names:
        return ""
    packages = dict.fromkeys(PROVIDERS[name].package for name in names)
    installs = ", or ".join(f"pip install {package}" for package in packages)
    return (
        f"the installed onnxruntime does not offer {' or '.join(names)}; "
        f"run: pip uninstall onnxruntime, then: {installs} (each is the module onnxruntime, so only one may be installed)"
    )


def arguments(settings: ExecutionSettings, names: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    """These providers with their options, as a session takes them; the CPU comes last in any case."""
    return [(PROVIDERS[name].name, _options(settings, name)) for name in (*(n for n in names if n != CPU), CPU)]


def _options(settings: ExecutionSettings, name: str) -> dict[str, str]:
    provider = PROVIDERS[name]
    options = dict(provider.options)
    if provider.device:
        options[provider.device] = str(settings.device)
    if provider.memory and settings.memory_mib is not None:
        options[provider.memory] = str(settings.memory_mib * _MEBIBYTE)
    # onnxruntime takes texts, and 1 for true.
    own = settings.options.get(name, {}).items()
    return options | {key: str(int(value) if isinstance(value, bool) else value) for key, value in own}
