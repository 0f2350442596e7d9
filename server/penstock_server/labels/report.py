"""What the joiner tells: a file of JSON that it writes once a second, and that the server reads for its metrics and pages."""

import os
from pathlib import Path
from typing import Final

import msgspec

from penstock_server.labels.quality import Quality
from penstock_server.labels.totals import LabelTotals, ModelCounts

NAME: Final = "report.json"


class VersionQuality(msgspec.Struct, frozen=True):
    """How good a version's latest answers were that are old enough."""

    model: str
    version: str
    identity: str
    quality: Quality


class Kept(msgspec.Struct, frozen=True):
    """What is kept, and what was not.

    Attributes:
        answers: that wait for labels, or have them.
        bytes: of all files of them; `most_bytes` is the bound.
        oldest_ns: when the oldest was given, since 1970.
        waiting: labels that wait for an answer.
        lost: answers for which workers found no room.
        early: answers that were deleted before they were old enough to count.
        refused: labels for which workers found no room; their senders know.
    """

    answers: int = 0
    bytes: int = 0
    most_bytes: int = 0
    oldest_ns: int | None = None
    waiting: int = 0
    lost: int = 0
    early: int = 0
    refused: int = 0


class PeerCounts(msgspec.Struct, frozen=True):
    """Labels that went to a peer, and those that it did not take."""

    sent: int = 0
    failed: int = 0


class Report(msgspec.Struct, frozen=True):
    """All that the joiner tells.

    Attributes:
        time_ns: when, since 1970.
    """

    time_ns: int = 0
    kept: Kept = Kept()
    totals: LabelTotals = LabelTotals()
    qualities: tuple[VersionQuality, ...] = ()
    models: dict[str, ModelCounts] = {}
    peers: dict[str, PeerCounts] = {}


_report: Final = msgspec.json.Decoder(Report)


def write(folder: Path, report: Report) -> None:
    """Replaces the last report; raises `OSError`."""
    fresh = folder / f"{NAME}.new"
    fresh.write_bytes(msgspec.json.encode(report))
    os.replace(fresh, folder / NAME)


class ReportReader:
    """Reads the report where it is wanted; it is read again only when it has changed. Threads may share it.

    Args:
        folder: the joiner's; None where no labels are taken.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / NAME
        self._held: tuple[tuple[int, int], Report] | None = None

    def report(self) -> Report | None:
        """The last report, an empty one while there is none; None where no labels are taken."""
        if self._path is None:
            return None
        held = self._held
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if held is not None and held[0] == stamp:
                return held[1]
            report = _report.decode(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return Report() if held is None else held[1]
        self._held = (stamp, report)
        return report

    def totals(self) -> LabelTotals:
        """What was counted, for those who decide by it."""
        report = self.report()
        return LabelTotals() if report is None else report.totals
