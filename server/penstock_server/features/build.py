"""Compiles the kernels into the file that `compiled` loads: `python -m penstock_server.features.build FILE`.

It runs in a process of its own: importing numba would cost every worker 130 MB and more than a second, and the machine
code does not need it. No other code of a running server imports numba.
"""

import sys
from pathlib import Path
from typing import Any

from penstock_server.features import compiled
from penstock_server.features.compiled import CompiledFile, CompiledObject


def compile_kernels() -> CompiledFile:
    """The entry points compiled for this machine; takes seconds."""
    from penstock_server.features.kernels import interpreter

    objects = (_object(name, function) for name, function in interpreter.ENTRY_POINTS.items())
    return CompiledFile(compiled.current_key(), tuple(objects))


def _object(name: str, function: Any) -> CompiledObject:
    library = function._library  # noqa: SLF001 - numba has no public way to the object code
    module = library._final_module  # noqa: SLF001
    declared = [symbol.name for symbol in (*module.functions, *module.global_variables) if symbol.is_declaration]
    undefined = tuple(symbol for symbol in declared if not symbol.startswith("llvm."))
    return CompiledObject(name, function.native_name, undefined, library._get_compiled_object())  # noqa: SLF001


def main() -> int:
    """Compiles and writes the file named on the command line, by default the one that this machine's servers read."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else compiled.default_path(compiled.current_key())
    compiled.write(path, compile_kernels())
    return 0


if __name__ == "__main__":
    sys.exit(main())
