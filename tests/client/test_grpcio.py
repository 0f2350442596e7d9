import grpc
import pytest

from penstock_client.grpcio import AwaitedChannelCalls, ChannelCalls, ChannelPipe

PATH = "/a.Service/Method"


@pytest.fixture
def calls(monkeypatch):
    """Another thread closes the channel between the look whether it is open and the call."""
    made = ChannelCalls("127.0.0.1:1", None, {}, ())
    unary, streams = made._method, made._channel.stream_stream

    def after_close(method):
        def found(path):
            call = method(path)
            made.close()
            return call

        return found

    monkeypatch.setattr(made, "_method", after_close(unary))
    monkeypatch.setattr(made._channel, "stream_stream", after_close(streams))
    yield made
    made.close()


def test_a_call_on_a_channel_that_is_closed_meanwhile_is_cancelled(calls):
    assert calls.call(PATH, b"", 10.0).code is grpc.StatusCode.CANCELLED


def test_so_is_one_ahead(calls):
    pipe = ChannelPipe(calls)
    assert [pipe.wait(pipe.start(PATH, b"", 10.0)).code for _ in range(2)] == [grpc.StatusCode.CANCELLED] * 2


def test_so_is_a_stream(calls):
    (failure,) = calls.stream(PATH, iter([b""]), 10.0, ())
    assert failure.code is grpc.StatusCode.CANCELLED


async def test_a_call_after_the_close_is_cancelled_in_an_event_loop_too():
    calls = AwaitedChannelCalls("127.0.0.1:1", None, {}, ())
    await calls.close()
    assert (await calls.call(PATH, b"", 10.0)).code is grpc.StatusCode.CANCELLED
