from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import NotFoundError
from penstock_server.rest.http import BadRequestError
from penstock_server.rest.paths import TABLE, TARGET_BYTES, find


@pytest.mark.parametrize(
    ("method", "target", "name", "captured"),
    [
        (b"GET", b"/", "index", {}),
        (b"HEAD", b"/v2/health/live", "server_live", {}),
        (b"GET", b"/v2", "server_metadata", {}),
        (b"POST", b"/v2/models/m/infer", "infer", {"model": "m"}),
        (
            b"POST",
            b"/v2/models/a%20b%2Fc/versions/%40champion/infer",
            "infer",
            {"model": "a b/c", "version": "@champion"},
        ),
        (b"GET", b"/v2/models/stats", "statistics", {}),
        (b"GET", b"/v2/models/m/stats?x=1", "statistics", {"model": "m"}),
        (b"POST", b"/v1/models/m:predict", "predict_instances", {"model": "m"}),
        (b"POST", b"/v1/models/a:b:predict", "predict_instances", {"model": "a:b"}),
        (b"POST", b"/v1/models/m/versions/2:predict", "predict_instances", {"model": "m", "version": "2"}),
        (b"GET", b"/v1/models/m", "model_ready", {"model": "m"}),
        (b"GET", b"http://host:80/v2/models", "models", {}),
        (b"GET", b"http://host", "index", {}),
        (b"POST", b"/v2/cudasharedmemory/region/r/register", "cuda_shared_memory_register", {"region": "r"}),
    ],
)
def test_a_path_finds_what_answers_it(method: bytes, target: bytes, name: str, captured: dict[str, str]) -> None:
    found = find(method, target)
    assert (found.name, found.captured) == (name, captured)


def test_the_query_is_read() -> None:
    assert find(b"POST", b"/predict/m?version=%402&explain&a=1&a=2").query == {"version": "@2", "explain": "", "a": "2"}


@pytest.mark.parametrize("target", [b"/v2/nothing", b"/v2/models//infer", b"*", b"//", b"/v2/models/"])
def test_a_path_that_nothing_answers_is_said(target: bytes) -> None:
    with pytest.raises(NotFoundError, match=r"there is no .* here; GET / says what there is"):
        find(b"GET", target)


@pytest.mark.parametrize(
    ("method", "target", "status", "said"),
    [
        (b"DELETE", b"/v2/models/m", 405, "does not answer DELETE, expected GET, HEAD"),
        (b"GET", b"/v2/models/m/infer", 405, "does not answer GET, expected POST"),
        (b"GET", b"/v2/models/%ff", 400, "not UTF-8"),
        (b"GET", b"/v2/models?a=%ff", 400, "not UTF-8"),
        (b"GET", b"/?" + b"a=1&" * 60, 400, "percent form"),
        (b"GET", b"/" + b"a" * TARGET_BYTES, 414, "more than 4,096 bytes"),
    ],
)
def test_a_target_that_cannot_be_answered_is_refused(method: bytes, target: bytes, status: int, said: str) -> None:
    with pytest.raises(BadRequestError, match=said) as caught:
        find(method, target)
    assert caught.value.status == status
    assert (b"allow: " in caught.value.more) == (status == 405)


@given(st.sampled_from([b"GET", b"POST", b"BREW"]), st.binary(max_size=60))
def test_any_target_is_found_or_refused(method: bytes, target: bytes) -> None:
    names = {name for _, _, name in TABLE}
    with suppress(NotFoundError, BadRequestError):
        assert find(method, b"/" + target).name in names
