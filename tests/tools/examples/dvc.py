"""DVC, in an environment of its own that later runs of the tests find again: sixty packages that nothing else here needs."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

VERSION: Final = "3.67.1"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-tests"


def folder() -> Path:
    """The folder with the program `dvc`; skips the test where no package index can be reached."""
    place = _CACHE / f"dvc-{VERSION}-{sys.version_info.major}.{sys.version_info.minor}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "dvc.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "bin" / "dvc").exists():
            shutil.rmtree(place, ignore_errors=True)
            uv = [sys.executable, "-m", "uv", "--quiet"]
            subprocess.run([*uv, "venv", "--python", sys.executable, str(place)], check=True)
            command = [*uv, "pip", "install", "--compile-bytecode", "--python", str(place), f"dvc=={VERSION}"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                shutil.rmtree(place)
                pytest.skip(f"DVC cannot be had: {done.stderr.strip()[-200:]}")
    return place / "bin"
