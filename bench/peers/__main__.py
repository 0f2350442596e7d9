"""`python -m bench.peers`: reads the command line, shows progress, and prints each peer beside Penstock.

Decides the exit status: 0, 1 when a peer was not measured, 2 when nothing could be measured.
"""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import report
from bench.peers import environments, running, table
from bench.peers import peer as catalogue
from bench.peers.peer import Peer
from bench.peers.running import Finding
from bench.scenarios import FULL, QUICK, Effort


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the peers and returns the exit status."""
    try:
        peers = catalogue.read()
    except (OSError, ValueError) as error:
        Console(stderr=True).print(f"bench.peers: {error}", style="red", markup=False)
        return 2
    options = parser(peers).parse_args(arguments)
    if unknown := [name for name in options.names if name not in peers]:
        Console(stderr=True).print(f"bench.peers: no peer {unknown[0]!r}; there are {', '.join(peers)}", style="red")
        return 2
    chosen = [peers[name] for name in dict.fromkeys(options.names or peers)]
    if options.install:
        return _install(chosen)
    findings = measure(chosen, QUICK if options.quick else FULL, is_kept=not options.remove)
    table.show(Console(), findings)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(table.record(findings), indent=1) + "\n")
    return int(any(finding.failure for finding in findings))


def measure(peers: Sequence[Peer], effort: Effort, *, is_kept: bool) -> list[Finding]:
    """One peer after another; each with Penstock and the baseline, and nothing else running."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    findings = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(running.order(peer, effort).measurements for peer in peers))
        for peer in peers:
            finding = running.find(
                peer,
                effort,
                on_start=lambda text, name=peer.name: progress.update(task, description=f"{name}: {text}"),
                on_measured=lambda: progress.advance(task),
            )
            findings.append(finding)
            if not is_kept:
                environments.remove(peer)
    return findings


def _install(peers: Sequence[Peer]) -> int:
    console = Console(stderr=True)
    failed = 0
    for peer in peers:
        with console.status(f"installing {peer.name} {peer.version}"):
            try:
                environments.make(peer)
            except environments.InstallError as error:
                failed += 1
                console.print(f"{peer.name}: {error}", style="red", markup=False)
    return int(failed > 0)


def parser(peers: Mapping[str, Peer]) -> argparse.ArgumentParser:
    """The command line over these peers."""
    made = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description="Measures other model servers beside Penstock and a bare grpc.aio server, one after another: the "
        "same model, rows and load. Each is installed in an environment of its own, hundreds of megabytes, kept in "
        f"{environments.cache()}.",
    )
    made.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(peers)} (default: all)")
    made.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    made.add_argument("--install", action="store_true", help="only make the environments")
    made.add_argument("--remove", action="store_true", help="delete each environment when its peer was measured")
    made.add_argument(
        "--json",
        nargs="?",
        type=Path,
        const=report.default_file(datetime.now(tz=UTC)),
        metavar="FILE",
        help="write versions, settings and every round's numbers (default: bench/results/, named by the time)",
    )
    return made


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with this process
    sys.exit(main())
