from typing import Any

import pytest
from structlog.testing import capture_logs

from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE
from penstock_server.access.audit import EVENT
from penstock_server.access.credentials import Credentials
from penstock_server.access.gate import AccessGate, Caller
from penstock_server.access.guard import Guard
from penstock_server.access.identity import Identity
from penstock_server.access.settings import AccessSettings, RuleSettings
from penstock_server.access.tokens import hash_of
from penstock_server.call import Call
from penstock_server.errors import DeniedError, InvalidInputError, NotFoundError, PenstockError, UnauthenticatedError
from penstock_server.transport.interface import Methods, StreamReceiver
from tests.server.conftest import FakeCall

OIP = f"/{INFERENCE_SERVICE}/"
INFER, LOAD, LOG, READY, STREAM = (
    OIP + name for name in ("ModelInfer", "RepositoryModelLoad", "LogSettings", "ServerReady", "ModelStreamInfer")
)
SETTINGS = AccessSettings(
    {
        "shop": RuleSettings(("token:shop",), ("infer", "read"), ("shop",)),
        "admin": RuleSettings(("uri:spiffe://corp/admin",), ("control",)),
    }
)
ADMIN = ("uri:spiffe://corp/admin",)
TOKENS = {hash_of("good"): Identity(("token:shop",))}


class Service:
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.error: PenstockError | None = None
        self.held: list[Call] = []

    def handle(self, message: bytes, call: Call) -> None:
        self.got.append(message)
        if self.error is not None:
            raise self.error
        call.finish(b"done")

    def hold(self, _message: bytes, call: Call) -> None:
        call.pending = self
        self.held.append(call)

    def cancelled(self) -> None:
        self.got.append(b"cancelled")

    def stream(self, _call: Call) -> StreamReceiver:
        return lambda message: self.got.append(message or b"end")

    @property
    def methods(self) -> Methods:
        handled = dict.fromkeys((INFER, LOAD, LOG, READY, "/new.Service/Method"), self.handle)
        return Methods({**handled, OIP + "RepositoryModelUnload": self.hold}, {STREAM: self.stream}, frozenset({READY}))


@pytest.fixture
def service() -> Service:
    return Service()


def gate() -> AccessGate:
    made = AccessGate(SETTINGS)
    made.use(Credentials(TOKENS))
    return made


@pytest.fixture
def refused() -> list[PenstockError]:
    return []


@pytest.fixture
def methods(service: Service, refused: list[PenstockError]) -> Methods:
    return Guard(gate(), refused=refused.append).guarded(service.methods)


def infer(model: str) -> bytes:
    return pb.ModelInferRequest(model_name=model).SerializeToString()


def call(token: str | None = None, peer: tuple[str, ...] = ()) -> FakeCall:
    return FakeCall(metadata=() if token is None else (("authorization", f"Bearer {token}"),), peer=peer)


LOAD_MESSAGE = pb.RepositoryModelLoadRequest(model_name="shop").SerializeToString()


@pytest.mark.parametrize(
    ("path", "message", "asking", "error"),
    [
        (INFER, infer("shop"), call("good"), None),
        (INFER, infer("other"), call("good"), DeniedError),
        (INFER, infer("shop"), call("bad"), UnauthenticatedError),
        (INFER, infer("shop"), call(), UnauthenticatedError),
        (INFER, infer("shop"), call(peer=ADMIN), DeniedError),
        (INFER, b"\x0a\x05ab", call("good"), InvalidInputError),
        (INFER, b"\x0a\x05ab", call("bad"), UnauthenticatedError),
        (READY, b"", call(), None),
        (READY, b"", call("bad"), UnauthenticatedError),
        (LOAD, LOAD_MESSAGE, call("good"), DeniedError),
        (LOAD, LOAD_MESSAGE, call(peer=ADMIN), None),
        (LOG, b"", call("good"), None),
        (LOG, pb.LogSettingsRequest(settings={"a": {}}).SerializeToString(), call("good"), DeniedError),
        ("/new.Service/Method", b"", call("good"), DeniedError),
        ("/new.Service/Method", b"", call(peer=ADMIN), None),
    ],
)
def test_a_handler_gets_what_its_caller_may_ask(
    service: Service,
    methods: Methods,
    refused: list[PenstockError],
    path: str,
    message: bytes,
    asking: FakeCall,
    error: Any,
) -> None:
    asking.__init__(metadata=asking.metadata(), peer=asking.peer())  # type: ignore[misc]
    if error is None:
        methods.unary[path](message, asking)
        assert asking.answer == b"done"
        assert service.got == [message]
        assert not refused
    else:
        with pytest.raises(error):
            methods.unary[path](message, asking)
        assert not service.got
        assert [type(each) for each in refused] == [error]


