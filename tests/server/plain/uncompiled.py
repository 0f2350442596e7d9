"""The kernels of plain requests as plain Python, over memory that knows its blocks.

A kernel's module is read again with other names for what it imports: `kernel` leaves a function as it is, and memory is a
table of blocks at addresses that mean nothing else. Whatever is outside a block, or was given back, fails the test.
"""

import builtins
import importlib.util
import struct
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_MASK: Final = (1 << 64) - 1
_GUARD: Final = 1 << 12
_WORD: Final = struct.Struct("<q")
_UINT32: Final = struct.Struct("<I")
_DOUBLE: Final = struct.Struct("<d")
_SINGLE: Final = struct.Struct("<f")


class OutsideError(AssertionError):
    """A kernel touched what is not its own."""


class Memory:
    """Blocks of bytes, and the functions by which kernels reach them.

    Attributes:
        allocations: how often `resize` may still find memory.
        functions: what is called by its address.
        now: nanoseconds, one more each time that the clock is read.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._blocks: dict[int, bytearray] = {}
        self._end = _GUARD
        self.allocations = 1 << 60
        self.functions: dict[int, Callable[..., int]] = {}
        self.now = 1000

    def call(self, function: int, words: tuple[int, ...]) -> int:
        return self.functions[function](*words)

    def clock_ns(self, place: int) -> int:
        self.read(place, 16)
        self.now += 1
        return self.now

    def unix_ns(self, place: int) -> int:
        return 1_000_000_000 + self.clock_ns(place)

    def add(self, content: bytes | int) -> int:
        """The address of a new block, of these bytes or of so many zeros."""
        block = bytearray(content)
        start = self._end
        self._starts.append(start)
        self._blocks[start] = block
        self._end += -(-(len(block) + _GUARD) // _GUARD) * _GUARD
        return start

    def read(self, at: int, size: int) -> bytes:
        block, place = self._find(at, size)
        return bytes(block[place : place + size])

    @property
    def blocks(self) -> set[int]:
        """The addresses of the blocks that were not given back."""
        return set(self._blocks)

    def _find(self, at: int, size: int) -> tuple[bytearray, int]:
        found = bisect_right(self._starts, at) - 1
        start = self._starts[found] if found >= 0 else 0
        block = self._blocks.get(start)
        if size < 0 or block is None or at - start + size > len(block):
            raise OutsideError(f"{size} bytes at {at - start} of a block of {None if block is None else len(block)}")
        return block, at - start

    def _write(self, at: int, content: bytes) -> None:
        block, place = self._find(at, len(content))
        block[place : place + len(content)] = content

    def word(self, at: int) -> int:
        return int(_WORD.unpack(self.read(at, 8))[0])

    def set_word(self, at: int, value: int) -> None:
        self._write(at, (value & _MASK).to_bytes(8, "little"))

    publish = publish_last = set_word

    def wrapped(self, value: int) -> int:
        return (value & _MASK ^ 1 << 63) - (1 << 63)

    def uint32(self, at: int) -> int:
        return int(_UINT32.unpack(self.read(at, 4))[0])

    def set_uint32(self, at: int, value: int) -> None:
        self._write(at, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def uint8(self, at: int) -> int:
        return self.read(at, 1)[0]

    def set_uint8(self, at: int, value: int) -> None:
        self._write(at, bytes([value & 255]))

    def double_at(self, at: int) -> float:
        return float(_DOUBLE.unpack(self.read(at, 8))[0])

    def set_double(self, at: int, value: float) -> None:
        self._write(at, _DOUBLE.pack(value))

    def single_at(self, at: int) -> float:
        return float(_SINGLE.unpack(self.read(at, 4))[0])

    def copy(self, to: int, at: int, size: int) -> int:
        if size:
            self._write(to, self.read(at, size))
        return to

    move = copy

    def compare(self, one: int, other: int, size: int) -> int:
        return int(self.read(one, size) != self.read(other, size)) if size else 0

    def resize(self, at: int, size: int) -> int:
        if self.allocations <= 0:
            return 0
        self.allocations -= 1
        grown = self.add(size)
        if at:
            old = self._blocks.pop(at)
            self._blocks[grown][: len(old)] = old[:size]
        return grown

    def release(self, at: int) -> int:
        if at and self._blocks.pop(at, None) is None:
            raise OutsideError("a block is given back twice, or is none")
        return 0


def module(name: str, **replaced: Any) -> ModuleType:
    """The module of this name, uncompiled; modules that it imports may be replaced."""
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None

    def imported(wanted: str, *arguments: Any) -> Any:
        return replaced.get(wanted) or builtins.__import__(wanted, *arguments)

    made = ModuleType(name)
    made.__dict__["__builtins__"] = {**vars(builtins), "__import__": imported}
    exec(compile(Path(found.origin).read_text(), found.origin, "exec"), made.__dict__)
    return made


_ROOM: Final = "penstock_server.plain.kernels"
_loaded: Final[dict[str, ModuleType]] = {}


def kernels_over(memory: Memory) -> dict[str, ModuleType]:
    """The modules of kernels by name, read once, over another memory each time."""
    if not _loaded:
        _loaded.update(_kernels(memory))
    for loaded in _loaded.values():
        for name in list(vars(loaded)):
            if callable(getattr(memory, name, None)):
                setattr(loaded, name, getattr(memory, name))
    return _loaded


def _kernels(memory: Memory) -> dict[str, ModuleType]:
    base = ModuleType("base")
    base.__dict__["kernel"] = base.__dict__["inlined"] = lambda function: function
    base.__dict__["call"] = memory.call
    parts: dict[str, Any] = {
        "penstock_server.kernels.base": base,
        "penstock_server.kernels.memory": memory,
        "penstock_server.kernels.clock": memory,
    }
    for name in ("scan", "draw", "headers", "waiting", "counts", "callers", "traces", "records", "lanes", "fused"):
        parts[f"{_ROOM}.{name}"] = module(f"{_ROOM}.{name}", **parts)
    return {name.rpartition(".")[2]: part for name, part in parts.items() if name.startswith(_ROOM)}
