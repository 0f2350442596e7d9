"""The Penstock server: versioned ONNX models over gRPC, followed from a registry, routed, batched and watched."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _StructlogWithoutRich:
    """Keeps structlog from importing rich, which it would use for tracebacks at a terminal.

    rich costs each process of a server 0.2 s of its start and 5 MB. Everybody else gets it as ever.
    """

    @staticmethod
    def find_spec(
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG004 - Python's import system passes it
        target: ModuleType | None = None,  # noqa: ARG004
    ) -> ModuleSpec | None:
        importing = sys.modules.get("structlog") if name == "rich" else None
        if importing is not None and not hasattr(importing, "get_logger"):
            raise ModuleNotFoundError("structlog does without rich", name=name)
        return None


if not any(isinstance(finder, _StructlogWithoutRich) for finder in sys.meta_path):
    sys.meta_path.insert(0, _StructlogWithoutRich())
