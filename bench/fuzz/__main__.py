"""`python -m bench.fuzz`: plays damaged conversations, in process and then over sockets, and says how many and how fast.

The cases run in a process of their own: what ends it is found again by its number, written down, and passed over. The exit
status is 1 if anything was found.
"""

import argparse
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.fuzz.corpus import written
from bench.fuzz.play import Played, case

_PROGRESS: Final = struct.Struct("<qq")
_MOST_FOUND: Final = 20
_HANGS_S: Final = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays, and returns the exit status."""
    options = _parser().parse_args(arguments)
    end_s = time.monotonic() + options.seconds
    parts = {"in process": options.seconds * (1 - options.sockets), "over sockets": options.seconds * options.sockets}
    found: list[str] = []
    for part, share_s in parts.items():
        first, seconds = 0, share_s
        while seconds > 0 and len(found) < _MOST_FOUND and first < options.count:
            played, failure = _play(part, first, options, min(seconds, end_s - time.monotonic()))
            rate = played.cases / played.seconds if played.seconds else 0.0
            print(
                f"{part}: {played.cases:,} cases, {played.changes:,} changes, {rate:,.0f} cases per second", flush=True
            )
            if failure is None:
                break
            print(f"{part}: case {played.last} of seed {options.seed}: {failure}", flush=True)
            found.append(written(f"{options.seed}:{played.last} {failure}", case(options.seed, played.last)[0]))
            seconds -= played.seconds
            first = played.last + 1
    if found:
        if options.save:
            with options.save.open("a") as file:
                file.writelines(f"{line}\n" for line in found)
        else:
            print(*found, sep="\n")
    return 1 if found else 0


def _play(part: str, first: int, options: argparse.Namespace, seconds: float) -> tuple[Played, str | None]:
    """Runs cases in a process of their own, until the time is over or one ends it; why it ended."""
    with tempfile.TemporaryDirectory(prefix="penstock-fuzz-") as folder:
        progress = Path(folder) / "progress"
        progress.write_bytes(bytes(_PROGRESS.size))
        plan = {"part": part, "seed": options.seed, "first": first, "count": options.count, "seconds": seconds}
        started = time.monotonic()
        command = [sys.executable, "-X", "faulthandler", "-m", "bench.fuzz.play", json.dumps(plan), str(progress)]
        # Memory that is freed is overwritten, so that what uses it still is seen.
        environment = os.environ | {"MALLOC_PERTURB_": "165"}
        try:
            code = subprocess.run(command, env=environment, timeout=seconds + _HANGS_S, check=False).returncode
        except subprocess.TimeoutExpired:
            code = None
        last, changes = _PROGRESS.unpack(progress.read_bytes())
        played = Played(last, last - first + 1, changes, time.monotonic() - started)
    if code is None:
        return played, "does not end"
    if code < 0:
        return played, f"ended by {signal.Signals(-code).name}"
    return played, f"exit status {code}" if code else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fuzz",
        description="Plays damaged conversations against the native transport: it must live, give everything back, and "
        "serve others meanwhile.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=60.0, metavar="S", help="how long (default: 60)")
    add("--count", type=int, default=1 << 62, metavar="N", help="at most so many cases of each part")
    add("--seed", type=int, default=1, metavar="N", help="which cases; each case has a number too (default: 1)")
    add("--sockets", type=float, default=0.1, metavar="SHARE", help="of the time, over sockets (default: 0.1)")
    add("--save", type=Path, metavar="FILE", help="add what is found to this file, a line each")
    return parser


if __name__ == "__main__":
    sys.exit(main())
