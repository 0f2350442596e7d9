import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.tracing.context import Parent, parent_in, parent_of, trace_id_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
PARENT = Parent(int(TRACE, 16), int(SPAN, 16), is_sampled=True)


@pytest.mark.parametrize(
    ("value", "parent"),
    [
        (SAMPLED, PARENT),
        (f"00-{TRACE}-{SPAN}-00", PARENT._replace(is_sampled=False)),
        (f"00-{TRACE}-{SPAN}-03", PARENT),
        (f"00-{TRACE}-{SPAN}-fe", PARENT._replace(is_sampled=False)),
        # A later version may say more.
        (f"01-{TRACE}-{SPAN}-01", PARENT),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", PARENT),
        (f"cc-{TRACE}-{SPAN}-01what-comes", None),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"0-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN.upper()}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-0A", None),
        (f"00_{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE}{SPAN}-01", None),
        (f" {SAMPLED}", None),
        ("", None),
        (b"bytes", None),
        # Who does not trace is not asked how its numbers are formed.
        (f"00-{'x' * 32}-{SPAN}-00", Parent(0, int(SPAN, 16), is_sampled=False)),
    ],
)
def test_what_a_traceparent_says(value: str | bytes, parent: Parent | None) -> None:
    assert parent_in(value) == parent


def test_two_values_say_nothing() -> None:
    assert parent_of((("traceparent", SAMPLED),)) == PARENT
    assert parent_of((("traceparent", SAMPLED), ("traceparent", SAMPLED))) is None
    assert parent_of((("Traceparent-x", SAMPLED),)) is None


@pytest.mark.parametrize(
    ("value", "trace"),
    [(SAMPLED, TRACE), (f"00-{TRACE}-{SPAN}-00", TRACE), (f"00-{'x' * 32}-{SPAN}-00", ""), ("no", "")],
)
def test_the_trace_is_known_whether_it_is_sampled_or_not(value: str, trace: str) -> None:
    assert trace_id_of((("traceparent", value),)) == trace


@given(st.text(max_size=80))
def test_whatever_comes_is_read_or_refused(value: str) -> None:
    found = parent_in(value)
    assert found is None or len(value) >= 55
