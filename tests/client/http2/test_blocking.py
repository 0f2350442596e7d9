"""Calls of threads, against grpcio's server and one that is played by the test."""

import itertools
import multiprocessing
import os
import signal
import socket
import threading
import time

import grpc
import pytest

from penstock import inference_pb2 as pb
from penstock_client.http2 import blocking, frames, link
from penstock_client.http2.blocking import DirectCalls
from penstock_client.http2.frames import frame
from penstock_client.http2.target import Target, target_of
from penstock_client.steps import Failure
from tests.client.http2.played import WAIT_S, Played, TableAnswers, answer, goaway, received

LIVE = "/inference.GRPCInferenceService/ServerLive"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STUCK = pb.ModelInferRequest(model_name="stuck").SerializeToString()
LIVE_REPLY = pb.ServerLiveResponse(live=True).SerializeToString()


def direct(address, **settings):
    target = target_of(address, None, {}, (), 2**20)
    assert isinstance(target, Target), target
    return DirectCalls(target, {}, 2**20, **settings)


@pytest.fixture
def calls(server):
    calls = direct(server.address)
    yield calls
    calls.close()


def test_one_connection_serves_one_call_after_another(calls, server):
    for _ in range(20):
        assert calls.call(LIVE, b"", 5.0) == LIVE_REPLY
    assert len(calls._links) == 1


def test_callers_at_the_same_time_have_a_connection_each_and_share_them_later(calls, server):
    failures = []

    def ask():
        failures.extend(1 for _ in range(50) if calls.call(LIVE, b"", 30.0) != LIVE_REPLY)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 1 <= len(calls._links) == len(calls._idle) <= 8


def test_few_idle_connections_are_kept(calls, monkeypatch):
    monkeypatch.setattr(blocking, "_MOST_IDLE", 2)
    links = [calls.link(time.monotonic() + 5) for _ in range(4)]
    for each in links:
        calls.give_back(each)
    assert len(calls._idle) == len(calls._links) == 2


def test_the_server_hears_that_a_deadline_has_passed_and_the_connection_goes_on(calls, server):
    begun = time.monotonic()
    end = calls.call(INFER, STUCK, 0.3)
    assert end.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.29 <= time.monotonic() - begun < 5
    assert server.ended.wait(WAIT_S)
    assert calls.call(LIVE, b"", 5.0) == LIVE_REPLY
    assert len(calls._links) == 1


