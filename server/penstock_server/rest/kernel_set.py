"""The REST port's kernels as a set: what they are compiled from, and how Python calls them."""

from ctypes import c_char_p, c_int64, c_void_p
from typing import Final

from penstock_server.kernels.kernel_set import KernelSet, Prototype

_WORD: Final = c_int64
KERNELS: Final = KernelSet(
    name="rest",
    defined_in=__name__,
    title="kernels of the REST port",
    users="requests over REST that are alike",
    modules=("penstock_server.rest.kernels.entry",),
    sources=(
        "rest/kernel_set.py",
        "rest/kernels/*.py",
        "rest/layout.py",
        "transport/layout.py",
        "kernels/memory.py",
    ),
    prototypes={
        "turn": Prototype(_WORD, (c_void_p,)),
        "message": Prototype(_WORD, (c_void_p, _WORD, c_char_p, _WORD)),
        "body": Prototype(_WORD, (c_void_p, _WORD, c_char_p, _WORD)),
        "release": Prototype(_WORD, (c_void_p, c_void_p)),
        "forget": Prototype(_WORD, (c_void_p,)),
        "number_read": Prototype(_WORD, (c_void_p, c_char_p, _WORD, c_void_p)),
        "number_written": Prototype(_WORD, (c_void_p, _WORD, c_void_p, c_void_p)),
    },
    functions=40,
)
