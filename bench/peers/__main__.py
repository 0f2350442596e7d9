"""`python -m bench.peers`: reads the command line, shows progress, and prints each peer next to Penstock.

The exit status is 0, 1 if a peer was not measured, or 2 if nothing could be measured.
"""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench import report
from bench.peers import environments, table
from bench.peers.peer import Peer, read
from bench.peers.run import PeerResult, measure, run_spec
from bench.scenarios import FULL, QUICK, Rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the peers and returns the exit status."""
    try:
        peers = read()
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
    results = measure_all(chosen, QUICK if options.quick else FULL, is_kept=not options.remove)
    table.show(Console(), results)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(table.record(results), indent=1) + "\n")
    return int(any(result.failure for result in results))


def measure_all(peers: Sequence[Peer], rounds: Rounds, *, is_kept: bool) -> list[PeerResult]:
    """Measures one peer after another, each with Penstock and the baseline, so that nothing else runs meanwhile."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(run_spec(peer, rounds).measurements for peer in peers))
        for peer in peers:
            result = measure(
                peer,
                rounds,
                on_start=partial(_show, progress, task, peer.name),
                on_measured=lambda: progress.advance(task),
            )
            results.append(result)
            if not is_kept:
                environments.remove(peer)
    return results


def _show(progress: Progress, task: TaskID, name: str, text: str) -> None:
    progress.update(task, description=f"{name}: {text}")


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
        description="Measures other model servers, each together with Penstock and a bare grpc.aio server: with "
        "the same model, rows and load. Each is installed in its own environment of hundreds of megabytes, in "
        f"{environments.cache()}.",
    )
    made.add_argument(
        "names", nargs="*", metavar="NAME", help=f"a server to measure: {', '.join(peers)} (default: all)"
    )
    made.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    made.add_argument("--install", action="store_true", help="only install the environments")
    made.add_argument("--remove", action="store_true", help="delete each environment after its server was measured")
    made.add_argument(
        "--json",
        nargs="?",
        type=Path,
        const=report.default_file(datetime.now(tz=UTC)),
        metavar="FILE",
        help="write versions, settings and the numbers of every round (default: bench/results/, named by the time)",
    )
    return made


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves every context, so that the servers end too
    sys.exit(main())
