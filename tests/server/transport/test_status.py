import grpc
import pytest

from penstock_server import errors
from penstock_server.errors import PenstockError
from penstock_server.transport.status import status_of

CODES = {
    errors.InvalidInputError: (grpc.StatusCode.INVALID_ARGUMENT, 3),
    errors.NotFoundError: (grpc.StatusCode.NOT_FOUND, 5),
    errors.NotReadyError: (grpc.StatusCode.UNAVAILABLE, 14),
    errors.OverloadedError: (grpc.StatusCode.RESOURCE_EXHAUSTED, 8),
    errors.DeadlinePassedError: (grpc.StatusCode.DEADLINE_EXCEEDED, 4),
    errors.ModelFailedError: (grpc.StatusCode.INTERNAL, 13),
    errors.UnavailableError: (grpc.StatusCode.UNAVAILABLE, 14),
    errors.UnsupportedError: (grpc.StatusCode.UNIMPLEMENTED, 12),
}


@pytest.mark.parametrize("kind", CODES)
def test_an_error_keeps_its_words_and_gets_its_code(kind: type[PenstockError]) -> None:
    status = status_of(kind("expected 3, got 2"))
    assert (status.code, status.number) == CODES[kind]
    assert status.details == "expected 3, got 2"


def test_every_meaning_has_a_code() -> None:
    own = {kind for kind in PenstockError.__subclasses__() if kind.__module__ == PenstockError.__module__}
    assert own == set(CODES)


def test_what_has_no_meaning_shows_nothing() -> None:
    class Secret(errors.InvalidInputError):
        pass

    for error in (PenstockError("secret"), Secret("secret")):
        assert (status_of(error).code, status_of(error).details) == (grpc.StatusCode.INTERNAL, "internal error")


@pytest.mark.parametrize("kind", CODES)
def test_only_overload_forbids_another_try(kind: type[PenstockError]) -> None:
    expected = (("grpc-retry-pushback-ms", "-1"),) if kind is errors.OverloadedError else ()
    assert status_of(kind("")).trailers == expected