def test_a_stream_is_asked_for_each_message(service: Service) -> None:
    at = gate()
    open_stream = Guard(at).guarded(service.methods).streams[STREAM]
    with pytest.raises(UnauthenticatedError):
        open_stream(call("bad"))
    receive = open_stream(call("good"))
    receive(infer("shop"))
    with pytest.raises(DeniedError):
        receive(infer("other"))
    at.use(Credentials())
    with pytest.raises(UnauthenticatedError):
        receive(infer("shop"))
    receive(None)
    assert service.got == [infer("shop"), b"end"]


def test_who_was_admitted_is_told(service: Service) -> None:
    guard, told = Guard(gate()), []
    guard.admitted = lambda *what: told.append(what)
    asking = call("good")
    guard.guarded(service.methods).unary[INFER](infer("shop"), asking)
    ((message, found, caller, values),) = told
    assert (message, found, values) == (infer("shop"), asking, ["Bearer good"])
    assert isinstance(caller, Caller)
    guard.guarded(service.methods).unary[READY](b"", call("good"))
    assert len(told) == 1


def lines(logs: list[Any]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in each.items() if k not in ("event", "log_level")} for each in logs if each["event"] == EVENT
    ]


def test_each_control_action_leaves_one_line(service: Service, methods: Methods) -> None:
    with capture_logs() as logs:
        methods.unary[LOAD](LOAD_MESSAGE, call(peer=ADMIN))
        service.error = NotFoundError("no such model")
        with pytest.raises(NotFoundError):
            methods.unary[LOAD](LOAD_MESSAGE, call(peer=ADMIN))
        with pytest.raises(DeniedError):
            methods.unary[LOAD](LOAD_MESSAGE, call("good"))
        with pytest.raises(UnauthenticatedError):
            methods.unary[LOAD](LOAD_MESSAGE, call())
        service.error = None
        methods.unary[LOG](b"", call("good"))
    load = {"action": "RepositoryModelLoad", "model": "shop"}
    assert lines(logs) == [
        {"who": ADMIN[0], **load, "result": "done"},
        {"who": ADMIN[0], **load, "result": "no such model"},
        {"who": "token:shop", **load, "result": "the caller has no right to control here"},
    ]


def test_also_when_its_caller_leaves_or_it_is_answered_later(service: Service, methods: Methods) -> None:
    unload = methods.unary[OIP + "RepositoryModelUnload"]
    with capture_logs() as logs:
        asking = call(peer=ADMIN)
        unload(b"", asking)
        asking.leave()
        unload(b"", call(peer=ADMIN))
        service.held[-1].fail(DeniedError("not here"))
    assert [line["result"] for line in lines(logs)] == ["its caller left", "not here"]
    assert service.got == [b"cancelled"]


def test_without_rules_control_is_still_written_down(service: Service) -> None:
    methods = Guard(None).guarded(service.methods)
    assert methods.streams == service.methods.streams
    assert methods.unary[INFER] == service.methods.unary[INFER]
    with capture_logs() as logs:
        methods.unary[LOAD](LOAD_MESSAGE, call())
        methods.unary[LOAD](LOAD_MESSAGE, call(peer=ADMIN))
        methods.unary[LOG](b"", call())
    assert [line["who"] for line in lines(logs)] == ["anybody", ADMIN[0]]
