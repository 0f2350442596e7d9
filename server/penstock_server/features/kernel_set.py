"""The kernels of features and of explanations as a set: what they are compiled from, and how Python calls them."""

from ctypes import c_char_p, c_int64, c_void_p
from typing import Final

from penstock_server.kernels.kernel_set import KernelSet, Prototype

KERNELS: Final = KernelSet(
    name="features",
    defined_in=__name__,
    title="feature kernels",
    users="versions with features",
    modules=("penstock_server.features.kernels.interpreter", "penstock_server.features.kernels.shapley"),
    sources=(
        "features/kernel_set.py",
        "features/kernels/*.py",
        "features/counting.py",
        "features/compiler/*layout.py",
    ),
    prototypes={
        "run": Prototype(
            c_int64, (c_void_p, c_char_p, c_char_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p, c_int64)
        ),
        "count_elements": Prototype(c_int64, (c_char_p, c_int64)),
        "explain_trees": Prototype(c_int64, (c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_void_p)),
    },
    functions=157,
)
