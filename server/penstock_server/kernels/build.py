"""Compiles a set of kernels into the file that `compiled` loads: `python -m penstock_server.kernels.build --set=MODULE [FILE]`.

It runs in a process of its own: importing numba would cost every worker 130 MB and more than a second, and
the machine code does not need it. No other code of a running server imports numba.

    --set=MODULE   the module that has the set, as `KERNELS`
    --baseline     compiles for every machine of this architecture, as a release ships it
    --progress     writes a line per compiled function to standard output
    --behind       takes only the time that other processes leave
    --parent=PID   ends with that process, which started this one
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from penstock_server import lifeline
from penstock_server.kernels import compiled, kept, processor
from penstock_server.kernels.compiled import CompiledFile, CompiledObject
from penstock_server.kernels.kernel_set import KernelSet
from penstock_server.kernels.object_file import flatten

_NICENESS: Final = 15


def compile_kernels(kernels: KernelSet, key: str) -> CompiledFile:
    """The entry points, compiled for the processor that the environment names; takes up to a minute."""
    entry_points = [each for name in kernels.modules for each in import_module(name).ENTRY_POINTS.items()]
    return CompiledFile(key, tuple(_object(name, function) for name, function in entry_points))


def _object(name: str, function: Any) -> CompiledObject:
    library = function._library  # noqa: SLF001 - numba has no public way to the object code
    return flatten(name, function.native_name, library._get_compiled_object())  # noqa: SLF001


def _report_functions(report: Callable[[str], None]) -> None:
    """Has numba report each function that it has compiled."""
    from numba.core import event

    register: Any = event.register

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None: ...

        def on_end(self, event: Any) -> None:  # noqa: ARG002 - numba passes it
            report("compiled")

    register("numba:compile", Listener())


def _write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Compiles and writes the file; by default the one that this machine's servers read."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = [each for each in arguments if each.startswith("--")]
    files = [Path(each) for each in arguments if not each.startswith("--")]
    values = dict(option.split("=", 1) for option in options if "=" in option)
    if "--parent" in values:
        lifeline.end_with_parent(int(values["--parent"]))
    kernels: KernelSet = import_module(values["--set"]).KERNELS
    if "--behind" in options:
        os.nice(_NICENESS)
    # Read by numba when it is imported. Intel's library of vector functions is not there where the code runs.
    os.environ["NUMBA_DISABLE_INTEL_SVML"] = "1"
    if "--baseline" in options:
        path, key = _baseline(kernels)
    else:
        path, key = compiled.own_path(kernels), compiled.own_key(kernels)
    if "--progress" in options:
        _report_functions(_write_line)
    target = files[0] if files else path
    compiled.write(target, compile_kernels(kernels, key))
    if "--baseline" in options:
        target.chmod(0o644)  # a release is installed by one user and run by another
    else:
        kept.sweep(target.parent)
    return 0


def _baseline(kernels: KernelSet) -> tuple[Path, str]:
    """Where the shipped file of this architecture belongs, and its key; numba is told to compile for the baseline."""
    architecture = processor.this_processor().architecture
    baseline = processor.BASELINES[architecture]
    os.environ |= {"NUMBA_CPU_NAME": baseline.name, "NUMBA_CPU_FEATURES": ""}
    return compiled.shipped_path(kernels, architecture), compiled.shipped_key(kernels, architecture, baseline)


if __name__ == "__main__":
    sys.exit(main())
