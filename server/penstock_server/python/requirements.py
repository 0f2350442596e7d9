"""Whether the packages that a pipeline needs are installed here, in releases that read it as it was written.

Pickles and skops files hold the insides of objects, which change between releases: scikit-learn promises nothing from one
minor release to the next. What only computes, such as numpy, changes less.
"""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from typing import Final

PYTHON: Final = "python"
"""Stands for the interpreter: code that is in a pickle by value runs in the same minor release alone."""
_STEADY: Final = frozenset({"numpy", "scipy", "pandas", "cloudpickle", "skops", "joblib"})
"""Packages whose objects are read by any release of the same major number."""


def missing(requirements: Mapping[str, str]) -> str | None:
    """The sentence about the packages that are not installed; None where all are."""
    absent = {name: version for name, version in requirements.items() if _installed(name) is None}
    if not absent:
        return None
    command = " ".join(f"'{name}=={version}'" for name, version in absent.items())
    return f"it needs {', '.join(absent)}, not installed on this server; run: pip install {command}"


def differing(requirements: Mapping[str, str]) -> str | None:
    """The sentence about the packages whose release may read the pipeline otherwise; None where none may."""
    found = [f"{name} {there} (published with {version})" for name, version, there in _differing(requirements)]
    if not found:
        return None
    return (
        f"this server has {', '.join(found)}; install the published release, publish again with this one, "
        "or set any_version = true under [python]"
    )


def _differing(requirements: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name, version in requirements.items():
        there = _installed(name)
        parts = 1 if name in _STEADY else 2
        if there is not None and version.split(".")[:parts] != there.split(".")[:parts]:
            yield name, version, there


def _installed(name: str) -> str | None:
    if name == PYTHON:
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
