"""A source's process: talks to one registry or folder for the supervisor, which can kill it at any time.

    python -m penstock_server.source_process SOCKET PARENT

It is one thread that answers one request after the other. The supervisor has one such process for the polls of each
source, and another for each version that it fetches, so that neither waits for the other, and the memory that a download
needs is returned. mlflow is imported only here, and only for registries and stores that nothing lighter reads. The
process ends with the supervisor: by the end of the socket, or by the kernel if it hangs.
"""

import logging
import os
import resource
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from penstock_server import frames, leases, lifeline
from penstock_server.errors import PenstockError
from penstock_server.sources import messages
from penstock_server.sources.cache_sweep import sweep
from penstock_server.sources.directory_source import DirectorySource
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.registry import WORKSPACE
from penstock_server.sources.settings import CacheSettings, FetchSettings

MAX_DATA_BYTES: Final = 2 * 2**30
"""The most memory of its own that the process gets: an answer that would need more is a failure, not the machine's end."""


class SourceServer:
    """Answers requests about one source.

    Args:
        opening: which source, and with which bounds.
    """

    def __init__(self, opening: messages.Open) -> None:
        self._opening = opening
        self._lease: leases.Lease | None = None
        self._source = _source(opening)

    def answer(self, request: messages.Request) -> messages.Answer | None:
        """The answer to a request, None if it has none. It raises nothing."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None
        try:
            return self._answer(request)
        except PenstockError as error:
            return messages.Failed(type(error).__name__, str(error))
        except MemoryError:
            return messages.Failed("UnavailableError", f"{self._source.name} needs more than {MAX_DATA_BYTES:,} bytes")
        except Exception as error:  # noqa: BLE001 - told to the supervisor, by its class: the text may hold anything
            return messages.Failed("UnavailableError", f"{self._source.name} failed: {type(error).__name__}")

    def _answer(self, request: messages.Request) -> messages.Answer | None:
        answer: messages.Answer | None = None
        match request:
            case messages.Poll():
                answer = messages.Polled(self._source.poll())
            case messages.Fetch(model, version, identity):
                found = self._source.get(model, version, identity)
                self._lease = found.lease
                answer = messages.Fetched(str(found.folder), found.identity)
            case messages.Write(model, expected, changes):
                self._source.write(model, expected, changes)
                answer = messages.Written()
            case messages.Sweep():
                settings = CacheSettings(self._opening.cache_mib, self._opening.cache_keep)
                sweep(Path(self._opening.cache_dir), settings)
            case messages.Open():
                pass  # only the first message, which is not handed on
        return answer


def _source(opening: messages.Open) -> MlflowSource | DirectorySource:
    match opening.source:
        case messages.Directory(folder):
            return DirectorySource(Path(folder), opening.policy)
        case messages.Registry(uri, models, workspace):
            if (
                workspace
            ):  # mlflow too finds it there, and a database of one has tables that it asks for only if told so
                os.environ[WORKSPACE] = workspace
                os.environ.setdefault("MLFLOW_ENABLE_WORKSPACES", "true")
            return MlflowSource(
                uri,
                models=models,
                cache_dir=Path(opening.cache_dir),
                fetch=FetchSettings(opening.fetch_mib, opening.fetch_files),
                policy=opening.policy,
            )


def serve(connection: socket.socket, opened: Callable[[messages.Open], SourceServer] = SourceServer) -> None:
    """Answers requests until the other end is gone."""
    with connection, connection.makefile("rb") as file:
        server = None
        while (body := frames.receive(file)) is not None:
            request = messages.request(body)
            if isinstance(request, messages.Open):
                server = opened(request)
            elif server is not None and (answer := server.answer(request)) is not None:
                try:
                    connection.sendall(frames.framed(messages.encode(answer)))
                except OSError:
                    return


def _quieten() -> None:
    """Lets nothing reach standard output or the log but what this process says itself: libraries quote addresses."""
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.dup2(2, 1)
    logging.lastResort = None
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")


def main() -> None:
    descriptor, parent = (int(argument) for argument in sys.argv[1:])
    lifeline.end_with_parent(parent)
    _quieten()
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    serve(socket.socket(fileno=descriptor))
    os._exit(0)  # libraries' threads have nothing to finish


if __name__ == "__main__":
    main()
