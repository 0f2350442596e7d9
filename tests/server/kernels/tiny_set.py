"""The tiny kernels as a set."""

from ctypes import CFUNCTYPE, c_int32, c_int64, c_uint32, c_void_p
from types import SimpleNamespace
from typing import Any, Final

from penstock_server.kernels.kernel_set import KernelSet, Prototype


@CFUNCTYPE(c_int32, c_void_p, c_int64)
def _elsewhere(at: int, same: int) -> int:
    return -1 if at == same else 0


def _libraries() -> list[Any]:
    return [SimpleNamespace(penstock_elsewhere=_elsewhere)]


KERNELS: Final = KernelSet(
    name="tiny",
    defined_in=__name__,
    title="tiny kernels",
    users="tests",
    modules=("tests.server.kernels.tiny_kernels",),
    sources=(),
    prototypes={
        "sort": Prototype(c_int64, (c_void_p, c_int64, c_int64)),
        "swap_bytes": Prototype(c_uint32, (c_int64,)),
        "ask": Prototype(c_int64, (c_int64,)),
    },
    functions=2,
    libraries=_libraries,
)
