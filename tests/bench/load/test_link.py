import selectors
import socket
from collections.abc import Iterator

import pytest

from bench.load.http1 import HttpCalls
from bench.load.link import Link, links

BODY = b"x" * 2**22


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as found:
        yield found


def is_watched_for_room(link: Link, selector: selectors.BaseSelector) -> bool:
    return any(key.data is link and key.events & selectors.EVENT_WRITE for key in selector.get_map().values())


def test_more_than_the_socket_takes_is_sent_when_there_is_room(listener, selector) -> None:
    calls = HttpCalls("/infer", "host", (BODY,))
    with links(listener.getsockname(), calls, 1, selector) as (link,):
        theirs, _ = listener.accept()
        with theirs:
            link.connection.submit(0.0)
            link.flush()
            assert is_watched_for_room(link, selector)
            expected = len(calls.requests[0])
            received = 0
            while received < expected:
                received += len(theirs.recv(2**20))
                link.flush()
            assert received == expected
            assert not is_watched_for_room(link, selector)


def test_what_arrives_is_read_until_the_server_closes(listener, selector) -> None:
    with links(listener.getsockname(), HttpCalls("/", "host", (b"",)), 1, selector) as (link,):
        theirs, _ = listener.accept()
        assert link.read() is None
        theirs.sendall(b"answer")
        theirs.close()
        found = []
        while b"" not in found:
            selector.select()
            found.append(link.read())
        assert b"".join(found) == b"answer"


def test_leaving_closes_every_connection(listener, selector) -> None:
    with links(listener.getsockname(), HttpCalls("/", "host", (b"",)), 3, selector) as opened:
        assert len(selector.get_map()) == 3
        opened[0].close()
    assert not selector.get_map()
    assert not any(link.is_open for link in opened)


def test_a_server_that_is_not_there(selector) -> None:
    with socket.socket() as bound:  # it does not listen, and keeps the port from others
        bound.bind(("127.0.0.1", 0))
        opening = links(bound.getsockname(), HttpCalls("/", "host", (b"",)), 1, selector)
        with pytest.raises(OSError, match="refused"), opening:
            pass
