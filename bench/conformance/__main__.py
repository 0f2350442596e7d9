"""`python -m bench.conformance [NAME ...]`: runs the conformance suite against servers, and prints how each did by section.

The exit status is 0 where Penstock failed nothing and every server could be asked, else 1.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.conformance.servers import PENSTOCK, WITHOUT, running
from bench.conformance.table import markdown
from bench.peers.environments import InstallError
from penstock_conformance import cases, report
from penstock_conformance.case import Outcome, Result
from penstock_conformance.grpc_wire import GrpcWire
from penstock_conformance.rest_wire import RestWire
from penstock_conformance.run import tried
from penstock_server.errors import UnavailableError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite and returns the exit status."""
    options = parser().parse_args(arguments)
    console = Console(stderr=True)
    results: dict[str, list[Result]] = {}
    versions: dict[str, str] = {}
    failed = False
    for name in options.names or WITHOUT:
        with console.status(name):
            try:
                results[name], versions[name] = asked(name)
            except (InstallError, UnavailableError) as error:
                failed = True
                console.print(f"{name}: {error}", style="red", markup=False)
    print(markdown(results, versions))
    if options.json:
        options.json.write_text(json.dumps(_record(results, versions), indent=1) + "\n")
    own = results.get(PENSTOCK, [])
    return int(failed or any(result.outcome is Outcome.FAILED for result in own))


def asked(name: str) -> tuple[list[Result], str]:
    """The results of one server, and its version. It starts anew for REST, since some do not live through all of gRPC."""
    with running(name) as server:
        wire = GrpcWire(server.grpc, {})
        try:
            results = tried(wire, cases.grpc(), WITHOUT[name], lambda _: None)
        finally:
            wire.close()
    if server.rest:
        with running(name) as again:
            results += tried(RestWire(again.rest, {}), cases.rest(), WITHOUT[name], lambda _: None)
    return results, server.version


def _record(results: dict[str, list[Result]], versions: dict[str, str]) -> dict[str, Any]:
    about = {"when": datetime.now(tz=UTC).isoformat(timespec="seconds")}
    servers = {name: report.record(own, {"version": versions[name]}) for name, own in results.items()}
    return {**about, "servers": servers}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.conformance", description="Which server keeps the protocol?")
    made.add_argument("names", nargs="*", metavar="NAME", help=f"a server: {', '.join(WITHOUT)} (default: all)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every result")
    return made


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves every context, so that the servers end too
    sys.exit(main())
