"""What a person reads when a command fails: one sentence, and a traceback only with `--debug`.

A failure that is not the user's is a bug of Penstock: its sentence says how to see the traceback.
"""

import os
import sys
import traceback
from typing import Final

from penstock_server.errors import PenstockError

DEBUG_VARIABLE: Final = "PENSTOCK_DEBUG"
"""Any value but 0 asks for tracebacks; `penstock --debug` sets it."""

_SERVER_MODULES: Final = frozenset(
    {
        "grpc_health",
        "grpc_reflection",
        "jinja2",
        "msgspec",
        "onnxruntime",
        "prometheus_client",
        "rich",
        "structlog",
        "typer",
        "uvloop",
        "yaml",
    }
)
"""What the extra `server` installs; what no extra below does comes with `tools`."""
_EXTRAS: Final = {
    "confluent_kafka": "stream",
    "fastavro": "stream",
    "fsspec": "batch",
    "sqlalchemy": "batch",
    "ray": "ray",
    "wandb": "wandb",
}
"""Modules that few commands need, and the extra that installs each."""


def report(error: Exception) -> int:
    """Prints the failure to standard error, and returns the exit code, 1."""
    if wants_traceback():
        traceback.print_exception(error)
    sys.stderr.write(f"penstock: {sentence(error)}\n")
    return 1


def wants_traceback() -> bool:
    """Whether `--debug` or the environment asks for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def sentence(error: Exception) -> str:
    """The failure in one sentence.

    >>> sentence(ModuleNotFoundError("No module named 'pandas'", name="pandas"))
    "this command needs pandas, which is not installed; run: pip install 'penstock[tools]'"
    """
    if isinstance(error, PenstockError) or _is_client_error(error):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("penstock"):
        root = error.name.partition(".")[0]
        extra = "server" if root in _SERVER_MODULES else _EXTRAS.get(root, "tools")
        return f"this command needs {root}, which is not installed; run: pip install 'penstock[{extra}]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    advice = "" if wants_traceback() else "; penstock --debug COMMAND shows where"
    return f"this should not have happened, {type(error).__name__}: {error}{advice}"


def _is_client_error(error: Exception) -> bool:
    # The client is imported only by the commands that call a server, and its errors exist only then.
    client = sys.modules.get("penstock_client")
    return client is not None and isinstance(error, client.PenstockClientError)
