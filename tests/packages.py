"""Environments of their own for what nothing else here needs: an old MLflow, DVC. Later runs of the tests find them again."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-tests"


def programs(name: str, *requirements: str, alone: Sequence[str] = ()) -> Path:
    """The folder of the programs of an environment; skips the test where no package index can be reached.

    Args:
        name: of the environment, with the version of what it is for.
        requirements: its packages.
        alone: packages without what they depend on.
    """
    place = _CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "whole").exists():
            shutil.rmtree(place, ignore_errors=True)
            uv = [sys.executable, "-m", "uv", "--quiet"]
            subprocess.run([*uv, "venv", "--python", sys.executable, str(place)], check=True)
            for packages in ([*requirements], ["--no-deps", *alone] if alone else []):
                command = [*uv, "pip", "install", "--compile-bytecode", "--python", str(place), *packages]
                done = subprocess.run(command, check=False, capture_output=True, text=True) if packages else None
                if done is not None and done.returncode:
                    shutil.rmtree(place)
                    pytest.skip(f"{name} cannot be had: {done.stderr.strip()[-200:]}")
            (place / "whole").touch()
    return place / "bin"
