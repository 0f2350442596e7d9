import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

import grpc

from penstock_server.transport.guest import GuestThread
from tests.server.transport.test_transports import Service, running, unary

TIMEOUT_S = 10.0


class PipeGuest:
    """A guest with something to do while its pipe holds bytes; answers what runs when the test says."""

    def __init__(self) -> None:
        self.descriptor, self.writing = os.pipe()
        self.drained = threading.Event()
        self.done: SimpleQueue[str] = SimpleQueue()
        self.has_turned = threading.Event()
        self.has_looked = threading.Event()
        self.ends_by_itself = True

    def turn(self) -> None:
        os.read(self.descriptor, 1)
        self.done.put("turn")
        self.has_turned.set()

    def look_after(self) -> None:
        self.has_looked.set()

    def begin_drain(self) -> None:
        self.done.put("begin_drain")
        if self.ends_by_itself:
            self.drained.set()

    def give_up(self) -> None:
        self.done.put("give_up")
        self.drained.set()

    def close(self) -> None:
        self.done.put("close")
        os.close(self.descriptor)
        os.close(self.writing)


class Reactor:
    """Runs what is posted, on a thread of its own."""

    def __init__(self) -> None:
        self.actions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def post(self, action: Callable[[], None]) -> None:
        self.actions.put(action)

    def _run(self) -> None:
        while (action := self.actions.get()) is not None:
            assert threading.current_thread() is self.thread
            action()

    def end(self) -> None:
        self.actions.put(None)
        self.thread.join()


def drained(*, ends_by_itself: bool) -> list[str]:
    reactor, guest = Reactor(), PipeGuest()
    guest.ends_by_itself = ends_by_itself
    thread = GuestThread(guest, reactor.post)
    thread.start()
    os.write(guest.writing, b"x")
    assert guest.has_turned.wait(TIMEOUT_S)
    guest.has_looked.clear()
    assert guest.has_looked.wait(TIMEOUT_S)  # though nothing comes
    thread.drain(0.2 if not ends_by_itself else TIMEOUT_S, TIMEOUT_S / 10 if ends_by_itself else 0.1)
    reactor.end()
    found = []
    while not guest.done.empty():
        found.append(guest.done.get())
    return found


def test_turns_run_on_the_reactor_until_the_guest_is_drained() -> None:
    assert drained(ends_by_itself=True) == ["turn", "begin_drain", "close"]


def test_what_runs_too_long_is_given_up() -> None:
    assert drained(ends_by_itself=False) == ["turn", "begin_drain", "give_up", "close"]


def test_a_guest_that_fails_ends_no_call() -> None:
    """Over the native transport, whose thread it shares."""

    class Broken(PipeGuest):
        def turn(self) -> None:
            super().turn()
            raise ZeroDivisionError

        def look_after(self) -> None:
            super().look_after()
            raise ZeroDivisionError

    guest = Broken()
    with running("native", Service(), guest=guest) as (_, address):
        os.write(guest.writing, b"xx")
        assert guest.has_turned.wait(TIMEOUT_S)
        assert guest.has_looked.wait(TIMEOUT_S)
        with grpc.insecure_channel(address) as channel:
            assert unary(channel, "Echo")(b"undisturbed", timeout=TIMEOUT_S) == b"undisturbed"
