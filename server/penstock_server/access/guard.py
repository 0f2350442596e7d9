"""Guards the gRPC methods: each handler gets only calls that its caller may make.

It wraps the table that every transport serves, so no transport knows a rule. A stream is asked for each of its messages,
so that what was allowed when it began ends when the token does. Calls that control the server are written down.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from penstock_server.access.audit import Audited
from penstock_server.access.gate import AccessGate, Caller
from penstock_server.access.methods import CONTROLS, Need, need_of
from penstock_server.access.settings import ANYBODY
from penstock_server.call import Call
from penstock_server.errors import PenstockError, UnauthenticatedError
from penstock_server.transport.interface import (
    Methods,
    Refused,
    StreamHandler,
    StreamReceiver,
    UnaryHandler,
    ignore_refusal,
)

ResultT = TypeVar("ResultT")

AUTHORIZATION: Final = "authorization"
Admitted = Callable[[bytes, Call, Caller, list[str]], None]
"""Learns of an inference that was allowed, after its handler has had it: the message, the call, its caller, and what its header
has."""


class Guard:
    """Lets calls through to their handlers, or refuses them.

    Args:
        gate: knows the rules; None where callers are not asked who they are, and then control is only written down.
        refused: counts refusals.

    Attributes:
        admitted: learns of each unary inference that was allowed; None for nobody.
    """

    def __init__(self, gate: AccessGate | None, *, refused: Refused = ignore_refusal) -> None:
        self._gate = gate
        self._refused = refused
        self.admitted: Admitted | None = None

    def guarded(self, methods: Methods) -> Methods:
        """The same methods, guarded."""
        gate = self._gate
        if gate is None:
            return Methods(
                {path: self._audited(path, handler) for path, handler in methods.unary.items()},
                methods.streams,
                methods.during_drain,
            )
        return Methods(
            {path: self._unary(gate, path, handler) for path, handler in methods.unary.items()},
            {path: self._stream(gate, path, handler) for path, handler in methods.streams.items()},
            methods.during_drain,
        )

    def _audited(self, path: str, handler: UnaryHandler) -> UnaryHandler:
        def handle(message: bytes, call: Call) -> None:
            need = need_of(path, message)
            if need.verb == "control":
                _write_down(handler, message, _audited(call, path, need, (*call.peer(), ANYBODY)[0]))
            else:
                handler(message, call)

        return handle if path in CONTROLS else handler

    def _unary(self, gate: AccessGate, path: str, handler: UnaryHandler) -> UnaryHandler:
        def handle(message: bytes, call: Call) -> None:
            authorization, peer = shown(call)
            caller = self._counted(lambda: gate.caller(authorization, peer))
            need = self._counted(lambda: need_of(path, message))

            def checked(message: bytes, call: Call) -> None:
                self._counted(lambda: _check(gate, caller, need))
                handler(message, call)

            if need.verb == "control":
                _write_down(checked, message, _audited(call, path, need, caller.identity.name))
                return
            checked(message, call)
            if self.admitted is not None and need.verb == "infer":
                self.admitted(message, call, caller, authorization)

        return handle

    def _stream(self, gate: AccessGate, path: str, handler: StreamHandler) -> StreamHandler:
        def open_stream(call: Call) -> StreamReceiver:
            self._counted(lambda: gate.caller(*shown(call)))  # a token that is not valid opens none
            receiver = handler(call)

            def receive(message: bytes | None) -> None:
                if message is not None:
                    self._counted(lambda: _check(gate, gate.caller(*shown(call)), need_of(path, message)))
                receiver(message)

            return receive

        return open_stream

    def _counted(self, ask: Callable[[], ResultT]) -> ResultT:
        """What is asked for; a refusal is counted."""
        try:
            return ask()
        except PenstockError as error:
            self._refused(error)
            raise


def shown(call: Call) -> tuple[list[str], tuple[str, ...]]:
    """What a caller shows of who it is: the values of its header, and the names of its verified certificate."""
    # In no transport is this header's value bytes; what is none would be no token either.
    return [str(value) for name, value in call.metadata() if name == AUTHORIZATION], call.peer()


def _check(gate: AccessGate, caller: Caller, need: Need) -> None:
    if need.verb is not None:
        gate.check(caller, need.verb, need.model)


def _audited(call: Call, path: str, need: Need, who: str) -> Audited:
    return Audited(call, who=who, action=path.rpartition("/")[2], model=need.model or "")


def _write_down(handler: UnaryHandler, message: bytes, call: Audited) -> None:
    """Hands a call to its handler, and has it written down if that refuses it at once.

    Of those who are not known nothing is written here: they could fill the log.
    """
    try:
        handler(message, call)
    except UnauthenticatedError:
        raise
    except PenstockError as error:
        call.write(str(error))
        raise
