"""Calls of tasks, against grpcio's server and one that is played by the test."""

import asyncio
import itertools
import socket
import struct
import threading

import grpc
import pytest
import uvloop

from penstock import inference_pb2 as pb
from penstock_client.http2 import frames, link
from penstock_client.http2.awaiting import AwaitedCalls
from penstock_client.http2.frames import frame
from penstock_client.http2.target import Target, target_of
from penstock_client.steps import Failure
from tests.client.http2.played import WAIT_S, Played, TableAnswers, answer, goaway, received

LIVE = "/inference.GRPCInferenceService/ServerLive"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STUCK = pb.ModelInferRequest(model_name="stuck").SerializeToString()
LIVE_REPLY = pb.ServerLiveResponse(live=True).SerializeToString()


def direct(address):
    target = target_of(address, None, {}, (), 2**20)
    assert isinstance(target, Target), target
    return AwaitedCalls(target, {}, 2**20)


@pytest.fixture
async def calls(server):
    calls = direct(server.address)
    yield calls
    await calls.close()


async def until(event):
    assert await asyncio.to_thread(event.wait, WAIT_S)


async def gone(connection):
    for _ in range(5000):
        if connection.lost is not None:
            return
        await asyncio.sleep(0.001)


async def test_all_calls_share_a_connection(calls):
    assert await asyncio.gather(*(calls.call(LIVE, b"", 10.0) for _ in range(50))) == [LIVE_REPLY] * 50
    assert await calls.call(LIVE, b"", 10.0) == LIVE_REPLY
    assert len(calls._links) == 1


async def test_the_server_hears_that_a_deadline_has_passed_and_the_connection_goes_on(calls, server):
    end = await calls.call(INFER, STUCK, 0.3)
    assert (end.code, end.details) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    await until(server.ended)
    assert await calls.call(LIVE, b"", 5.0) == LIVE_REPLY
    assert len(calls._links) == 1


async def test_a_task_that_is_cancelled_cancels_its_call_alone(calls, server):
    task = asyncio.create_task(calls.call(INFER, STUCK, 60.0))
    await until(server.arrived)
    task.cancel()
    assert await calls.call(LIVE, b"", 5.0) == LIVE_REPLY
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(server.ended)


