import os
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock_server import cores
from penstock_server.kernel_sets import KERNEL_SETS
from penstock_server.kernels import compiled
from penstock_server.kernels.compiled import CompiledFile
from penstock_server.kernels.kernel_set import KernelSet

WRITE = "import pathlib, sys; pathlib.Path(sys.argv[-1]).write_text(' '.join(sys.argv[1:])); print('compiled')"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler of the test's own; gives the folder of the cache."""
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path / "shipped")

    def build_command(_kernels: KernelSet, path: Path, *options: str) -> tuple[list[str], dict[str, str]]:
        path.parent.mkdir(exist_ok=True)
        return [sys.executable, "-c", WRITE, *options, str(path)], {}

    monkeypatch.setattr(compiled, "build_command", build_command)
    return tmp_path


def test_compile_says_where_the_kernels_are(compiler, run, capsys):
    assert run("compile") == 0
    said = capsys.readouterr()
    paths = [compiled.own_path(each) for each in KERNEL_SETS]
    assert [path.read_text() for path in paths] == [f"--progress {path}" for path in paths]
    assert said.out.splitlines() == [
        f"the {each.title} for this machine are in {path}" for each, path in zip(KERNEL_SETS, paths, strict=True)
    ]
    assert all(f"compiling the {each.title}" in said.err for each in KERNEL_SETS)


def test_compile_for_a_release(compiler, run, capsys):
    assert run("compile", "--baseline") == 0
    paths = sorted((compiler / "shipped").iterdir())
    assert len(paths) == len(KERNEL_SETS)
    assert [path.read_text() for path in paths] == [f"--progress --baseline {path}" for path in paths]
    assert run("compile", "--baseline", "--output", str(compiler / "other")) == 0
    said = capsys.readouterr().out
    assert all(f"machines are in {compiler}/other/{path.name}\n" in said for path in paths)
    assert all((compiler / "other" / path.name).is_file() for path in paths)


def test_what_is_there_is_not_compiled_again(compiler, run, capsys, monkeypatch):
    monkeypatch.setattr(compiled, "find_own", lambda kernels: (compiled.own_path(kernels), CompiledFile("", ())))
    monkeypatch.setattr(compiled, "build_command", lambda *_: pytest.fail("compiled again"))
    assert run("compile") == 0
    said = capsys.readouterr().out
    assert said == "".join(
        f"the {each.title} for this machine are in {compiled.own_path(each)}\n" for each in KERNEL_SETS
    )


def test_each_core_compiles_a_set(compiler, run, monkeypatch):
    monkeypatch.setattr(cores, "cores", lambda: 2)
    meeting = compiler / "meeting"
    os.mkfifo(meeting)
    first, second = sorted(KERNEL_SETS, key=lambda kernels: -kernels.functions)[:2]
    waits = {first: f"open({str(meeting)!r}, 'w')", second: f"open({str(meeting)!r})"}

    def build_command(kernels: KernelSet, *_: Any) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", waits.get(kernels, "")], {}

    monkeypatch.setattr(compiled, "build_command", build_command)
    assert run("compile") == 0


def test_without_numba_compile_says_what_to_install(compiler, run, capsys, monkeypatch):
    monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    assert run("compile") == 1
    assert "run: pip install 'penstock[compile]'" in capsys.readouterr().err


def test_what_the_compiler_says_is_shown(compiler, run, capsys, monkeypatch):
    command = [sys.executable, "-c", "raise MemoryError('no room')"]
    monkeypatch.setattr(compiled, "build_command", lambda *_: (command, {}))
    assert run("compile") == 1
    assert "the feature kernels cannot be compiled: MemoryError: no room" in capsys.readouterr().err