def test_an_interrupt_ends_the_call_at_the_server_too(calls, server):
    class InterruptError(Exception):
        pass

    def interrupted(*_):
        raise InterruptError

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        main = threading.get_ident()
        threading.Thread(
            target=lambda: server.arrived.wait(WAIT_S) and signal.pthread_kill(main, signal.SIGUSR1)
        ).start()
        with pytest.raises(InterruptError):
            calls.call(INFER, STUCK, 60.0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert server.ended.wait(WAIT_S)
    assert calls.call(LIVE, b"", 5.0) == LIVE_REPLY


def test_a_server_that_has_gone_and_come_back_is_found_without_a_failure():
    def play(number, connected, streams):
        for stream in itertools.islice(streams, 3):
            connected.sendall(answer(stream, b"%d" % number))

    with Played(play) as played:
        calls = direct(played.address)
        replies = []
        for _ in range(7):
            replies.append(calls.call(LIVE, b"", 5.0))
            # So that the end of the connection, if there is one, has come.
            link_ = calls._idle[-1]
            if len(replies) % 3 == 0:
                link_._poll.poll(5000)
        assert replies == [b"1"] * 3 + [b"2"] * 3 + [b"3"]
        calls.close()


@pytest.mark.parametrize("ack_after", [0, 1, 2, 5, None])
def test_a_server_may_remember_headers_before_it_has_read_the_settings_and_even_afterwards(ack_after):
    """Until its acknowledgement a server keeps the table that HTTP/2 has by default; the last one ignores the settings."""
    ends = []

    def play(number, connected, streams):
        end = TableAnswers(ack_after)
        ends.append(end)
        for at, stream in enumerate(itertools.islice(streams, 8)):
            connected.sendall(end.answer(stream, b"%d %d" % (number, at // 2)))

    with Played(play) as played:
        calls = direct(played.address)
        replies = []
        for _ in range(16):
            replies.append(calls.call(LIVE, b"", 5.0))
            if len(replies) == 8:
                calls._idle[-1]._poll.poll(5000)
        assert replies == [b"%d %d" % (number, at // 2) for number in (1, 2) for at in range(8)]
        calls.close()
    # The first answer has all to remember; each later one refers to it twice.
    expected = 2 * max(0, (8 if ack_after is None else ack_after) - 1)
    assert [end.references for end in ends] == [expected, expected]


def test_a_call_that_a_stopping_server_has_not_begun_goes_to_the_next_connection():
    def play(number, connected, streams):
        stream = next(streams)
        connected.sendall(goaway(0) if number == 1 else answer(stream, b"yes"))
        next(streams, None)

    with Played(play) as played:
        calls = direct(played.address)
        assert calls.call(LIVE, b"", 5.0) == b"yes"
        assert played.connections == 2
        calls.close()


def test_a_server_that_always_stops_is_unavailable():
    def play(_, connected, streams):
        next(streams)
        connected.sendall(goaway(0))
        next(streams, None)

    with Played(play) as played:
        calls = direct(played.address)
        end = calls.call(LIVE, b"", 5.0)
        assert (end.code, played.connections) == (grpc.StatusCode.UNAVAILABLE, 5)
        calls.close()


def test_a_call_that_a_stopping_server_has_begun_is_answered_and_the_next_one_goes_elsewhere():
    def play(number, connected, streams):
        for stream in streams:
            connected.sendall(goaway(stream) + answer(stream, b"%d" % number))

    with Played(play) as played:
        calls = direct(played.address)
        assert [calls.call(LIVE, b"", 5.0) for _ in range(3)] == [b"1", b"2", b"3"]
        calls.close()


def test_a_server_that_ends_gets_no_byte_before_it_is_silent():
    heard = threading.Event()

    def play(_, connected, streams):
        stream = next(streams)
        connected.sendall(goaway(stream) + frame(frames.PING, 0, 0, bytes(8)))
        for kind, flags, *_ in received(connected):
            if kind == frames.PING and flags & frames.ACK:
                heard.set()
                connected.sendall(answer(stream, b"yes"))

    with Played(play) as played:
        calls = direct(played.address)
        begun = time.monotonic()
        assert calls.call(LIVE, b"", 10.0) == b"yes"
        assert heard.is_set()
        assert 0.9 * link.SILENT_S < time.monotonic() - begun < 5
        calls.close()


def test_a_connection_that_ends_under_a_call_makes_it_unavailable_and_no_more():
    def play(number, connected, streams):
        for stream in streams:
            if number == 1:
                return
            connected.sendall(answer(stream, b"yes"))

    with Played(play) as played:
        calls = direct(played.address)
        end = calls.call(LIVE, b"", 5.0)
        assert end.code is grpc.StatusCode.UNAVAILABLE
        assert "the server closed the connection" in end.details or "reset by peer" in end.details
        assert isinstance(end.cause, grpc.RpcError)
        assert calls.call(LIVE, b"", 5.0) == b"yes"
        calls.close()


def test_a_server_that_breaks_the_protocol_is_unavailable():
    def play(_, connected, streams):
        next(streams)
        connected.sendall(frame(frames.DATA, 0, 77, b"?"))

    with Played(play) as played:
        calls = direct(played.address)
        end = calls.call(LIVE, b"", 5.0)
        assert end.code is grpc.StatusCode.UNAVAILABLE
        assert "nobody opened" in end.details
        calls.close()


def test_a_silent_server_is_asked_for_a_sign_of_life_and_given_up(monkeypatch):
    monkeypatch.setattr(link, "PING_AFTER_S", 0.2)
    monkeypatch.setattr(link, "DEAD_AFTER_S", 0.2)
    pinged = threading.Event()

    def play(_, connected, streams):
        for kind, *_ in received(connected):
            if kind == frames.PING:
                pinged.set()

    with Played(play) as played:
        calls = direct(played.address)
        begun = time.monotonic()
        end = calls.call(LIVE, b"", 30.0)
        assert (end.code, end.details) == (grpc.StatusCode.UNAVAILABLE, "the server gave no sign of life")
        assert time.monotonic() - begun < 5
        assert pinged.is_set()
        calls.close()


def test_a_slow_server_that_answers_pings_is_waited_for(monkeypatch):
    monkeypatch.setattr(link, "PING_AFTER_S", 0.1)
    monkeypatch.setattr(link, "DEAD_AFTER_S", 5.0)

    def play(_, connected, streams):
        pings = 0
        for kind, flags, _, payload in received(connected):
            if kind == frames.PING and not flags:
                pings += 1
                connected.sendall(frame(frames.PING, frames.ACK, 0, payload))
                if pings == 3:
                    connected.sendall(answer(1, b"late"))

    with Played(play) as played:
        calls = direct(played.address)
        assert calls.call(LIVE, b"", 30.0) == b"late"
        calls.close()


def test_silence_adds_up_over_calls_that_time_out(monkeypatch):
    monkeypatch.setattr(link, "PING_AFTER_S", 0.25)
    monkeypatch.setattr(link, "DEAD_AFTER_S", 0.25)
    with Played(lambda _, connected, streams: list(streams)) as played:
        calls = direct(played.address)
        codes = []
        while grpc.StatusCode.UNAVAILABLE not in codes:
            codes.append(calls.call(LIVE, b"", 0.1).code)
            assert len(codes) < 50
        assert codes[:3] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
        calls.close()


def test_a_request_that_nobody_reads_ends_at_the_deadline():
    stop, has_let_go = threading.Event(), threading.Event()

    def play(_, connected, streams):
        connected.sendall(frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31 - 1}))
        connected.sendall(frames.window_update(0, 2**30))
        if not stop.wait(WAIT_S):
            has_let_go.set()

    with Played(play) as played:
        calls = direct(played.address)
        assert calls.call(LIVE, b"", 0.2).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert calls.call(LIVE, b"x" * 2**26, 0.5).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not has_let_go.is_set()
        assert not calls._links
        stop.set()
        calls.close()


def test_a_deadline_among_calls_that_overlap_costs_no_other_although_the_socket_is_full(monkeypatch):
    def play(_, connected, streams):
        for stream in streams:
            if stream != 3:
                connected.sendall(answer(stream, b"%d" % stream))

    room, sent = [10**9], link.Link._sent

    def limited(own, data):
        taken = sent(own, data[: room[0]]) if room[0] else 0
        room[0] -= taken
        return taken

    monkeypatch.setattr(link.Link, "_sent", limited)
    with Played(play) as played:
        calls = direct(played.address)
        pipe = calls.pipe(8)
        assert pipe.wait(pipe.start(LIVE, b"", 5.0)) == b"1"
        # The socket takes a part of a frame, and then nothing for a while.
        room[0] = 20
        slow = pipe.start(LIVE, b"", 0.2)
        others = [pipe.start(LIVE, b"x" * 1000, 20.0) for _ in range(3)]
        assert pipe.wait(slow).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert pipe._link.lost is None
        assert pipe._link.connection.has_output
        room[0] = 10**9
        assert [pipe.wait(each) for each in others] == [b"5", b"7", b"9"]
        room[0] = 20
        late = pipe.start(LIVE, b"", 0.1)
        assert pipe.wait(late).code is grpc.StatusCode.DEADLINE_EXCEEDED
        pipe.close()
        # What was not taken would keep the next caller waiting.
        assert not calls._idle
        calls.close()


def test_closing_ends_the_calls_of_other_threads(server):
    calls = direct(server.address)
    ends = []
    thread = threading.Thread(target=lambda: ends.append(calls.call(INFER, STUCK, 60.0)))
    thread.start()
    assert server.arrived.wait(WAIT_S)
    calls.close()
    thread.join(WAIT_S)
    assert [(end.code, end.details) for end in ends] == [
        (grpc.StatusCode.CANCELLED, "the client was closed during the call")
    ]
    assert calls.call(LIVE, b"", 5.0).code is grpc.StatusCode.CANCELLED
    assert not calls._links


def test_no_server_is_unavailable_and_a_deadline_while_connecting_is_one():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        calls = direct(f"127.0.0.1:{bound.getsockname()[1]}")
        end = calls.call(LIVE, b"", 5.0)
        assert end.code is grpc.StatusCode.UNAVAILABLE
        assert "failed to connect to 127.0.0.1" in end.details
        bound.listen(0)
        with socket.create_connection(bound.getsockname()), socket.socket() as second:
            # The queue of connections is full now, so that another attempt hangs.
            second.setblocking(False)
            second.connect_ex(bound.getsockname())
            assert calls.call(LIVE, b"", 0.3).code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_unknown_host_is_unavailable():
    end = direct("nowhere.invalid:1").call(LIVE, b"", 20.0)
    assert end.code is grpc.StatusCode.UNAVAILABLE


def test_the_next_address_is_tried(server, monkeypatch):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        places = [(socket.AF_INET, bound.getsockname()), (socket.AF_INET, ("127.0.0.1", server.port))]
        monkeypatch.setattr(Target, "_places", lambda _: places)
        calls = direct(server.address)
        assert calls.call(LIVE, b"", 5.0) == LIVE_REPLY
        calls.close()


def test_a_forked_process_has_connections_of_its_own(calls):
    assert calls.call(LIVE, b"", 5.0) == LIVE_REPLY
    descriptor = next(iter(calls._links))._socket.fileno()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    pid = os.fork()
    if not pid:
        # Nothing of the test's own may run in the child.
        try:
            try:
                os.fstat(descriptor)
                is_open = True
            except OSError:
                is_open = False
            theirs.send((is_open, calls.call(LIVE, b"", 10.0), len(calls._links)))
        finally:
            os._exit(0)
    assert ours.poll(WAIT_S)
    assert ours.recv() == (False, LIVE_REPLY, 1)
    os.waitpid(pid, 0)
    assert calls.call(LIVE, b"", 5.0) == LIVE_REPLY
    assert len(calls._links) == 1


def test_bytes_of_a_stopping_server_are_read_although_it_takes_no_more():
    closed = threading.Event()

    def play(number, connected, streams):
        stream = next(streams)
        if number == 1:
            connected.sendall(answer(stream, b"first"))
            stream = next(streams)
            connected.sendall(goaway(stream - 2))
            connected.shutdown(socket.SHUT_WR)
            closed.set()
            list(streams)
        else:
            connected.sendall(answer(stream, b"second"))
            next(streams, None)

    with Played(play) as played:
        calls = direct(played.address)
        assert calls.call(LIVE, b"", 5.0) == b"first"
        assert calls.call(LIVE, b"", 5.0) == b"second"
        assert closed.wait(5.0)
        calls.close()


def test_failures_are_the_clients_own_kind(calls, server):
    end = calls.call(INFER, pb.ModelInferRequest(model_name="no").SerializeToString(), 5.0)
    assert isinstance(end, Failure)
    assert (end.code, end.details) == (grpc.StatusCode.NOT_FOUND, "no model 'no' is served")


def test_a_socket_file_and_ipv6_do(tmp_path):
    def play(_, connected, streams):
        for stream in streams:
            connected.sendall(answer(stream, b"yes"))

    path = tmp_path / "server.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    six = socket.create_server(("::1", 0), family=socket.AF_INET6) if socket.has_ipv6 else None
    with Played(play, listener):
        calls = direct(f"unix:{path}")
        assert [calls.call(LIVE, b"", 5.0) for _ in range(3)] == [b"yes"] * 3
        calls.close()
    if six is not None:
        with Played(play, six):
            calls = direct(f"[::1]:{six.getsockname()[1]}")
            assert calls.call(LIVE, b"", 5.0) == b"yes"
            calls.close()
