"""The process that joins labels with answers: one for all workers of a server.

The supervisor starts it when labels are taken, and again if it ends: it goes on from its last state, and nothing is lost
or counted twice. It runs at a low priority. It ends when its standard input does, after a last step, so it outlives the workers
but not the server.
"""

import fcntl
import sys
import time
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import structlog

from penstock_server import lifeline
from penstock_server.clock import monotonic
from penstock_server.labels import report
from penstock_server.labels.joiner import Joiner
from penstock_server.labels.peers import Peers, http_sender
from penstock_server.labels.settings import LabelSettings
from penstock_server.log_setup import configure_logging

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.25
REPORT_NS: Final = 1_000_000_000
OTHERS_S: Final = 60.0
"""A server that follows another one waits no longer for its end."""
LOCK: Final = "joiner.lock"
_AGAIN_S: Final = 2.0


def _path(kind: type, value: Any) -> Any:
    return kind(value)


_settings: Final = msgspec.json.Decoder(LabelSettings, dec_hook=_path)


def main() -> None:
    """Takes steps until standard input ends, and a last one then."""
    lifeline.end_with_parent(int(sys.argv[2]))
    settings = _settings.decode(sys.argv[1])
    configure_logging()
    assert settings.folder is not None
    settings.folder.mkdir(parents=True, exist_ok=True)
    lock, began_s = None, monotonic()
    while (lock := _lock(settings.folder)) is None:
        if lifeline.input_has_ended(LOOK_S):
            return
        if monotonic() - began_s > OTHERS_S:
            began_s = inf
            log.warning(
                "another server joins the labels of this folder, and counts for both: give each server its own, and name "
                "the others in labels.peers",
                folder=str(settings.folder),
            )
    peers = _peers(settings)
    while not _run(settings.folder, settings, peers):
        if lifeline.input_has_ended(_AGAIN_S):
            return
    lock.close()


def _peers(settings: LabelSettings) -> Peers | None:
    """Who gets the labels that no answer here is for; None for nobody."""
    if not settings.peers:
        return None
    token = "" if settings.peer_token_file is None else settings.peer_token_file.read_text().strip()
    return Peers({address: http_sender(address, token) for address in settings.peers}, wait_s=settings.wait_s)


def _lock(folder: Path) -> BinaryIO | None:
    """The lock of the folder; None when another server's process has it."""
    file = (folder / LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _run(folder: Path, settings: LabelSettings, peers: Peers | None) -> bool:
    """Takes steps until standard input ends; false if a step failed, and another joiner is to go on from the last state."""
    joiner = None
    try:
        joiner = Joiner(folder, settings, time.time_ns(), peers)
        reported_ns = 0
        has_more = has_ended = False
        while not has_ended:
            has_ended = lifeline.input_has_ended(0 if has_more else LOOK_S)
            now_ns = time.time_ns()
            has_more = joiner.step(now_ns)
            if now_ns - reported_ns > REPORT_NS:
                reported_ns = now_ns
                report.write(folder, joiner.report(now_ns))
        while joiner.step(time.time_ns(), is_last=True):
            pass
        report.write(folder, joiner.report(time.time_ns()))
    except OSError as error:
        log.warning("labels cannot be joined now; trying again", reason=str(error))
        return False
    except Exception:
        log.exception("labels cannot be joined now; trying again")
        return False
    finally:
        if joiner is not None:
            joiner.close()
    return True


if __name__ == "__main__":
    main()
