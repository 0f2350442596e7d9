"""Skips time in which nothing happens, so that hours of quiet cost nothing and what ages by the hour ages.

A server on which nothing acts polls, looks at its workers and compares what it holds with what is desired, and does nothing
more. It is watched for some polls. When it has changed nothing, the rest of the quiet is skipped: each timer comes later by
that much, so that what would have happened again and again happens once.
"""

from typing import TYPE_CHECKING, Final

from tests.simulation.worker import FakeWorker

if TYPE_CHECKING:
    from tests.simulation.server import Server

QUIET_S: Final = (0.0, 600.0, 3600.0, 4 * 3600.0, 12 * 3600.0)
"""How long it may be quiet after a time of faults."""


def under_way(server: "Server") -> str:
    """What a server does that ends by itself, "" for nothing: time that is skipped must not pass for it."""
    supervisor = server.supervisor
    if not server.is_running or server.is_stopped:
        return "the server is not running"
    if supervisor._fetcher._running or supervisor._airlock._trying or supervisor._change.is_set():
        return "it fetches, tries or acts"
    if any(source.is_busy for source in server.sources if not source.process.is_dead):
        return "a source answers"
    if any(map(_is_at_work, server.living)):
        return "a worker loads or answers"
    if any(worker.too_large for worker in supervisor.residents._workers.values()):
        return "it remembers for a minute which models do not fit"
    waiting = [one for one in server.clients if one._spare.process is not None and one._spare.process.is_alive]
    if len(server.process.children) != server.slots + len(server.registries) + len(waiting):
        return "other processes run"
    return ""


def _is_at_work(worker: FakeWorker) -> bool:
    return worker.is_hung or not worker.is_idle


def standing(server: "Server") -> object:
    """What a quiet server does not change: its processes, what they hold and route by, and what it believes of them."""
    return (
        server.supervisor._desired,
        server.supervisor.view(),
        [(worker.process.pid, worker.table.models, {*worker.executors}) for worker in server.living],
    )
