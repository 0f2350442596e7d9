"""The kernels of plain requests as a set: what they are compiled from, and how Python calls them."""

from ctypes import c_char_p, c_int64, c_void_p
from typing import Final

from penstock_server.kernels.kernel_set import KernelSet, Prototype

_WORD: Final = c_int64
KERNELS: Final = KernelSet(
    name="plain",
    defined_in=__name__,
    title="kernels of plain requests",
    users="plain requests",
    modules=("penstock_server.plain.kernels.entry",),
    sources=(
        "plain/kernel_set.py",
        "plain/kernels/*.py",
        "plain/layout.py",
        "transport/layout.py",
        "features/counting.py",
        "features/compiler/layout.py",
        "compiled_models/layout.py",
        "compiled_models/choice.py",
        "kernels/memory.py",
        "kernels/clock.py",
        "tracing/layout.py",
        "labels/layout.py",
        "call.py",
    ),
    prototypes={
        "sift": Prototype(_WORD, (c_void_p, c_void_p, _WORD, _WORD)),
        "gather": Prototype(_WORD, (c_void_p, _WORD, _WORD, _WORD, c_void_p, _WORD)),
        "empty": Prototype(_WORD, (c_void_p, _WORD, c_void_p, _WORD)),
        "pass_on": Prototype(_WORD, (c_void_p, c_void_p, _WORD, _WORD, _WORD)),
        "give_up": Prototype(_WORD, (c_void_p, _WORD)),
        "answer": Prototype(_WORD, (c_void_p,)),
        "missing_layout": Prototype(_WORD, (c_void_p, _WORD, c_void_p, _WORD)),
        "end_batch": Prototype(_WORD, (c_void_p, c_void_p, _WORD)),
        "look_up": Prototype(_WORD, (c_void_p, c_char_p, _WORD)),
        "hash_of": Prototype(_WORD, (c_char_p, _WORD)),
        "serve": Prototype(_WORD, (c_void_p, _WORD, _WORD)),
        "finish_batch": Prototype(_WORD, (c_void_p, _WORD, _WORD)),
        "learn_cost": Prototype(_WORD, (c_void_p, c_void_p, _WORD, _WORD)),
    },
    functions=118,
)
