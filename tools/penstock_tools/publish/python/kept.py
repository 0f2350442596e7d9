"""Keeps a fitted pipeline in a file that another process reads: skops where skops holds it, else a pickle.

A pickle names the classes and functions that it uses, and those of a notebook or of a script's own modules are nowhere else.
These are written into the file by value; what is installed is named, with its release.
"""

import importlib
import importlib.metadata
import io
import pickle
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from penstock_server.errors import UnsupportedError, first_line
from penstock_server.python.description import PICKLE, SKOPS
from penstock_server.python.requirements import PYTHON

_ALWAYS: Final = ("scikit-learn", "pandas")
"""What the process of every pipeline imports."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A pipeline in a file.

    Attributes:
        content: the file's.
        file: its name, which says how it is read.
        trusted: the types that skops reads besides those that it knows.
        requirements: the packages that it names, with their releases here.
        by_value: the modules that the file holds themselves.
        why_pickle: why skops does not hold it; "" where it does.
    """

    content: bytes
    file: Any
    trusted: tuple[str, ...]
    requirements: Mapping[str, str]
    by_value: tuple[str, ...]
    why_pickle: str


def kept(pipeline: Any) -> Kept:
    """The pipeline in a file.

    Raises:
        UnsupportedError: neither skops nor cloudpickle can write it, or read it again.
    """
    pickled, by_value = _pickled(pipeline)
    requirements = _requirements(_named_modules(pickled))
    why = f"it uses {', '.join(by_value)}, which other machines do not have" if by_value else ""
    if not why:
        try:
            content, trusted = _in_skops(pipeline)
        except Exception as error:  # noqa: BLE001 - skops raises anything on what it does not know
            why = f"skops cannot hold it ({type(error).__name__}: {first_line(error)})"
        else:
            return Kept(content, SKOPS, trusted, requirements | _releases("skops"), (), "")
    interpreter = {PYTHON: platform.python_version()}
    return Kept(pickled, PICKLE, (), requirements | _releases("cloudpickle") | interpreter, by_value, why)


def _in_skops(pipeline: Any) -> tuple[bytes, tuple[str, ...]]:
    import skops.io

    content: bytes = skops.io.dumps(pipeline)
    trusted = tuple(sorted(skops.io.get_untrusted_types(data=content)))
    skops.io.loads(content, trusted=list(trusted))
    return content, trusted


def _pickled(pipeline: Any) -> tuple[bytes, tuple[str, ...]]:
    """A pickle with the code of local modules in it, and the names of these modules."""
    import cloudpickle

    local: set[str] = set()
    try:
        while True:
            with _by_value(local):
                content: bytes = cloudpickle.dumps(pipeline)
            # What is written by value may use further modules.
            found = {name for name in _named_modules(content) if _is_local(name)} - local
            if not found:
                break
            local |= found
    except Exception as error:
        raise UnsupportedError(
            f"the pipeline cannot be kept: {type(error).__name__}: {first_line(error)}; "
            "take out what cannot be pickled, such as open files and connections"
        ) from error
    own = {"__main__"} if _holds_main(content) else set()
    return content, tuple(sorted(local | own))


@contextmanager
def _by_value(names: set[str]) -> Iterator[None]:
    import cloudpickle

    modules = [sys.modules[name] for name in names]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _holds_main(content: bytes) -> bool:
    # cloudpickle gives classes and functions of `__main__` this module when they are made again.
    return b"__main__" in content


class _Recorder(pickle.Unpickler):
    """Reads a pickle that this process has just written, and notes the modules that it names."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        found = super().find_class(module, name)
        return self._imported if name == "subimport" and module.startswith("cloudpickle") else found

    def _imported(self, name: str) -> Any:
        """A module that a function uses as a whole, as `import numpy as np` makes it."""
        self.modules.add(name)
        return importlib.import_module(name)


def _named_modules(content: bytes) -> set[str]:
    recorder = _Recorder(content)
    recorder.load()
    return recorder.modules


def _is_local(name: str) -> bool:
    """Whether a module comes from a folder of the user's, and not from an installed package."""
    top = name.partition(".")[0]
    if top == "__main__" or top.startswith("penstock") or top in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or top in _packages():
        return False
    path = Path(file).resolve()
    roots = {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(path.is_relative_to(root) for root in roots)


def _requirements(modules: set[str]) -> dict[str, str]:
    named = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)
    packages = [
        _packages()[name][0] for name in sorted(named) if name in _packages() and not name.startswith("penstock")
    ]
    return _releases(*_ALWAYS, *packages)


def _releases(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


@cache
def _packages() -> Mapping[str, list[str]]:
    """The packages that give each module of the highest level."""
    return importlib.metadata.packages_distributions()
