import ctypes
import hashlib
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from penstock_server.errors import UnavailableError
from penstock_server.features.kernel_set import KERNELS
from penstock_server.kernels import compiled
from penstock_server.kernels.compiled import CompiledFile, CompiledObject, Relocation
from penstock_server.kernels.processor import Processor, processor_of, this_processor

STUB = CompiledFile("the key", (CompiledObject("run", 0, b"code", (Relocation("word", 8, "log1p", 0),)),))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path / "nothing-shipped")
    return tmp_path / "cache"


@pytest.fixture
def real() -> bytes:
    """This machine's compiled file, built once for all tests where it is not there."""
    return compiled.ensure_compiled(KERNELS).read_bytes()


def compiled_here(real: bytes, key: str) -> bytes:
    """The same file with the key of one that was compiled for this machine."""
    content = msgspec.msgpack.decode(real[len(compiled.MAGIC) + 32 :], type=CompiledFile)
    payload = msgspec.msgpack.encode(CompiledFile(key, content.objects))
    return compiled.MAGIC + hashlib.sha256(payload).digest() + payload


def test_reads_what_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kernels.bin"
    compiled.write(path, STUB)
    assert compiled.read(path, "the key") == STUB
    assert [file.name for file in path.parent.iterdir()] == ["kernels.bin"]


@pytest.mark.parametrize("keep", [0, 5, 30, 60, -1])
def test_a_torn_file_is_no_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "kernels.bin"
    compiled.write(path, STUB)
    path.write_bytes(path.read_bytes()[:keep])
    assert compiled.read(path, "the key") is None


def test_a_flipped_bit_another_key_and_no_file_are_no_file(tmp_path: Path) -> None:
    path = tmp_path / "kernels.bin"
    assert compiled.read(path, "the key") is None
    compiled.write(path, STUB)
    assert compiled.read(path, "another key") is None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert compiled.read(path, "the key") is None


def test_a_whole_file_of_another_form_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernels.bin"
    monkeypatch.setattr(msgspec.msgpack, "encode", lambda _content: b"\xc1")
    compiled.write(path, STUB)
    assert compiled.read(path, "the key") is None


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kernels.bin"
    path.mkdir()
    with pytest.raises(OSError, match=r"kernels\.bin"):
        compiled.write(path, STUB)
    assert list(tmp_path.iterdir()) == [path]


def test_the_key_follows_the_processor_and_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    own_key = compiled.own_key.__wrapped__
    key = own_key(KERNELS)
    assert own_key(KERNELS) == key == compiled.own_key(KERNELS)
    monkeypatch.setattr(compiled, "this_processor", lambda: Processor("x86_64", frozenset(), "another"))
    assert own_key(KERNELS) != key
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "version", lambda _name: "0.0")
    assert own_key(KERNELS) != key


def test_what_is_there_is_not_built_again(real: bytes, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiled.own_path(KERNELS)
    path.parent.mkdir()
    path.write_bytes(compiled_here(real, compiled.own_key(KERNELS)))
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("built again"))
    assert compiled.ensure_compiled(KERNELS) == path


def test_those_who_need_it_at_once_wait_for_one_compiler(
    real: bytes, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compiled.own_path(KERNELS)
    runs: list[Path] = []

    def compiler(command: list[str], **_settings: object) -> subprocess.CompletedProcess[str]:
        runs.append(path)
        path.write_bytes(compiled_here(real, compiled.own_key(KERNELS)))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", compiler)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: compiled.ensure_compiled(KERNELS), range(4))) == [path] * 4
    assert len(runs) == 1


def test_a_corrupted_file_is_built_anew(real: bytes, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = compiled.own_key(KERNELS)
    path = compiled.own_path(KERNELS)
    path.parent.mkdir()
    path.write_bytes(b"no kernels")

    def compiler(command: list[str], **_settings: object) -> subprocess.CompletedProcess[str]:
        """What the real one left where it ran: it takes half a minute, and `real` has run it."""
        options = ["--set=penstock_server.features.kernel_set", f"--parent={os.getpid()}"]
        assert command[2:] == ["-m", "penstock_server.kernels.build", *options, str(path)]
        path.write_bytes(compiled_here(real, key))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", compiler)
    assert compiled.ensure_compiled(KERNELS) == path
    found = compiled.read(path, key)
    assert found is not None
    functions = compiled.load(KERNELS, found)
    raw = b"\1\0\0\0a" * 3
    assert functions.brief["count_elements"](raw, len(raw)) == 3
    assert functions.long["count_elements"](raw, len(raw) - 1) == -1


def test_several_that_write_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "kernels.bin"
    contents = [CompiledFile("the key", (CompiledObject("run", 0, bytes([at]) * 300_000, ()),)) for at in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda at: compiled.write(path, contents[at % 4]), range(40)))
    assert compiled.read(path, "the key") in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path / "nothing-shipped")
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("compiled in vain"))
    with pytest.raises(UnavailableError, match=r"cannot be kept in .*/file: .*PENSTOCK_CACHE_DIR"):
        compiled.ensure_compiled(KERNELS)


