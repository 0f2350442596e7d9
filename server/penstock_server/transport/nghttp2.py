"""Finds libnghttp2, the C library that speaks HTTP/2 for the native transport.

It comes with the system (Debian's `libnghttp2-14`, which git and curl bring along and which gets security fixes), or in the
wheel of pycurl. `PENSTOCK_NGHTTP2` names another file.

Source: nghttp2's documentation; all functions that are used here are in 1.52, Debian 12's.
"""

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from penstock_server.errors import UnavailableError
from penstock_server.transport import layout

VARIABLE: Final = "PENSTOCK_NGHTTP2"
SYSTEM: Final = "libnghttp2.so.14"
NEEDED: Final = "nghttp2_option_set_stream_reset_rate_limit"
"""The remedy against rapid resets (CVE-2023-44487), which distributions have put into older versions too."""
INSTALL: Final = "apt-get install libnghttp2-14, or pip install pycurl"

RESETS_PER_S: Final = 10_000
"""nghttp2's own limit is the second: the kernels' comes before it and says why."""
MOST_ACKNOWLEDGEMENTS: Final = layout.MOST_IDLE_FRAMES
"""Answers to pings and settings that may wait for a caller that does not read."""


@dataclass(frozen=True, slots=True)
class Nghttp2:
    """The library, loaded.

    Attributes:
        origin: the file, for people.
    """

    library: Any
    origin: str
    version: str


class _Info(ctypes.Structure):
    _fields_ = (("age", ctypes.c_int), ("number", ctypes.c_int), ("text", ctypes.c_char_p))


def load() -> Nghttp2:
    """The library.

    Raises:
        UnavailableError: there is none that can be used; says why, and how to get one.
    """
    reasons = []
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            reasons.append(f"{name}: {error}")
            continue
        if not hasattr(library, NEEDED):
            reasons.append(f"{name}: too old, it lacks the remedy against rapid resets ({NEEDED})")
            continue
        library.nghttp2_version.restype = ctypes.POINTER(_Info)
        return Nghttp2(library, _path_of(library, name), library.nghttp2_version(0).contents.text.decode())
    raise UnavailableError(f"libnghttp2 cannot be loaded ({'; '.join(reasons)}); {INSTALL}")


def _candidates() -> Iterator[str]:
    if named := os.environ.get(VARIABLE):
        yield named
        return
    yield SYSTEM
    found = find_spec("pycurl")
    if found is not None and found.origin is not None:
        # A wheel's libraries lie beside its package.
        for folder in Path(found.origin).parents[:2]:
            yield from map(str, sorted(folder.glob("pycurl.libs/libnghttp2-*.so*")))


def _path_of(library: Any, name: str) -> str:
    """The file that was loaded, as the system's list of this process has it."""
    address = ctypes.cast(library.nghttp2_version, ctypes.c_void_p).value or 0
    try:
        for line in Path("/proc/self/maps").read_text().splitlines():
            places, *_, path = line.split(maxsplit=5)
            first, _, last = places.partition("-")
            if int(first, 16) <= address < int(last, 16):
                return path
    except (OSError, ValueError):
        pass
    return name


def callbacks(library: Any, addresses: dict[str, int]) -> int:
    """nghttp2's record of what it calls back; its address. It lasts as long as the process."""
    record = ctypes.c_void_p()
    library.nghttp2_session_callbacks_new(ctypes.byref(record))
    for name, entry in (
        ("on_begin_headers", "on_begin_headers"),
        ("on_header", "on_header"),
        ("on_data_chunk_recv", "on_data"),
        ("on_frame_recv", "on_frame_received"),
        ("on_frame_send", "on_frame_sent"),
        ("on_stream_close", "on_close"),
    ):
        setter = getattr(library, f"nghttp2_session_callbacks_set_{name}_callback")
        setter(record, ctypes.c_void_p(addresses[entry]))
    return record.value or 0


def option(library: Any) -> int:
    """nghttp2's record of how sessions behave; its address. It lasts as long as the process."""
    record = ctypes.c_void_p()
    library.nghttp2_option_new(ctypes.byref(record))
    library.nghttp2_option_set_no_auto_window_update(record, 1)
    library.nghttp2_option_set_no_closed_streams(record, 1)
    library.nghttp2_option_set_max_outbound_ack(record, ctypes.c_size_t(MOST_ACKNOWLEDGEMENTS))
    library.nghttp2_option_set_stream_reset_rate_limit(
        record, ctypes.c_uint64(2 * layout.MOST_RESETS), ctypes.c_uint64(RESETS_PER_S)
    )
    return record.value or 0
