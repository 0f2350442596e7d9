"""Remembers the airlock's verdicts on disk, so that a restart does not try again what has passed.

A record counts only for the same files, identity, settings and releases. Files are told apart by their sizes and times
of change; whether they still are what was published, every load checks by their digests.
"""

import hashlib
import importlib.metadata
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock_server import atomic, paths
from penstock_server.control.verdict import Trial, TrialLimits, Verdict
from penstock_server.errors import InvalidInputError
from penstock_server.models import strict_json
from penstock_server.models.execution import PROVIDERS
from penstock_server.models.version_folder import file_states

log = structlog.get_logger(__name__)

MOST_RECORDS: Final = 10_000
_MAX_BYTES: Final = 256 * 1024
_RUNTIMES: Final = sorted({provider.package for provider in PROVIDERS.values()})
"""The packages that bring onnxruntime; one of them is installed."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    version: str
    of: str
    verdict: Verdict
    format: int = strict_json.FORMAT


_records: Final = msgspec.json.Decoder(_Record)


class ProvenVersions:
    """One file per version, the newest verdict in it. Calls read and write files: use a thread.

    Args:
        limits: those of the trials.
        cache_dir: where the files are; None is Penstock's cache folder.
    """

    def __init__(self, limits: TrialLimits, cache_dir: Path | None = None) -> None:
        self._limits = limits
        self._folder = (cache_dir or paths.cache_dir()) / "proven"

    def recall(self, trial: Trial) -> Verdict | None:
        """The verdict on these files under these settings; None if there is none, or its record is damaged."""
        path = self._path(trial)
        try:
            if path.stat().st_size > _MAX_BYTES:
                return None
            record = strict_json.decode(path.read_bytes(), _records)
            return record.verdict if record.of == self._fingerprint(trial) else None
        except (OSError, InvalidInputError):
            return None

    def remember(self, trial: Trial, verdict: Verdict) -> None:
        """Replaces the record of this version."""
        try:
            record = _Record(trial.model, trial.version, self._fingerprint(trial), verdict)
            atomic.write(self._path(trial), msgspec.json.encode(record))
            self._sweep()
        except OSError as error:
            log.warning("a verdict cannot be remembered", folder=str(self._folder), reason=error.strerror)

    def _path(self, trial: Trial) -> Path:
        name = f"{paths.file_name_for(trial.model)}.{paths.file_name_for(trial.version)}"
        return self._folder / f"{name}.json"

    def _fingerprint(self, trial: Trial) -> str:
        facts = (_releases(), trial.identity, trial.folder, trial.how, self._limits, file_states(Path(trial.folder)))
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    def _sweep(self) -> None:
        records = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in records[:-MOST_RECORDS]:
            with suppress(FileNotFoundError):
                path.unlink()


@cache
def _releases() -> tuple[str, ...]:
    """The releases of what loads a version, without importing it."""
    return tuple(f"{name} {version}" for name in ("penstock", *_RUNTIMES, "numpy") if (version := _release(name)))


def _release(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