async def test_who_leaves_while_connecting_leaves_the_connection_to_others(calls):
    first = asyncio.create_task(calls.call(LIVE, b"", 10.0))
    others = [asyncio.create_task(calls.call(LIVE, b"", 10.0)) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [LIVE_REPLY] * 3
    assert len(calls._links) == 1


async def test_a_server_that_has_gone_and_come_back_is_found():
    def play(number, connected, streams):
        for stream in itertools.islice(streams, 2):
            connected.sendall(answer(stream, b"%d" % number))

    with Played(play) as played:
        calls = direct(played.address)
        replies = []
        for _ in range(5):
            replies.append(await calls.call(LIVE, b"", 5.0))
            if len(replies) % 2 == 0:
                await gone(calls._link)
        assert replies == [b"1", b"1", b"2", b"2", b"3"]
        await calls.close()


@pytest.mark.parametrize("ack_after", [0, 3, None])
async def test_a_server_may_remember_headers_before_it_has_read_the_settings_and_even_afterwards(ack_after):
    ends = []

    def play(number, connected, streams):
        end = TableAnswers(ack_after)
        ends.append(end)
        for stream in streams:
            connected.sendall(end.answer(stream, b"%d" % stream))

    with Played(play) as played:
        calls = direct(played.address)
        replies = await asyncio.gather(*(calls.call(LIVE, b"", 5.0) for _ in range(8)))
        assert sorted(replies) == sorted(b"%d" % stream for stream in range(1, 17, 2))
        await calls.close()
    assert played.connections == 1
    assert (ends[0].references > 0) is (ack_after != 0)


async def test_calls_that_a_stopping_server_has_not_begun_go_to_the_next_connection():
    def play(number, connected, streams):
        first = next(streams)
        second = next(streams)
        if number == 1:
            connected.sendall(goaway(first) + answer(first, b"first"))
            next(streams, None)
        else:
            connected.sendall(answer(first, b"x") + answer(second, b"y"))
            next(streams, None)

    with Played(play) as played:
        calls = direct(played.address)
        one = asyncio.create_task(calls.call(LIVE, b"", 5.0))
        others = [asyncio.create_task(calls.call(LIVE, b"", 5.0)) for _ in range(2)]
        assert await one == b"first"
        assert sorted(await asyncio.gather(*others)) == [b"x", b"y"]
        assert played.connections == 2
        await calls.close()


async def test_a_server_that_ends_gets_no_byte_before_it_is_silent():
    def play(_, connected, streams):
        stream = next(streams)
        connected.sendall(goaway(stream) + frame(frames.PING, 0, 0, bytes(8)))
        for kind, flags, *_ in received(connected):
            if kind == frames.PING and flags & frames.ACK:
                connected.sendall(answer(stream, b"yes"))

    with Played(play) as played:
        calls = direct(played.address)
        begun = calls._loop.time()
        assert await calls.call(LIVE, b"", 10.0) == b"yes"
        assert 0.9 * link.SILENT_S < calls._loop.time() - begun < 5
        await calls.close()


async def test_a_server_that_always_stops_is_unavailable():
    def play(_, connected, streams):
        next(streams)
        connected.sendall(goaway(0))
        next(streams, None)

    with Played(play) as played:
        calls = direct(played.address)
        end = await calls.call(LIVE, b"", 5.0)
        assert (end.code, played.connections) == (grpc.StatusCode.UNAVAILABLE, 5)
        await calls.close()


@pytest.mark.parametrize("last", [b"", frame(frames.DATA, 0, 77, b"?")])
async def test_a_connection_that_ends_or_cannot_be_used_fails_all_its_calls(last):
    def play(number, connected, streams):
        if number == 1:
            list(itertools.islice(streams, 3))
            connected.sendall(last)
        else:
            for stream in streams:
                connected.sendall(answer(stream, b"yes"))

    with Played(play) as played:
        calls = direct(played.address)
        ends = await asyncio.gather(*(calls.call(LIVE, b"", 5.0) for _ in range(3)))
        assert [end.code for end in ends] == [grpc.StatusCode.UNAVAILABLE] * 3
        assert isinstance(ends[0].cause, grpc.RpcError)
        assert await calls.call(LIVE, b"", 5.0) == b"yes"
        await calls.close()


async def test_an_answer_that_came_before_the_connection_broke_is_read():
    asked, broken = threading.Event(), threading.Event()

    def play(number, connected, streams):
        stream = next(streams)
        if number == 1:
            asked.wait(WAIT_S)
            connected.sendall(answer(stream, b"first") + goaway(stream))
            # Closes with a reset, as a server does that has not read all.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connected.close()
            broken.set()
        else:
            connected.sendall(answer(stream, b"second"))
            next(streams, None)

    with Played(play) as played:
        calls = direct(played.address)
        first = asyncio.create_task(calls.call(LIVE, b"", 5.0))
        for _ in range(5000):
            if calls._link is not None and calls._link._waiting:
                break
            await asyncio.sleep(0.001)
        calls._link.flush()
        second = asyncio.create_task(calls.call(LIVE, b"", 5.0))
        await asyncio.sleep(0)
        # The loop stands still, and writes before it reads.
        asked.set()
        assert broken.wait(WAIT_S)
        assert await asyncio.gather(first, second) == [b"first", b"second"]
        await calls.close()


async def test_a_silent_server_is_asked_for_a_sign_of_life_and_given_up(monkeypatch):
    monkeypatch.setattr(link, "PING_AFTER_S", 0.2)
    monkeypatch.setattr(link, "DEAD_AFTER_S", 0.2)
    pings = []

    def play(_, connected, streams):
        pings.extend(kind for kind, *_ in received(connected) if kind == frames.PING)

    with Played(play) as played:
        calls = direct(played.address)
        end = await asyncio.wait_for(calls.call(LIVE, b"", 60.0), WAIT_S)
        assert (end.code, end.details) == (grpc.StatusCode.UNAVAILABLE, "the server gave no sign of life")
        await calls.close()
    assert pings


async def test_a_slow_server_that_answers_pings_is_waited_for(monkeypatch):
    monkeypatch.setattr(link, "PING_AFTER_S", 0.1)
    monkeypatch.setattr(link, "DEAD_AFTER_S", 1.0)

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
        assert await calls.call(LIVE, b"", 30.0) == b"late"
        await calls.close()


async def test_silence_adds_up_over_calls_that_time_out(monkeypatch):
    monkeypatch.setattr(link, "PING_AFTER_S", 0.25)
    monkeypatch.setattr(link, "DEAD_AFTER_S", 0.25)
    with Played(lambda _, connected, streams: list(streams)) as played:
        calls = direct(played.address)
        codes = []
        while grpc.StatusCode.UNAVAILABLE not in codes:
            codes.append((await calls.call(LIVE, b"", 0.1)).code)
            assert len(codes) < 50
        assert codes[:3] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
        await calls.close()


async def test_closing_ends_calls_with_an_error_and_no_cancellation(server):
    calls = direct(server.address)
    task = asyncio.create_task(calls.call(INFER, STUCK, 60.0))
    await until(server.arrived)
    await calls.close()
    end = await task
    assert (end.code, end.details) == (grpc.StatusCode.CANCELLED, "the client was closed during the call")
    assert (await calls.call(LIVE, b"", 5.0)).code is grpc.StatusCode.CANCELLED


async def test_no_server_is_unavailable_and_a_deadline_while_connecting_is_one():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        calls = direct(f"127.0.0.1:{bound.getsockname()[1]}")
        end = await calls.call(LIVE, b"", 5.0)
        assert isinstance(end, Failure)
        assert end.code is grpc.StatusCode.UNAVAILABLE
        assert "failed to connect to 127.0.0.1" in end.details
        bound.listen(0)
        with socket.create_connection(bound.getsockname()), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(bound.getsockname())
            assert (await calls.call(LIVE, b"", 0.3)).code is grpc.StatusCode.DEADLINE_EXCEEDED
            await calls.close()


async def test_large_messages_pass_both_ways():
    payload = bytes(range(256)) * 4000

    def play(_, connected, streams):
        connected.sendall(frames.window_update(0, 2**25) + frames.settings({frames.INITIAL_WINDOW_SIZE: 2**25}))
        stream = next(streams)
        chunks = b"\0" + len(payload).to_bytes(4, "big") + payload
        begun, *_ = answer(stream, b"").partition(frame(frames.DATA, 0, stream, bytes(5)))
        connected.sendall(begun)
        for at in range(0, len(chunks), 16_384):
            connected.sendall(frame(frames.DATA, 0, stream, chunks[at : at + 16_384]))
        connected.sendall(answer(stream, b"").removeprefix(begun + frame(frames.DATA, 0, stream, bytes(5))))
        next(streams, None)

    with Played(play) as played:
        calls = direct(played.address)
        assert await calls.call(LIVE, payload, 10.0) == payload
        await calls.close()


async def test_the_next_address_is_tried(server, monkeypatch):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        calls = direct(server.address)

        async def two(*_, **__):
            places = [bound.getsockname(), ("127.0.0.1", server.port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr(calls._loop, "getaddrinfo", two)
        assert await calls.call(LIVE, b"", 5.0) == LIVE_REPLY
        await calls.close()


def test_uvloops_loop_does(server):
    async def ask():
        calls = direct(server.address)
        replies = await asyncio.gather(*(calls.call(LIVE, b"", 5.0) for _ in range(5)))
        late = await calls.call(INFER, STUCK, 0.3)
        await calls.close()
        return replies, late.code

    assert uvloop.run(ask()) == ([LIVE_REPLY] * 5, grpc.StatusCode.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_socket_file_does(tmp_path, run):
    path = tmp_path / "server.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))

    def play(_, connected, streams):
        for stream in streams:
            connected.sendall(answer(stream, b"yes"))

    async def ask():
        calls = direct(f"unix:{path}")
        replies = [await calls.call(LIVE, b"", 5.0) for _ in range(3)]
        await calls.close()
        return replies

    with Played(play, listener):
        assert run(ask()) == [b"yes"] * 3
