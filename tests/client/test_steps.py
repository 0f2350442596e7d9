import grpc
import grpc.aio
import pytest

from penstock_client.steps import failure_of, pushback_s


class SyncError(grpc.RpcError):
    def __init__(self, trailers):
        self.trailers = trailers

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return None

    def trailing_metadata(self):
        return self.trailers


@pytest.mark.parametrize(
    ("trailers", "expected"),
    [
        (None, None),
        ((), None),
        ((("other", "5"),), None),
        ((("grpc-retry-pushback-ms", "1500"),), 1.5),
        ((("grpc-retry-pushback-ms", b"0"),), 0.0),
        ((("grpc-retry-pushback-ms", "-7"),), -1.0),
    ],
)
def test_a_failure_reads_the_pushback(trailers, expected):
    error = SyncError(trailers)
    failure = failure_of(error)
    assert (failure.code, failure.details, failure.pushback_s) == (grpc.StatusCode.UNAVAILABLE, "", expected)
    assert failure.cause is error


def test_a_failure_of_aio_reads_the_same():
    trailers = grpc.aio.Metadata(("grpc-retry-pushback-ms", "20"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailers, details="gone")
    failure = failure_of(error)
    assert (failure.details, failure.pushback_s) == ("gone", 0.02)


@pytest.mark.parametrize("trailer", ["", "soon", "1.5", b"\xff", "1e3"])
def test_a_pushback_that_is_no_integer_means_never(trailer):
    assert pushback_s(trailer) == -1.0
