import sys
from pathlib import Path

import pytest

from penstock_server.features import build, compiled
from penstock_server.features.compiled import CompiledFile, CompiledObject


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> CompiledFile:
    """What is compiled, without the seconds that it takes."""
    content = CompiledFile(compiled.current_key(), (CompiledObject("run", "run", (), b"code"),))
    monkeypatch.setattr(build, "compile_kernels", lambda: content)
    return content


def test_it_writes_the_file_named_on_the_command_line(
    built: CompiledFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "kernels.bin"
    monkeypatch.setattr(sys, "argv", ["build", str(path)])
    assert build.main() == 0
    assert compiled.read(path, built.key) == built


def test_it_writes_the_file_that_servers_read_by_default(
    built: CompiledFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["build"])
    assert build.main() == 0
    assert compiled.read(compiled.default_path(built.key), built.key) == built
