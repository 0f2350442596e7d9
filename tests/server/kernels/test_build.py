import os
import sys
from pathlib import Path

import pytest

from penstock_server.features.kernel_set import KERNELS
from penstock_server.kernels import build, compiled, kept
from penstock_server.kernels.compiled import CompiledFile, CompiledObject
from penstock_server.kernels.processor import BASELINES, this_processor

SET = f"--set={KERNELS.defined_in}"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> CompiledFile:
    """What is compiled, without the seconds that it takes."""
    content = CompiledFile(compiled.own_key(KERNELS), (CompiledObject("run", 0, b"code", ()),))
    monkeypatch.setattr(build, "compile_kernels", lambda _kernels, key: CompiledFile(key, content.objects))
    return content


def test_it_writes_the_file_named_on_the_command_line(built: CompiledFile, tmp_path: Path) -> None:
    path = tmp_path / "new" / "kernels.bin"
    assert build.main([SET, str(path)]) == 0
    assert compiled.read(path, built.key) == built


def test_it_writes_the_file_that_servers_read_by_default(
    built: CompiledFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["build", SET])
    for number in range(10):
        (tmp_path / f"kernels-features-{number}.bin").write_bytes(b"old")
    assert build.main() == 0
    assert compiled.read(compiled.own_path(KERNELS), built.key) == built
    assert len(list(tmp_path.iterdir())) == kept.KEPT


def test_a_release_gets_kernels_for_the_baseline_that_everybody_may_read(
    built: CompiledFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert build.main([SET, "--baseline"]) == 0
    processor = this_processor()
    path = compiled.shipped_path(KERNELS, processor.architecture)
    assert os.environ["NUMBA_CPU_NAME"] == BASELINES[processor.architecture].name
    assert path.stat().st_mode & 0o777 == 0o644
    assert compiled.find_shipped(KERNELS) == (path, CompiledFile(read_key(path), built.objects))


def read_key(path: Path) -> str:
    processor = this_processor()
    key = compiled.shipped_key(KERNELS, processor.architecture, BASELINES[processor.architecture])
    assert compiled.read(path, key) is not None
    return key
