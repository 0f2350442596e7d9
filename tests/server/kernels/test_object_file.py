"""Objects as LLVM emits them for both processors; those of this machine are run."""

import platform
import struct

import llvmlite.binding as llvm
import pytest

from penstock_server.errors import UnsupportedError
from penstock_server.features.kernel_set import KERNELS
from penstock_server.kernels import compiled
from penstock_server.kernels.compiled import CompiledFile, CompiledObject
from penstock_server.kernels.object_file import flatten

CODE = """
@table = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11]
@unset = common global i8* null
@outside = external global i64
declare i64 @labs(i64)
define i64 @count_elements(i8* %unused, i64 %at) {
  %absolute = call i64 @labs(i64 %at)
  %place = getelementptr [4 x i64], [4 x i64]* @table, i64 0, i64 %absolute
  %value = load i64, i64* %place
  %common = load i8*, i8** @unset
  %number = ptrtoint i8* %common to i64
  %sum = add i64 %value, %number
  ret i64 %sum
}
define i64 @other() {
  %value = load i64, i64* @outside
  ret i64 %value
}
"""


def emitted(triple: str) -> bytes:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(codemodel="large", reloc="static", jit=True)
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{CODE}')
    return bytes(machine.emit_object(module))


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="kernels run on these")
def test_the_block_runs() -> None:
    entry = flatten("count_elements", "count_elements", emitted(f"{platform.machine()}-unknown-linux-gnu"))
    # No code that runs here refers to it.
    known = tuple(one for one in entry.relocations if one.symbol != "outside")
    library = compiled.load(KERNELS, CompiledFile("", (CompiledObject(entry.name, entry.entry, entry.block, known),)))
    assert [library.brief["count_elements"](b"", at) for at in (0, -1, 2, -3)] == [3, 5, 7, 11]
    assert library.long["count_elements"](b"", 3) == 11


def test_addresses_on_aarch64_are_moved_in_four_parts_and_far_calls_get_a_stub() -> None:
    entry = flatten("count_elements", "count_elements", emitted("aarch64-unknown-linux-gnu"))
    kinds = {one.kind for one in entry.relocations if one.symbol == ""}
    assert {"move0", "move16", "move32", "move48"} <= kinds
    (stub,) = (one for one in entry.relocations if one.symbol == "labs")
    assert stub.kind == "word"
    assert struct.unpack_from("<II", entry.block, stub.at - 8) == (0x58000050, 0xD61F0200)
    at = next(
        4 * place
        for place, (word,) in enumerate(struct.iter_unpack("<I", entry.block[: len(entry.block) // 4 * 4]))
        if word >> 26 == 0b100101
    )
    (word,) = struct.unpack_from("<I", entry.block, at)
    assert at + 4 * _signed(word & 0x3FFFFFF, 26) == stub.at - 8


def _signed(value: int, bits: int) -> int:
    return value - (value >> bits - 1 << bits)


def test_other_processors_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="machine 243, expected ELF for x86-64 or aarch64"):
        flatten("run", "other", emitted("riscv64-unknown-linux-gnu"))


def test_relocations_that_are_not_known_are_refused() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(codemodel="small", reloc="pic")
    code = bytes(machine.emit_object(llvm.parse_assembly(f'target triple = "x86_64-unknown-linux-gnu"\n{CODE}')))
    with pytest.raises(UnsupportedError, match=r"a relocation of kind .* for machine 62"):
        flatten("count_elements", "count_elements", code)
