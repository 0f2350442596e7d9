"""What the airlock's process is told and what it answers; it imports this module, so nothing slow may be imported here."""

from typing import Final

import msgspec

from penstock.names import VersionKey
from penstock_server.batching.limits import Batching
from penstock_server.compiled_models.choice import Choice
from penstock_server.models.execution import ExecutionSettings
from penstock_server.python.settings import PythonSettings
from penstock_server.response_cache.settings import Caching

MAX_VERDICT_BYTES: Final = 64 * 1024
OUT_OF_DEVICE_MEMORY: Final = (
    "needs more of the device's memory than was free when it was tried (the setting execution.memory_mib may limit it)"
)
"""The reason of a version that a device has no memory for."""


class LoadSettings(msgspec.Struct, frozen=True):
    """How a model is loaded, by the settings for its name; `threads` and `batching` None let the loader find out."""

    threads: int | None = None
    max_rows: int = 256
    batching: Batching | None = None
    python: PythonSettings = PythonSettings()
    compiled_models: bool = True
    execution: ExecutionSettings = ExecutionSettings()
    caching: Caching = Caching()


class Trial(msgspec.Struct, frozen=True):
    """A version to try.

    Attributes:
        identity: says which files these are; the source decides how.
        folder: where its files are.
        how: as a worker would load it.
    """

    model: str
    version: str
    identity: str
    folder: str
    how: LoadSettings

    @property
    def key(self) -> VersionKey:
        return self.model, self.version


class TrialLimits(msgspec.Struct, frozen=True):
    """What a trial's process may use."""

    memory_mib: int
    timeout_s: float


class Task(msgspec.Struct, frozen=True):
    """What a trial's process is told to do."""

    trial: Trial
    limits: TrialLimits


class Verdict(msgspec.Struct, frozen=True):
    """What a trial found.

    Attributes:
        reason: why the version must not be loaded, in one sentence; "" when it has passed.
        batching: for the workers, which take it on trust.
        engine: what runs the graph, for the workers, which take that on trust too; None if it is no graph.
        note: what is worth knowing about a version that passed, in one sentence.
        took_s: the time of the load.
        memory_bytes: about what it took of the process's memory; 0 where that was not measured.
        base_s, row_s: a batch of n rows took `base_s + row_s * n`, in the airlock; 0 where that was not measured.
    """

    reason: str = ""
    batching: Batching | None = None
    engine: Choice | None = None
    note: str = ""
    took_s: float = 0.0
    memory_bytes: int = 0
    base_s: float = 0.0
    row_s: float = 0.0

    def batch_s(self, rows: int) -> float:
        """How long a batch took, by what was measured."""
        return self.base_s + self.row_s * rows

    @property
    def is_timed(self) -> bool:
        """Whether its batches were measured."""
        return self.base_s + self.row_s > 0

    @property
    def has_passed(self) -> bool:
        return not self.reason


def out_of_memory(limits: TrialLimits) -> str:
    """The reason of a version that takes too much memory."""
    return (
        f"used more than {limits.memory_mib:,} MiB while it was loaded and was stopped "
        "(the limit is the setting airlock.memory_mib)"
    )
