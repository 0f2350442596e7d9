import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.transport import headers
from penstock_server.transport.status import Status, StatusCode

NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda name: not name.endswith("-bin") and name not in headers.HIDDEN
)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


@given(
    pairs=st.lists(st.tuples(NAMES, TEXTS) | st.tuples(NAMES.map(lambda name: f"{name}-bin"), st.binary()), max_size=8)
)
def test_what_is_encoded_is_decoded(pairs: list[tuple[str, str | bytes]]) -> None:
    assert list(headers.decoded(headers.encoded(pairs))) == pairs


@given(st.lists(st.tuples(NAMES, st.text(st.characters(max_codepoint=0xFF), max_size=40)), max_size=8))
def test_what_was_received_elsewhere_is_decoded_as_it_came(pairs: list[tuple[str, str | bytes]]) -> None:
    assert list(headers.decoded(headers.as_received(pairs))) == pairs


@given(st.sampled_from([each for each in StatusCode if each is not StatusCode.OK]), st.text(max_size=40))
def test_a_status_is_read_from_the_trailers_that_end_a_call(code: StatusCode, details: str) -> None:
    details = details.encode(errors="replace").decode()
    status = Status(code, details, (("grpc-retry-pushback-ms", "5"),))
    assert headers.status_in(headers.ending(status, ())) == status
    assert headers.status_in(b"").code is StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"AAE", [b"\x00\x01"]),
        (b"AAE=", [b"\x00\x01"]),
        (b"AAE=, AAE", [b"\x00\x01", b"\x00\x01"]),  # two values of one name may share a header
        (b"", [b""]),
        (b"?", [b"?"]),
    ],
)
def test_binary_metadata_come_with_and_without_padding(value: bytes, expected: list[bytes]) -> None:
    found = headers.decoded(headers.pair("x-bin", value))
    assert [got for name, got in found if name == "x-bin"] == expected


def test_what_belongs_to_the_protocol_is_not_shown() -> None:
    block = headers.pair("te", "trailers") + headers.pair("tenant", "a") + headers.pair("grpc-accept-encoding", "gzip")
    assert headers.decoded(block) == (("tenant", "a"),)


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True), ("identity,deflate,gzip", True), ("identity, gzip ", True), ("identity,deflate", False),
        ("xgzip", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_who_takes_gzip_says_so(accepted: str | None, expected: bool) -> None:
    block = headers.pair("te", "trailers") + headers.pair("x", "gzip")
    if accepted is not None:
        block += headers.pair("grpc-accept-encoding", accepted)
    assert headers.accepts_gzip(block) is expected


def fields(block: bytes) -> dict[str, str]:
    return {name: str(value) for name, value in headers.decoded(block)}


@pytest.mark.parametrize(
    ("details", "sent"),
    [
        ("", None),
        ("no such model", "no such model"),
        ("100 %", "100 %25"),
        ("modèle\n", "mod%C3%A8le%0A"),
    ],
)
def test_messages_are_escaped_as_grpc_asks(details: str, sent: str | None) -> None:
    found = fields(headers.ending(Status(StatusCode.NOT_FOUND, details), (("x", "y"),)))
    assert found.get("grpc-message") == sent
    assert (found["grpc-status"], found["x"]) == ("5", "y")
