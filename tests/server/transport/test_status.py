import grpc
import pytest

from penstock_server import errors
from penstock_server.errors import PenstockError
from penstock_server.transport.status import (
    MAX_DETAILS_BYTES,
    MAX_TRAILERS_BYTES,
    OK,
    StatusCode,
    shown,
    status_of,
    trailers_of,
)

CODES = {
    errors.InvalidInputError: (StatusCode.INVALID_ARGUMENT, 3),
    errors.NotFoundError: (StatusCode.NOT_FOUND, 5),
    errors.NotReadyError: (StatusCode.UNAVAILABLE, 14),
    errors.OverloadedError: (StatusCode.RESOURCE_EXHAUSTED, 8),
    errors.DeadlinePassedError: (StatusCode.DEADLINE_EXCEEDED, 4),
    errors.ModelFailedError: (StatusCode.INTERNAL, 13),
    errors.UnavailableError: (StatusCode.UNAVAILABLE, 14),
    errors.UnsupportedError: (StatusCode.UNIMPLEMENTED, 12),
    errors.DeniedError: (StatusCode.PERMISSION_DENIED, 7),
    errors.UnauthenticatedError: (StatusCode.UNAUTHENTICATED, 16),
    errors.LimitedError: (StatusCode.RESOURCE_EXHAUSTED, 8),
}


@pytest.mark.parametrize("kind", CODES)
def test_an_error_keeps_its_words_and_gets_its_code(kind: type[PenstockError]) -> None:
    status = status_of(kind("expected 3, got 2"))
    assert (status.code, status.number) == CODES[kind]
    assert status.details == "expected 3, got 2"


def test_the_codes_are_grpcios() -> None:
    assert {code.name: int(code) for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}


def test_every_meaning_has_a_code() -> None:
    own = {kind for kind in PenstockError.__subclasses__() if kind.__module__ == PenstockError.__module__}
    assert own == set(CODES)


def test_a_limit_says_when_to_try_again() -> None:
    for seconds, pushback in ((0.25, "250"), (0.0001, "1"), (3.0, "3000")):
        assert status_of(errors.LimitedError("too often", seconds)).trailers == (("grpc-retry-pushback-ms", pushback),)


def test_what_has_no_meaning_shows_nothing() -> None:
    class Secret(errors.InvalidInputError):
        pass

    for error in (PenstockError("secret"), Secret("secret")):
        assert (status_of(error).code, status_of(error).details) == (StatusCode.INTERNAL, "internal error")


@pytest.mark.parametrize("kind", [kind for kind in CODES if kind is not errors.LimitedError])
def test_only_overload_forbids_another_try(kind: type[PenstockError]) -> None:
    expected = (("grpc-retry-pushback-ms", "-1"),) if kind is errors.OverloadedError else ()
    assert status_of(kind("")).trailers == expected


@pytest.mark.parametrize("text", ["x" * 1025, "é" * 600, "😀" * 300, "a" + "é" * 5000, "x" * 10_000_000])
def test_details_are_bounded_and_stay_whole_characters(text: str) -> None:
    details = status_of(errors.InvalidInputError(text)).details
    assert MAX_DETAILS_BYTES - 8 <= len(details.encode()) <= MAX_DETAILS_BYTES
    assert details.endswith("...")
    assert text.startswith(details[:-3])


def test_short_details_are_whole() -> None:
    for text in ("", "x" * MAX_DETAILS_BYTES, "é" * (MAX_DETAILS_BYTES // 2), "model 'modèle' 😀", "a\nb\0"):
        assert shown(text) == text


def test_what_is_no_unicode_can_be_sent() -> None:
    assert shown("column '\ud800'") == "column '?'"


HIDDEN = "(a file of the server)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loading /tmp/cache/m/1/model.onnx failed: bad", f"loading {HIDDEN} failed: bad"),
        ("cannot read '/home/a user/x y.onnx': no", f"cannot read {HIDDEN}: no"),
        ("see file:///etc/secret, please", f"see {HIDDEN}, please"),
        ("(/usr/lib/x)", f"({HIDDEN})"),
        ("[E] /onnxruntime_src/onnxruntime/core/graph/model.cc:181 Status", f"[E] {HIDDEN} Status"),
        ("at model.cc:181 in Load", f"at {HIDDEN} in Load"),
        ("penstock_server/models/loader.py:80: no", f"{HIDDEN}: no"),
    ],
)
def test_details_name_no_place_on_the_server(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "unknown input '/encoder/layer.0/Add_output_0'; expected some of '/decoder/out'",
        "model 'a/b' is not served; served now: 'fraud', 'x.y'",
        "12 of 34 rows/s; and/or; 1/2",
        "version 3: unavailable",
        "https://example.com/usr/x",
        "input 'data.h' takes 4 columns",
        "/",
        "'/'",
    ],
)
def test_what_callers_named_is_left_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_trailers_are_bounded_as_a_whole() -> None:
    overload = status_of(errors.OverloadedError(""))
    small = (("x-a", "1"), ("x-b-bin", b"2"))
    assert trailers_of((), OK) == ()
    assert trailers_of(small, OK) == small
    assert trailers_of(small, overload) == (*overload.trailers, *small)
    many = tuple((f"x-{number}", "v" * 100) for number in range(1000))
    kept = trailers_of(many, overload)
    assert kept[0] == overload.trailers[0]
    assert 20 < len(kept) < 40
    assert sum(len(key) + len(value) + 32 for key, value in kept) <= MAX_TRAILERS_BYTES
