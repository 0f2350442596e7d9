"""`python -m bench.tracing`: what tracing costs, beside the same server without it.

Servers run side by side and get the same load in turn, 8 connections with 8 calls in flight each: one that traces nothing, and
others whose callers decide nothing, of which they trace none, one in a hundred, or all; and one whose callers say that they do
not trace. CPU is that of all processes of a server, so the one that sends spans is in it.
"""

import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from bench import inference, models
from bench.in_turn import Load, best, costs_of, measured
from bench.load.plan import LoadPlan
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running

_MODEL: Final = "tabular"
_PARENT: Final = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),)
LOADS: Final = {
    "off": (None, ()),
    "none": (0.0, ()),
    "one in a hundred": (0.01, ()),
    "all": (1.0, ()),
    "off, with a traceparent": (None, _PARENT),
    "none, by the caller": (1.0, _PARENT),
}
"""By name: the share of requests that a server traces of those whose caller decides nothing, and the headers of the load."""
MOST: Final = {"none": 1.01, "none, by the caller": 1.01, "one in a hundred": 1.05}
"""What CPU per call may be, as a multiple of what it is without tracing."""


@contextmanager
def collector() -> Iterator[str]:
    """The address of a collector that takes all and keeps nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _loads(seconds: float) -> Iterator[dict[str, Load]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        files = models.write(folder / "models", {_MODEL})
        address = stack.enter_context(collector())
        messages = GRPC.messages(_MODEL, rows=1, copies=1)
        servers = {}
        for share in {share: None for share, _ in LOADS.values()}:
            config = folder / f"{share}.toml"
            text = "" if share is None else f'[tracing]\nendpoint = "{address}"\nsample_ratio = {share}\n'
            config.write_text(text)
            command = [*SERVERS["penstock"].command(folder / "models", files), "--config", str(config)]
            servers[share] = stack.enter_context(running(command))
        yield {
            name: Load(
                servers[share],
                LoadPlan(
                    servers[share].grpc, inference.METHOD, messages, 8, 8, duration_s=seconds, warmup_s=0.2,
                    headers=headers,
                ),
            )
            for name, (share, headers) in LOADS.items()
        }  # fmt: skip


def measure(rounds: int, seconds: float) -> dict[str, list[float]]:
    """CPU per answered call in microseconds in each round, by the names of `LOADS`; raises as `costs_of`."""
    with _loads(seconds) as loads:
        return costs_of(loads, rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per load; returns 0, 1 if a ratio is above `MOST`, or 2 if nothing could be measured."""
    costs = measured("bench.tracing", "Measures what tracing costs per call.", 12, measure, arguments)
    if costs is None:
        return 2
    is_above = False
    for name in LOADS:
        without = best(costs["off, with a traceparent" if LOADS[name][1] else "off"])
        cost = best(costs[name])
        is_above |= cost / without > MOST.get(name, 1e9)
        sys.stdout.write(f"traced: {name}: {cost:.2f} us of CPU per call, {cost / without:.3f} of what it is without\n")
    sys.stdout.write(f"a traced call: {best(costs['all']) - best(costs['off']):.2f} us more, its spans sent\n")
    return int(is_above)


if __name__ == "__main__":
    sys.exit(main())
