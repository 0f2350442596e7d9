"""The airlock's process: tries one version under limits, says what it found, and ends.

It loads the version as a worker will. Whatever that does to a process, it does here first: the supervisor kills this one
when it takes too much memory or time, and nobody is served by it.
"""

import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from penstock_server import lifeline
from penstock_server.batching.limits import Batching
from penstock_server.control.verdict import OUT_OF_DEVICE_MEMORY, Task, Trial, TrialLimits, Verdict, out_of_memory
from penstock_server.errors import InvalidInputError, PenstockError, is_out_of_memory
from penstock_server.memory import resident_bytes, return_memory
from penstock_server.models.artifact import is_ensemble
from penstock_server.models.loader import load
from penstock_server.models.onnx_model import start_runtime
from penstock_server.models.servable import OnnxServable
from penstock_server.response_cache.verdict import caching_verdict

DESCRIPTORS: Final = 256
_MEBIBYTE: Final = 1 << 20


def limit(limits: TrialLimits, threads: int, *, has_device: bool = False) -> None:
    """Limits this process; the supervisor's watch stops it sooner and with a better sentence, unless it is too slow.

    With a device its addresses are not limited: the driver reserves some for all of the machine's memory and the device's.
    """
    # On top of what the imports have mapped. The resident memory, which the supervisor watches, cannot be limited here.
    memory = _mapped_bytes() + limits.memory_mib * _MEBIBYTE
    seconds = int(limits.timeout_s * (threads + 1)) + 1
    for kind, most in (
        *(() if has_device else ((resource.RLIMIT_AS, memory),)),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
    with suppress(OSError):
        # When the whole machine is short of memory, this process goes before one that serves.
        Path("/proc/self/oom_score_adj").write_text("1000")


def attempt(trial: Trial, limits: TrialLimits) -> Verdict:
    """Loads the version as a worker would, and says how that went."""
    started = time.monotonic()
    how = trial.how
    folder = Path(trial.folder)
    try:
        if is_ensemble(folder):
            return Verdict(took_s=time.monotonic() - started)  # it runs nothing that its models do not
        # What a process takes once, and what is free again, is not the version's: of a small one it was ten times its own.
        start_runtime()
        return_memory()
        before_bytes = resident_bytes()
        servable, cost = load(
            trial.key,
            folder,
            threads=how.threads,
            max_rows=how.max_rows,
            batching=how.batching,
            python=how.python,
            compiled_models=how.compiled_models,
            execution=how.execution,
        )
    except Exception as error:  # noqa: BLE001 - whatever a load raises is its verdict
        return Verdict(_reason(error, limits, has_device=how.execution.has_device))
    batching: Batching = "rows" if servable.is_batched else "request"
    note = "; ".join(filter(None, (servable.note, caching_verdict(servable, how.caching).note)))
    engine = servable.kernels.choice if isinstance(servable, OnnxServable) else None
    return_memory()
    memory_bytes = max(0, resident_bytes() - before_bytes)
    servable.close()
    return Verdict(
        batching=batching,
        engine=engine,
        note=note,
        took_s=time.monotonic() - started,
        memory_bytes=memory_bytes,
        base_s=cost.base_s,
        row_s=cost.row_s,
    )


def _reason(error: Exception, limits: TrialLimits, *, has_device: bool) -> str:
    if is_out_of_memory(error):
        return OUT_OF_DEVICE_MEMORY if has_device else out_of_memory(limits)
    if isinstance(error, InvalidInputError):
        return str(error)
    return str(error) if isinstance(error, PenstockError) else f"loading failed: {type(error).__name__}"


def _mapped_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 4096 * _MEBIBYTE


_tasks: Final = msgspec.json.Decoder(Task)


def main() -> None:
    """Waits for the version on standard input and tries it; the verdict is all that goes to standard output."""
    lifeline.end_with_parent(int(sys.argv[1]))
    answer = os.dup(1)
    os.dup2(2, 1)  # libraries that print must not be taken for the verdict
    told = sys.stdin.buffer.read()
    if not told:
        os._exit(0)  # it is not needed
    task = _tasks.decode(told)
    trial, limits = task.trial, task.limits
    limit(limits, trial.how.threads or 1, has_device=trial.how.execution.has_device)
    os.write(answer, msgspec.json.encode(attempt(trial, limits)))
    # Nothing is left to save, and a model's threads may hang.
    os._exit(0)


if __name__ == "__main__":
    main()
