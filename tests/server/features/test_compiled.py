import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from penstock_server.errors import UnavailableError
from penstock_server.features import compiled
from penstock_server.features.compiled import CompiledFile, CompiledObject

STUB = CompiledFile("the key", (CompiledObject("run", "cfunc.run", ("log1p",), b"\x7fELF"),))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def real() -> bytes:
    """This machine's compiled file, built once for all tests where it is not there."""
    return compiled.ensure_compiled().read_bytes()


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
    key = compiled.current_key()
    assert compiled.current_key() == key
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    assert compiled.current_key() != key
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "version", lambda _name: "0.0")
    assert compiled.current_key() != key


def test_what_is_there_is_not_built_again(real: bytes, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiled.default_path(compiled.current_key())
    path.parent.mkdir()
    path.write_bytes(real)
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("built again"))
    assert compiled.ensure_compiled() == path


def test_a_corrupted_file_is_built_anew(real: bytes, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = compiled.current_key()
    path = compiled.default_path(key)
    path.parent.mkdir()
    path.write_bytes(b"no kernels")

    def compiler(command: list[str], **_settings: object) -> subprocess.CompletedProcess[str]:
        """What the real one left where it ran: it takes half a minute, and `real` has run it."""
        assert command[-3:] == ["-m", "penstock_server.features.build", str(path)]
        path.write_bytes(real)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", compiler)
    assert compiled.ensure_compiled() == path
    found = compiled.read(path, key)
    assert found is not None
    functions = compiled.load(found)
    raw = b"\1\0\0\0a" * 3
    assert functions.brief["count_elements"](raw, len(raw)) == 3
    assert functions.long["count_elements"](raw, len(raw) - 1) == -1


def test_several_that_write_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "kernels.bin"
    contents = [CompiledFile("the key", (CompiledObject("run", "run", (), bytes([at]) * 300_000),)) for at in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda at: compiled.write(path, contents[at % 4]), range(40)))
    assert compiled.read(path, "the key") in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("compiled in vain"))
    with pytest.raises(UnavailableError, match=r"cannot be kept in .*/file: .*PENSTOCK_CACHE_DIR"):
        compiled.ensure_compiled()


def test_what_the_compiler_says_is_handed_on(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Traceback ...\nModuleNotFoundError: No module named 'numba'\n"
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 1, "", said))
    with pytest.raises(UnavailableError, match=r"cannot be compiled: ModuleNotFoundError: No module named 'numba'"):
        compiled.ensure_compiled()
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], -9, "", ""))
    with pytest.raises(UnavailableError, match="cannot be compiled: exit code -9"):
        compiled.ensure_compiled()
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 0, "", ""))
    with pytest.raises(UnavailableError, match="does not hold them"):
        compiled.ensure_compiled()


def test_a_compiler_that_does_not_end_or_start_is_an_error(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BUILD_TIMEOUT_S", 0.0)
    with pytest.raises(UnavailableError, match=r"cannot be compiled: .*timed out"):
        compiled.ensure_compiled()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(UnavailableError, match=r"cannot be compiled: .*No such file"):
        compiled.ensure_compiled()


SERVE = """
import sys
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.features.spec.steps import Apply
pipeline = Pipeline(FeatureSpec((NumberColumn("x"),), Take(("x",), (Apply("log1p"),)), "FP64"))
print(pipeline.transform({"x": [0.0, 1.0]})[1, 0], "numba" in sys.modules)
"""


def test_serving_leaves_numba_out(real: bytes) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    said = subprocess.run(
        [sys.executable, "-c", SERVE], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    value, has_numba = said.stdout.split()
    assert float(value) == pytest.approx(0.6931471805599453)
    assert has_numba == "False"