def test_what_the_compiler_says_is_handed_on(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Traceback ...\nModuleNotFoundError: No module named 'numba'\n"
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 1, "", said))
    with pytest.raises(UnavailableError, match=r"cannot be compiled: ModuleNotFoundError: No module named 'numba'"):
        compiled.ensure_compiled(KERNELS)
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], -9, "", ""))
    with pytest.raises(UnavailableError, match="cannot be compiled: exit code -9"):
        compiled.ensure_compiled(KERNELS)
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 0, "", ""))
    with pytest.raises(UnavailableError, match="does not hold them"):
        compiled.ensure_compiled(KERNELS)


def test_a_compiler_that_does_not_end_or_start_is_an_error(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BUILD_TIMEOUT_S", 0.0)
    with pytest.raises(UnavailableError, match=r"cannot be compiled: .*timed out"):
        compiled.ensure_compiled(KERNELS)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(UnavailableError, match=r"cannot be compiled: .*No such file"):
        compiled.ensure_compiled(KERNELS)


SERVE = """
import sys
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.features.spec.steps import Apply
pipeline = Pipeline(FeatureSpec((NumberColumn("x"),), Take(("x",), (Apply("log1p"),)), "FP64"))
print(pipeline.transform({"x": [0.0, 1.0]})[1, 0], "numba" in sys.modules or "llvmlite" in sys.modules)
"""


def test_serving_leaves_the_compiler_out(real: bytes) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    said = subprocess.run(
        [sys.executable, "-c", SERVE], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    value, has_compiler = said.stdout.split()
    assert float(value) == pytest.approx(0.6931471805599453)
    assert has_compiler == "False"


def test_shipped_kernels_serve_where_the_machine_s_own_are_not(
    real: bytes, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = this_processor()
    assert processor.baseline is not None
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path)
    shipped = compiled.shipped_path(KERNELS, processor.architecture)
    shipped.write_bytes(compiled_here(real, compiled.shipped_key(KERNELS, processor.architecture, processor.baseline)))
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("compiled"))
    assert compiled.ensure_compiled(KERNELS) == shipped
    own = compiled.own_path(KERNELS)
    own.parent.mkdir()
    own.write_bytes(compiled_here(real, compiled.own_key(KERNELS)))
    assert compiled.ensure_compiled(KERNELS) == own
    own.unlink()
    older = processor_of(processor.architecture, "flags: sse2")
    monkeypatch.setattr(compiled, "this_processor", lambda: older)
    assert compiled.find_shipped(KERNELS) is None


def test_without_numba_the_command_that_installs_it_is_named(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda _name: None)
    with pytest.raises(UnavailableError, match=r"numba, .* is not installed; run: pip install 'penstock\[compile\]'"):
        compiled.ensure_compiled(KERNELS)


def test_a_function_that_the_system_lacks_is_named() -> None:
    entry = CompiledObject("count_elements", 0, bytes(16), (Relocation("word", 0, "no_such_function", 0),))
    with pytest.raises(UnavailableError, match="need the function no_such_function"):
        compiled.load(KERNELS, CompiledFile("", (entry,)))


def test_addresses_are_filled_in() -> None:
    """The moves of aarch64: 16 bits each, from bit 5 of the instruction on."""
    moves = tuple(Relocation(kind, 4 * at, "", 0x40) for at, kind in enumerate(("move0", "move16", "move32", "move48")))
    block = compiled._mapped(CompiledObject("run", 0, bytes(16), (*moves,)), {})
    base = ctypes.addressof(ctypes.c_char.from_buffer(block))
    words = struct.unpack("<4I", block[:16])
    assert sum(word >> 5 << 16 * at for at, word in enumerate(words)) == base + 0x40
