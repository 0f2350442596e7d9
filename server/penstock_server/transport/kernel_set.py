"""The native transport's kernels as a set: what they are compiled from, and how Python calls them."""

from collections.abc import Sequence
from ctypes import CDLL, c_char_p, c_int64, c_void_p
from typing import Final

from penstock_server.kernels.kernel_set import KernelSet, Prototype
from penstock_server.transport import nghttp2


def _libraries() -> Sequence[CDLL]:
    return (nghttp2.load().library,)


_WORD: Final = c_int64
KERNELS: Final = KernelSet(
    name="transport",
    defined_in=__name__,
    title="transport kernels",
    users="native connections",
    modules=("penstock_server.transport.kernels.entry",),
    sources=(
        "transport/kernel_set.py",
        "transport/kernels/*.py",
        "transport/layout.py",
        "kernels/memory.py",
        "kernels/clock.py",
    ),
    prototypes={
        "turn": Prototype(_WORD, (c_void_p, _WORD, _WORD)),
        "do": Prototype(_WORD, (c_void_p, c_void_p, _WORD, c_void_p)),
        "look_after": Prototype(_WORD, (c_void_p,)),
        "leave": Prototype(_WORD, (c_void_p, _WORD)),
        "open_local": Prototype(_WORD, (c_void_p,)),
        "begin_call": Prototype(_WORD, (c_void_p, _WORD, _WORD, c_char_p, _WORD, _WORD, c_char_p, _WORD)),
        "cancel_call": Prototype(_WORD, (c_void_p, _WORD)),
        "adopt": Prototype(_WORD, (c_void_p,)),
        "decrypted": Prototype(_WORD, (c_void_p, _WORD, c_char_p, _WORD)),
        "encrypted": Prototype(_WORD, (c_void_p, _WORD, _WORD)),
        "block": Prototype(_WORD, (c_void_p, _WORD, _WORD)),
        "watch_listener": Prototype(_WORD, (c_void_p, c_void_p, _WORD, _WORD, _WORD)),
    },
    functions=120,
    libraries=_libraries,
)
