"""What drift detectors learnt, kept through unloads and restarts.

A version that comes back, by a roll-back or with another server process, goes on from where it was: its history would else take
hours to fill again, and an alarm that is on would go out. In memory some versions that were unloaded last are kept; a folder
keeps all for the next process, in numpy's format, which holds numbers alone.
"""

import io
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock_server import atomic
from penstock_server.drift.detector import Detector
from penstock_server.drift.reference import Reference

log = structlog.get_logger(__name__)

MOST_AWAY: Final = 32
"""The unloaded versions that are kept in memory."""
OTHERS_S: Final = 30 * 86_400.0
"""How old files of servers at other addresses may be, which may still run with few requests."""


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What a detector learnt, as it is written; `name` says of which version and training rows."""

    name: str
    arrays: Mapping[str, NDArray[Any]]


class DetectorKeeper:
    """Keeps detectors by version and training rows.

    Args:
        folder: where they outlive the process; None keeps them in memory alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._away: OrderedDict[str, Detector] = OrderedDict()

    def sweep(self, now_s: float, kept_s: float) -> None:
        """Deletes files that are too old, and what servers at other addresses left behind.

        Args:
            now_s: the time, in seconds since 1970.
            kept_s: how old this server's may be.
        """
        if self._folder is None:
            return
        try:
            for path in self._folder.parent.glob("*/*.npz"):
                is_own = path.parent == self._folder
                if path.stat().st_mtime < now_s - (kept_s if is_own else max(kept_s, OTHERS_S)):
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("kept drift cannot be swept", folder=str(self._folder), error=str(error))

    def put_away(self, key: VersionKey, reference: Reference, detector: Detector) -> Learnt:
        """Keeps the detector of a version that is unloaded, and gives what is to be saved of it."""
        name = name_of(key, reference)
        self._away[name] = detector
        while len(self._away) > MOST_AWAY:
            self._away.popitem(last=False)
        return Learnt(name, detector.to_arrays())

    def back(self, key: VersionKey, reference: Reference, detector: Detector) -> Detector:
        """The detector that was kept of a version, or `detector`, with what a former process learnt."""
        name = name_of(key, reference)
        kept = self._away.pop(name, None)
        if kept is not None:
            return kept
        if self._folder is not None:
            path = self._folder / f"{name}.npz"
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    detector.restore(arrays)
            except FileNotFoundError:
                pass
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                log.warning("kept drift cannot be read; it begins anew", model=key[0], version=key[1], error=str(error))
        return detector

    def save(self, learnt: Learnt) -> None:
        """Writes what a detector learnt to the folder."""
        if self._folder is None:
            return
        content = io.BytesIO()
        arrays: dict[str, Any] = dict(learnt.arrays)
        np.savez_compressed(content, **arrays)
        try:
            atomic.write(self._folder / f"{learnt.name}.npz", content.getvalue())
        except OSError as error:
            log.warning("drift cannot be kept", folder=str(self._folder), error=str(error))


def name_of(key: VersionKey, reference: Reference) -> str:
    """The name under which the detector of a version is kept: other training rows are another."""
    return sha256("\0".join((*key, reference.digest)).encode()).hexdigest()
