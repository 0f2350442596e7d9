"""What a run over the peers prints, and its record for machines. Decides no numbers; called by `__main__`."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import report
from bench.peers.peer import Peer
from bench.peers.running import Finding
from bench.session import Run

_REASON_CHARACTERS = 120


def show(console: Console, findings: Iterable[Finding]) -> None:
    """Prints a table and the settings of each peer, or why there is none."""
    for finding in findings:
        if finding.run is None:
            peer = finding.peer
            console.print(f"{peer.name} {peer.version} was not measured: {reason(finding)}", style="red", markup=False)
            continue
        console.print(comparison(finding))
        for line in report.reasons(finding.run.measurements):
            console.print(line, style="red", markup=False)
        console.print(settings(finding.peer), markup=False, highlight=False)


def comparison(finding: Finding) -> Table:
    """One peer under each load, with Penstock and the baseline in the same run."""
    assert finding.run is not None
    table = report.comparison(finding.run.summaries)
    table.title = f"{finding.peer.name} {finding.peer.version}; ×: times better than it"
    return table


def reason(finding: Finding) -> str:
    """Why a peer was not measured, on one line; the record keeps the whole."""
    lines = [line.strip() for line in (finding.failure or "").splitlines() if line.strip()]
    text = lines[0] if lines else "no reason was given"
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:_REASON_CHARACTERS]}…"


def settings(peer: Peer) -> str:
    """How a peer was set up."""
    return f"{peer.name}: {peer.wire}; {peer.processes}; {json.dumps(dict(peer.settings))}"


def record(findings: Iterable[Finding]) -> dict[str, Any]:
    """Machine, commit and each peer as JSON's types."""
    about = report.record(Run())
    return {"machine": about["machine"], "commit": about["commit"], "peers": [_peer(each) for each in findings]}


def _peer(finding: Finding) -> dict[str, Any]:
    found = {**asdict(finding.peer), "installed": finding.installed, "failure": finding.failure}
    if finding.run is not None:
        whole = report.record(finding.run)
        found |= {name: whole[name] for name in ("summaries", "measurements", "memory")}
    return found
