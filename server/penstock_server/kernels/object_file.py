"""Lays out a compiled object, an ELF file, as one block of memory, so that loading it needs no linker and no LLVM.

`build` calls `flatten` once per entry point. What stays open is what only the loading process knows, its addresses: a
`Relocation` each. Everything in the object that is loaded (machine code and constants) goes into the block; unwinding tables
do not, since the kernels raise nothing.

The relocations are those that LLVM emits for code that may lie anywhere: on x86-64 whole addresses only; on aarch64 also
addresses in four moves, branches within 128 MiB, which get a stub at the end of the block, and a table of addresses.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from penstock_server.errors import UnsupportedError
from penstock_server.kernels.compiled import CompiledObject, Relocation, RelocationKind

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELA: Final = struct.Struct("<QQq")
_WORD: Final = struct.Struct("<Q")
_INSTRUCTION: Final = struct.Struct("<I")
_PROGBITS, _SYMTAB, _RELATIVE = 1, 2, 4
_NOBITS: Final = 8
_ALLOCATED: Final = 2
_UNWINDING: Final = (".eh_frame",)
_X86_64, _AARCH64 = 62, 183
_MOVES: Final[dict[int, RelocationKind]] = {264: "move0", 266: "move16", 268: "move32", 269: "move48"}
_STUB: Final = struct.Struct("<IIQ")
_PAGE: Final = 4096


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    target: int
    alignment: int


class _Symbol(NamedTuple):
    name: str
    section: int
    value: int
    size: int


class _Place(NamedTuple):
    """An address: a position in the block, or a symbol of the process (then `at` is the addend)."""

    symbol: str
    at: int


def flatten(name: str, symbol: str, code: bytes) -> CompiledObject:
    """The object as a block of memory, whose entry point is `symbol`.

    Raises:
        UnsupportedError: it is not an object of a known processor, or has a relocation that is not known.
    """
    return _Layout(code).flattened(name, symbol)


@dataclass
class _Layout:
    """The block while it is laid out."""

    code: bytes
    block: bytearray = field(default_factory=bytearray)
    relocations: list[Relocation] = field(default_factory=list)
    _extra: dict[tuple[str, _Place], int] = field(default_factory=dict)

    def flattened(self, name: str, symbol: str) -> CompiledObject:
        head = _HEADER.unpack_from(self.code)
        if head[0][:6] != b"\x7fELF\x02\x01" or head[2] not in {_X86_64, _AARCH64}:
            raise UnsupportedError(
                f"the compiler gave an object for machine {head[2]}, expected ELF for x86-64 or aarch64"
            )
        sections = list(self._sections(head))
        starts = self._lay_out(sections)
        symbols = list(self._symbols(sections))
        places = self._places(symbols, starts)
        for section in sections:
            if section.kind == _RELATIVE and section.target in starts:
                for offset, info, addend in _RELA.iter_unpack(self._content(section)):
                    place = places[info >> 32]
                    self._relocate(
                        head[2],
                        info & 0xFFFFFFFF,
                        starts[section.target] + offset,
                        place._replace(at=place.at + addend),
                    )
        entry = next(place.at for each, place in zip(symbols, places, strict=True) if each.name == symbol)
        return CompiledObject(name, entry, bytes(self.block), tuple(self.relocations))

    def _sections(self, head: tuple[int, ...]) -> Iterator[_Section]:
        at, size, count, names = head[6], head[11], head[12], head[13]
        raw = [_SECTION.unpack_from(self.code, at + index * size) for index in range(count)]
        for name, kind, flags, _, offset, length, link, target, alignment, _ in raw:
            yield _Section(self._text(raw[names][4] + name), kind, flags, offset, length, link, target, alignment)

    def _symbols(self, sections: list[_Section]) -> Iterator[_Symbol]:
        table = next(section for section in sections if section.kind == _SYMTAB)
        for name, _, _, section, value, size in _SYMBOL.iter_unpack(self._content(table)):
            yield _Symbol(self._text(sections[table.link].offset + name), section, value, size)

    def _lay_out(self, sections: list[_Section]) -> dict[int, int]:
        """Puts each section that is loaded into the block; where each begins."""
        starts = {}
        for index, section in enumerate(sections):
            if section.flags & _ALLOCATED and section.size and section.name not in _UNWINDING:
                starts[index] = self._append(
                    bytes(section.size) if section.kind == _NOBITS else self._content(section), section.alignment
                )
        return starts

    def _places(self, symbols: list[_Symbol], starts: dict[int, int]) -> list[_Place]:
        places = []
        for symbol in symbols:
            match symbol.section:
                case 0:
                    places.append(_Place(symbol.name, 0))
                case 0xFFF2:  # a common symbol: memory of its own, and `value` is its alignment
                    places.append(_Place("", self._append(bytes(symbol.size), symbol.value)))
                case _:
                    places.append(_Place("", starts.get(symbol.section, 0) + symbol.value))
        return places

    def _relocate(self, machine: int, kind: int, at: int, place: _Place) -> None:
        match machine, kind:
            case (62, 1) | (183, 257):  # R_X86_64_64, R_AARCH64_ABS64
                self.relocations.append(Relocation("word", at, place.symbol, place.at))
            case 183, 264 | 266 | 268 | 269:  # R_AARCH64_MOVW_UABS_G0_NC, G1_NC, G2_NC, G3
                self.relocations.append(Relocation(_MOVES[kind], at, place.symbol, place.at))
            case 183, 282 | 283:  # R_AARCH64_JUMP26, R_AARCH64_CALL26
                distance = (self._stub(place) if place.symbol else place.at) - at
                self._patch(at, distance >> 2 & 0x3FFFFFF)
            case 183, 311:  # R_AARCH64_ADR_GOT_PAGE
                pages = self._pointer(place) // _PAGE - at // _PAGE
                self._patch(at, (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)
            case 183, 312:  # R_AARCH64_LD64_GOT_LO12_NC
                self._patch(at, (self._pointer(place) % _PAGE >> 3) << 10)
            case _:
                raise UnsupportedError(
                    f"the compiler gave a relocation of kind {kind} for machine {machine}, which is not known"
                )

    def _stub(self, place: _Place) -> int:
        """Where code for a far branch is: `ldr x16, #8; br x16`, and the address."""
        if ("stub", place) not in self._extra:
            at = self._extra["stub", place] = self._append(_STUB.pack(0x58000050, 0xD61F0200, 0), 8)
            self.relocations.append(Relocation("word", at + 8, place.symbol, place.at))
        return self._extra["stub", place]

    def _pointer(self, place: _Place) -> int:
        """Where an address is kept that code loads."""
        if ("pointer", place) not in self._extra:
            at = self._extra["pointer", place] = self._append(bytes(_WORD.size), 8)
            self.relocations.append(Relocation("word", at, place.symbol, place.at))
        return self._extra["pointer", place]

    def _patch(self, at: int, bits: int) -> None:
        """Sets bits of an instruction whose operand is zero."""
        (instruction,) = _INSTRUCTION.unpack_from(self.block, at)
        _INSTRUCTION.pack_into(self.block, at, instruction | bits)

    def _append(self, content: bytes, alignment: int) -> int:
        self.block += bytes(-len(self.block) % max(alignment, 1))
        at = len(self.block)
        self.block += content
        return at

    def _content(self, section: _Section) -> bytes:
        return self.code[section.offset : section.offset + section.size]

    def _text(self, at: int) -> str:
        return self.code[at : self.code.index(b"\0", at)].decode()
