"""The kernels of models as a set: what they are compiled from, and how Python calls them."""

from ctypes import c_int64, c_void_p
from typing import Final

from penstock_server.kernels.kernel_set import KernelSet, Prototype

_OUTPUTS: Final = (c_void_p,) * 3
KERNELS: Final = KernelSet(
    name="models",
    defined_in=__name__,
    title="kernels of models",
    users="models that run as kernels",
    modules=("penstock_server.compiled_models.kernels.entry",),
    sources=("compiled_models/kernel_set.py", "compiled_models/kernels/*.py", "compiled_models/layout.py"),
    prototypes={"run_model": Prototype(c_int64, (c_void_p, c_void_p, c_int64, *_OUTPUTS))},
    functions=80,
)
