import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from penstock_server.transport import choose, completion_queue
from penstock_server.transport.aio import AioTransport
from penstock_server.transport.choose import AIO, COMPLETION_QUEUE, choose_transport, self_check
from penstock_server.transport.completion_queue import CompletionQueueTransport
from penstock_server.transport.interface import Methods
from penstock_server.transport.settings import TransportSettings

QUEUE_MODULE = "penstock_server.transport.completion_queue"
WARNING = "the completion queue does not work with this grpcio; serving over grpc.aio"


class Idle:
    """A scheduler without work."""

    is_due = False

    def step(self) -> float:
        return 0.01


def chosen(name: str) -> Any:
    return choose_transport(name, Methods({}, {}), Idle(), TransportSettings())


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is logged; by a logger that nothing has configured yet."""
    with capture_logs() as found:
        monkeypatch.setattr(choose, "log", choose.structlog.get_logger())
        yield found


class StuckThread(threading.Thread):
    """A thread that says it still runs."""

    def is_alive(self) -> bool:
        return True


class WrongEcho(CompletionQueueTransport):
    """Answers with what it was sent."""

    def __init__(self, methods: Methods, *others: Any) -> None:
        echo = {path: lambda message, call: call.finish(message) for path in methods.unary}
        super().__init__(Methods(echo, {}), *others)


def lose_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, QUEUE_MODULE, None)


def lose_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(completion_queue.cygrpc, "SendStatusFromServerOperation")
    monkeypatch.setattr(choose, "_TIMEOUT_S", 0.2)  # the reply may never come


def echo_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion_queue, "CompletionQueueTransport", WrongEcho)


def never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "threading", SimpleNamespace(Thread=StuckThread))


def test_the_completion_queue_works_here(logs: Any) -> None:
    self_check()
    name, transport = chosen(COMPLETION_QUEUE)
    assert (name, type(transport)) == (COMPLETION_QUEUE, CompletionQueueTransport)
    assert logs == []


@pytest.mark.parametrize(
    ("break_it", "cause"),
    [
        (lose_import, QUEUE_MODULE),
        (lose_a_name, "RPC that terminated"),
        (echo_wrongly, "got b'penstock' and a thread that ended"),
        (never_end, "got b'kcotsnep' and a thread that still runs"),
    ],
)
def test_a_check_that_fails_chooses_grpc_aio_with_one_warning(
    break_it: Any, cause: str, logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    name, transport = chosen(COMPLETION_QUEUE)
    assert (name, type(transport)) == (AIO, AioTransport)
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["event"] == WARNING
    assert cause in warning["cause"]


def test_grpc_aio_is_not_checked(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_import(monkeypatch)
    name, transport = chosen(AIO)
    assert (name, type(transport)) == (AIO, AioTransport)
    assert logs == []
