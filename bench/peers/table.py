"""What `python -m bench.peers` prints, and its record for machines."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import report
from bench.peers.peer import Peer
from bench.peers.run import PeerResult
from bench.session import RunResult

_REASON_CHARACTERS = 120


def show(console: Console, results: Iterable[PeerResult]) -> None:
    """Prints a table and the settings of each peer, or why there is none."""
    for result in results:
        if result.run is None:
            peer = result.peer
            console.print(f"{peer.name} {peer.version} was not measured: {reason(result)}", style="red", markup=False)
            continue
        console.print(comparison(result))
        for line in report.reasons(result.run.measurements):
            console.print(line, style="red", markup=False)
        console.print(settings(result.peer), markup=False, highlight=False)


def comparison(result: PeerResult) -> Table:
    """One peer under each load, with Penstock and the baseline in the same run."""
    assert result.run is not None
    table = report.comparison(result.run.summaries)
    table.title = f"{result.peer.name} {result.peer.version}; ×: times better than it"
    return table


def reason(result: PeerResult) -> str:
    """Why a peer was not measured, on one line; the record has the whole text."""
    lines = [line.strip() for line in (result.failure or "").splitlines() if line.strip()]
    text = lines[0] if lines else "no reason was given"
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:_REASON_CHARACTERS]}…"


def settings(peer: Peer) -> str:
    """How a peer was set up."""
    return f"{peer.name}: {peer.protocol}; {peer.processes}; {json.dumps(dict(peer.settings))}"


def record(results: Iterable[PeerResult]) -> dict[str, Any]:
    """Machine, commit and each peer as JSON's types."""
    about = report.record(RunResult())
    return {"machine": about["machine"], "commit": about["commit"], "peers": [_peer(each) for each in results]}


def _peer(result: PeerResult) -> dict[str, Any]:
    peer = asdict(result.peer)
    peer["wire"] = peer.pop("protocol")  # the name in all records so far
    found = {**peer, "installed": result.installed, "failure": result.failure}
    if result.run is not None:
        whole = report.record(result.run)
        found |= {name: whole[name] for name in ("summaries", "measurements", "memory")}
    return found
