"""A set of its own, compiled for real: what C calls back, and what it calls of C libraries."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import UnavailableError
from penstock_server.kernels import compiled
from tests.server.kernels.tiny_set import KERNELS

USE = """
import ctypes, json, sys
from penstock_server.kernels import compiled
from tests.server.kernels.tiny_set import KERNELS
library = compiled.library(KERNELS)
numbers = (ctypes.c_int64 * 5)(3, -1, 2**40, 0, -(2**40))
at = ctypes.addressof(numbers)
print(json.dumps({
    "is_same": library.long["sort"](at, len(numbers), library.addresses["compare"]) == at,
    "sorted": list(numbers),
    "swapped": library.brief["swap_bytes"](0x1FF),
    "asked": library.brief["ask"](at),
    "callable": sorted(library.brief),
    "compilers": [name for name in ("numba", "llvmlite") if name in sys.modules],
}))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the compiled set."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_CACHE_DIR", str(folder))
        compiled.ensure_compiled(KERNELS)
    return folder


@pytest.fixture(scope="module")
def used(cache: Path) -> dict[str, Any]:
    """What a process without a compiler finds."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PENSTOCK_CACHE_DIR": str(cache),
    }
    said = subprocess.run(
        [sys.executable, "-c", USE], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, Any] = json.loads(said.stdout)
    return found


@pytest.mark.long
def test_c_calls_a_kernel_back_by_its_address(used: dict[str, Any]) -> None:
    assert used["sorted"] == [-(2**40), -1, 0, 3, 2**40]
    assert used["is_same"]


@pytest.mark.long
def test_the_compiler_is_not_needed(used: dict[str, Any]) -> None:
    assert used["compilers"] == []


def test_what_only_c_calls_needs_no_prototype(used: dict[str, Any]) -> None:
    assert used["callable"] == ["ask", "sort", "swap_bytes"]


def test_results_have_the_type_that_is_declared_and_small_arguments_are_whole(used: dict[str, Any]) -> None:
    assert used["swapped"] == 0xFF000000


def test_functions_come_from_the_libraries_of_the_set(used: dict[str, Any]) -> None:
    assert used["asked"] == -1


def test_a_function_that_no_library_has_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(cache))
    found = compiled.find_own(KERNELS)
    assert found is not None
    with pytest.raises(
        UnavailableError, match="the tiny kernels need the function penstock_elsewhere, which this system"
    ):
        compiled.load(replace(KERNELS, libraries=tuple), found[1])


def test_a_file_of_another_set_is_none(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path))
    other = replace(KERNELS, name="other")
    for kernels in (KERNELS, other):
        shutil.copy(cache / compiled.own_path(KERNELS).name, compiled.own_path(kernels))
    assert len(list(tmp_path.iterdir())) == 2
    assert compiled.find_own(KERNELS) is not None
    assert compiled.find_own(other) is None
