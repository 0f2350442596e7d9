"""The process of one pipeline: loads it under limits, and answers rows until its worker closes the socket.

`python.sandbox` starts it as `python -m penstock_server.python.process DESCRIPTOR PARENT`. Whatever the pipeline does to a
process, it does here: the worker ends this one when it does not answer in time.
"""

import os
import pickle
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from penstock_server import frames, lifeline
from penstock_server.errors import first_line, is_out_of_memory
from penstock_server.python import confine
from penstock_server.python.description import SKOPS, Description
from penstock_server.python.messages import (
    Answered,
    Array,
    Command,
    Event,
    PipelineFailed,
    PipelineRun,
    PipelineStart,
    Ready,
    command,
    encoded,
)

_TRACE_CHARS: Final = 8000
_REFUSING: Final = (ValueError, TypeError)
"""What scikit-learn raises for rows that it does not take."""


def load(description: Description, content: bytes) -> Any:
    """The pipeline in a file's content; a pickle runs the code that it holds.

    Raises:
        Exception: whatever loading it raises.
    """
    if description.file == SKOPS:
        import skops.io

        return skops.io.loads(content, trusted=list(description.trusted))
    return pickle.loads(content)  # noqa: S301 - `[python] allow` says that the registry is trusted to run code here


def answer(pipeline: Any, description: Description, run: PipelineRun) -> Event:
    """The answer to a `PipelineRun`; raises nothing that a pipeline may raise."""
    from penstock.tensors import to_raw
    from penstock_server.python.answers import answers
    from penstock_server.python.frame import rows_of

    try:
        given = rows_of(description, run.blocks, run.rows)
        arrays = answers(pipeline, description.outputs, given, run.rows)
        return Answered([Array(array.shape, to_raw(array)) for array in arrays])
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a pipeline raises fails its batch and nothing else
        return failed(error)


def failed(error: BaseException) -> PipelineFailed:
    """What is said of an exception."""
    if is_out_of_memory(error):
        return PipelineFailed("memory", "")
    trace = "".join(traceback.format_exception(error))[-_TRACE_CHARS:]
    return PipelineFailed(
        "refused" if isinstance(error, _REFUSING) else "fault", f"{type(error).__name__}: {first_line(error)}", trace
    )


def _one_process() -> AbstractContextManager[Any]:
    """Keeps joblib from starting processes, which a pipeline with `n_jobs` would do for each batch."""
    try:
        import joblib
    except ImportError:
        return nullcontext()
    context: AbstractContextManager[Any] = joblib.parallel_config(backend="sequential")
    return context


def begin(start: PipelineStart, network: tuple[str, ...]) -> tuple[Any, Event]:
    """Confines this process and loads the pipeline; the pipeline, or None, and what to say."""
    try:
        _import_libraries()
        confined = (*network, *confine.confine(Path(start.folder), start.memory_mib))
        pipeline = load(start.description, start.content)
    except Exception as error:  # noqa: BLE001 - whatever a load raises is told
        return None, failed(error)
    return pipeline, Ready(confined)


def _import_libraries() -> None:
    """Imports what every pipeline needs, so that it is no part of the memory that the pipeline may take.

    Where they were installed without bytecode, as uv does, the first process writes it, which saves the others seconds.
    """
    import joblib  # noqa: F401
    import pandas as pd  # noqa: F401
    import sklearn  # noqa: F401


def serve(receive: Callable[[], Command | None], send: Callable[[Event], None], network: tuple[str, ...]) -> None:
    """Loads the pipeline of the first command, and answers the others until there are no more."""
    start = receive()
    if not isinstance(start, PipelineStart):
        return
    pipeline, said = begin(start, network)
    description = start.description
    del start  # the file's content, which may be as large as the pipeline
    send(said)
    # Around all runs: in each they would cost a third of a small pipeline's time.
    with warnings.catch_warnings(), _one_process():
        warnings.simplefilter("ignore")  # of unknown categories, for each request
        while pipeline is not None and isinstance(run := receive(), PipelineRun):
            send(answer(pipeline, description, run))


def main() -> None:
    """Runs the process of a pipeline."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    lifeline.end_with_parent(parent)
    network = ("no network",) if confine.leave_network() else ()  # before a library starts threads
    link = socket.socket(fileno=descriptor)
    reader = link.makefile("rb")

    def receive() -> Command | None:
        body = frames.receive(reader)
        return None if body is None else command(body)

    serve(receive, lambda event: link.sendall(frames.framed(encoded(event))), network)
    # Nothing is left to save, and a pipeline's threads may hang.
    os._exit(0)


if __name__ == "__main__":
    main()
