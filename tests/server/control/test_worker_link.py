import socket
from collections.abc import Iterator

import pytest

from penstock_server.control import messages
from penstock_server.control.messages import event, framed
from penstock_server.control.worker_link import WorkerLink
from penstock_server.frames import HEAD

COMMANDS: list[messages.Command] = [
    messages.Listen("127.0.0.1:0"), messages.Unload("m", "1"), messages.Load("m", "2", "/folder", "/counters", 3, 4),
]  # fmt: skip


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_commands_end_with_the_supervisor(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.sendall(b"".join(map(framed, COMMANDS)))
    ours.close()
    assert list(WorkerLink(theirs).commands()) == COMMANDS


@pytest.mark.parametrize("kept", [1, HEAD.size, -1])
def test_a_torn_command_is_the_end(ends: tuple[socket.socket, socket.socket], kept: int) -> None:
    ours, theirs = ends
    ours.sendall(framed(COMMANDS[0]) + framed(COMMANDS[1])[:kept])
    ours.close()
    assert list(WorkerLink(theirs).commands()) == COMMANDS[:1]


def test_events_are_whole_frames(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    link = WorkerLink(theirs)
    events: list[messages.Event] = [messages.Served(7), messages.LoadFailed("m", "1", "its digest is wrong")]
    for one in events:
        link.send(one)
    with ours.makefile("rb") as file:
        for one in events:
            (size,) = HEAD.unpack(file.read(HEAD.size))
            assert event(file.read(size)) == one


def test_an_event_for_nobody_is_dropped(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.close()
    WorkerLink(theirs).send(messages.Served(7))
    assert list(WorkerLink(theirs).commands()) == []


def test_a_reset_socket_ends_the_commands_like_a_closed_one() -> None:
    ours, theirs = socket.socketpair()
    link = WorkerLink(theirs)
    theirs.sendall(b"unread")  # what the supervisor has not read when it is killed makes the kernel reset
    ours.close()
    assert list(link.commands()) == []
