"""Real programs for tests that need them: a Prometheus, a PostgreSQL, an nginx.

What is installed is taken. Elsewhere, where there is apt, the package and what it depends on are unpacked into a cache folder:
nothing is installed, and nobody needs to be root. Where neither is to be had, the test is skipped, with the reason.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-tests" / "debian"
_APT_S: Final = 180


@cache
def program(name: str, package: str) -> Path:
    """The executable of this name, of this package of Debian; skips the test where it cannot be had."""
    found = shutil.which(name) or _found(name, Path("/")) or _found(name, _CACHE / package)
    if found:
        return Path(found)
    if shutil.which("apt-get") is None:
        pytest.skip(f"there is no {name}, and no apt-get that brings {package}")
    with _locked():
        # Another process of the tests may have brought it meanwhile.
        if not (found := _found(name, _CACHE / package)):
            try:
                _unpack(package)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"there is no {name}, and {package} cannot be had: {error}")
            found = _found(name, _CACHE / package)
    if not found:
        pytest.skip(f"there is no {name} in {package}")
    return Path(found)


def environment(program: Path) -> dict[str, str]:
    """The environment for a program: where its libraries are, if its package was unpacked and not installed."""
    if not program.is_relative_to(_CACHE):
        return dict(os.environ)
    root = _CACHE / program.relative_to(_CACHE).parts[0]
    folders = {str(path.parent) for path in root.rglob("*.so*")}
    return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(sorted(folders))}


def _found(name: str, root: Path) -> str | None:
    # PostgreSQL's are in a folder by version, which is on nobody's PATH. What is in usr/lib by its own name has a script in
    # usr/bin, which would look for it where it is installed: Chromium.
    folders = ("usr/bin", "usr/sbin", "usr/lib/*/*/bin", f"usr/lib/{name}")
    found = [path for folder in folders for path in sorted(root.glob(f"{folder}/{name}")) if os.access(path, os.X_OK)]
    return str(found[-1]) if found else None


def _unpack(package: str) -> None:
    aside = _CACHE / f".{package}"
    shutil.rmtree(aside, ignore_errors=True)
    for folder in ("archives/partial", "lists/partial", "root"):
        (aside / folder).mkdir(parents=True)
    # Of its own, so that neither the machine's are changed nor its locks are waited for.
    own = ("-o", f"Dir::Cache::archives={aside}/archives", "-o", "Debug::NoLocking=1", "-qq", "-y")
    download = ("install", "--download-only", "--no-install-recommends", package)
    if subprocess.run(["apt-get", *own, *download], check=False, timeout=_APT_S, capture_output=True).returncode:
        own = (*own, "-o", f"Dir::State::lists={aside}/lists", "-o", f"Dir::Cache::pkgcache={aside}/pkgcache.bin")
        own = (*own, "-o", f"Dir::Cache::srcpkgcache={aside}/srcpkgcache.bin")
        for command in (("update",), download):
            subprocess.run(["apt-get", *own, *command], timeout=_APT_S, capture_output=True, check=True)
    archives = [*(aside / "archives").glob("*.deb")]
    if not archives:
        raise OSError("it is installed, without this program")
    for archive in archives:
        subprocess.run(["dpkg-deb", "-x", archive, aside / "root"], timeout=_APT_S, capture_output=True, check=True)
    (aside / "root").rename(_CACHE / package)
    shutil.rmtree(aside)


@contextmanager
def _locked() -> Iterator[None]:
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
