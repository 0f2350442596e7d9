import re
import sys
import threading
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from penstock_server.errors import UnavailableError
from penstock_server.transport import choose, completion_queue, nghttp2
from penstock_server.transport.aio import AioTransport
from penstock_server.transport.choose import choose_transport, native_refusal, self_check
from penstock_server.transport.completion_queue import CompletionQueueTransport
from penstock_server.transport.interface import Methods
from penstock_server.transport.native import NativeTransport
from penstock_server.transport.settings import AIO, COMPLETION_QUEUE, NATIVE, TransportSettings

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
    transport = chosen(COMPLETION_QUEUE)
    assert type(transport) is CompletionQueueTransport
    assert transport.described == f"completion-queue (grpcio {grpc.__version__})"
    assert not [entry for entry in logs if entry["log_level"] == "warning"]


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
    transport = chosen(COMPLETION_QUEUE)
    assert type(transport) is AioTransport
    assert transport.described == f"aio (grpcio {grpc.__version__})"
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["event"] == WARNING
    assert cause in warning["cause"]


def test_the_native_transport_says_what_it_is_made_of(logs: Any) -> None:
    transport = chosen(NATIVE)
    assert type(transport) is NativeTransport
    assert re.fullmatch(r"native \(libnghttp2 1\.\d+\.\d+, /.*libnghttp2.*\)", transport.described)
    assert not [entry for entry in logs if entry["log_level"] == "warning"]
    transport.close()


def test_without_nghttp2_the_native_transport_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nghttp2.VARIABLE, "/nowhere/libnghttp2.so")
    assert "/nowhere/libnghttp2.so" in native_refusal()
    with pytest.raises(UnavailableError, match=r"/nowhere/libnghttp2\.so"):
        chosen(NATIVE)


def test_without_kernels_the_native_transport_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose.compiled, "available", lambda _: None)
    assert native_refusal().endswith("`penstock compile` does it once")
    with pytest.raises(UnavailableError, match="kernels are not compiled"):
        chosen(NATIVE)


def test_the_native_transport_runs_here() -> None:
    assert native_refusal() == ""


def test_grpc_aio_is_not_checked(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_import(monkeypatch)
    assert type(chosen(AIO)) is AioTransport
    assert not [entry for entry in logs if entry["log_level"] == "warning"]
