import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.sources import http_session, registered
from penstock_server.sources.http_session import HttpSession
from penstock_server.sources.rest_registry import RestRegistry
from tests.examples import examples
from tests.server.sources.fake_registry import API, FakeRegistry, fake_registry, refusal

SEARCH = f"{API}/registered-models/search"
GET = f"{API}/registered-models/get"


def opened(fake: FakeRegistry, **given: Any) -> RestRegistry:
    return RestRegistry(HttpSession(fake.uri, **given))


def test_models_come_with_their_aliases_and_newest_versions(fake: FakeRegistry) -> None:
    fake.register("m", "3", created=7, champion="3")
    fake.models.append({"name": "n"})
    fake.models.append({"name": "p", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]})
    found = {model.name: model for model in opened(fake).models()}
    assert found.keys() == {"m", "n"}
    assert found["m"].aliases == {"champion": "3"}
    assert found["m"].newest == "3"
    assert found["m"].versions["3"] == opened(fake).version("m", "3")
    assert (found["n"].aliases, found["n"].newest) == ({}, "")


def test_the_identity_tells_what_was_registered_anew(fake: FakeRegistry) -> None:
    identities = set()
    for change in ({}, {"created": 2}, {"source": "s3://other"}):
        fake.register("m", "1", **change)  # type: ignore[arg-type]
        identities.add(opened(fake).version("m", "1").identity)
    fake.versions["m", "1"]["run_id"] = "another"
    identities.add(opened(fake).version("m", "1").identity)
    assert len(identities) == 4
    fake.versions["m", "1"]["status"] = "FAILED_REGISTRATION"
    assert opened(fake).version("m", "1").identity in identities  # what changes later is no part of it


def test_every_page_is_read(fake: FakeRegistry) -> None:
    pages = {"": ("a", "2"), "2": ("b", "3"), "3": ("c", "")}
    fake.answers[SEARCH] = lambda query: {
        "registered_models": [{"name": pages[query.get("page_token", "")][0]}],
        "next_page_token": pages[query.get("page_token", "")][1],
    }
    assert [model.name for model in opened(fake).models()] == ["a", "b", "c"]


def test_a_list_without_an_end_is_given_up(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.answers[SEARCH] = lambda _: {"registered_models": [], "next_page_token": "again"}
    with pytest.raises(UnavailableError, match="the list has no end"):
        opened(fake).models()
    assert len(fake.calls) == 2
    monkeypatch.setattr("penstock_server.sources.registered.MAX_PAGES", 5)
    fake.answers[SEARCH] = lambda _: {"registered_models": [], "next_page_token": str(len(fake.calls))}
    with pytest.raises(UnavailableError, match="the list has no end"):
        opened(fake).models()
    assert len(fake.calls) == 7


@pytest.mark.parametrize(
    "body",
    [
        b"<html>login</html>",
        b"not json",
        b"",
        b"[1, 2]",
        b'{"registered_models": {"m": 1}}',
        b'{"registered_models": [{"name": "m", "aliases": "champion"}]}',
        b'{"registered_models": [{"name": 5}]}',
        b'{"registered_models": [{"name": "m", "aliases": [{"alias": "champion"}]}]}',
        b"[" * 100_000,
        bytes(range(256)),
    ],
)
def test_what_is_no_list_of_models_is_a_registry_that_is_away(body: bytes, fake: FakeRegistry) -> None:
    fake.answers[SEARCH] = lambda _: body
    with pytest.raises(UnavailableError, match="does not give the list of models") as caught:
        opened(fake).models()
    assert len(str(caught.value)) < 600


NAMES = ["registered_models", "name", "aliases", "alias", "version", "next_page_token", "latest_versions", "tags"]
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
)


@given(body=st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_answer_gives_anything_but_models_or_unavailable(body: bytes, fake: FakeRegistry) -> None:
    fake.answers[SEARCH] = lambda query: body if "page_token" not in query else b"{}"
    try:
        found = opened(fake).models()
    except UnavailableError:
        return
    assert all(isinstance(model, registered.RegisteredModel) for model in found)


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (
            404,
            refusal(404, "RESOURCE_DOES_NOT_EXIST")[1],
            NotFoundError,
            "model 'm' is not in the registry http://127.0",
        ),
        (403, refusal(403, "PERMISSION_DENIED")[1], InvalidInputError, "refuses model 'm': PERMISSION_DENIED: the reg"),
        (400, refusal(400, "INVALID_PARAMETER_VALUE")[1], InvalidInputError, "refuses model 'm'"),
        (404, b"<html>maintenance</html>", UnavailableError, "does not give model 'm': HTTP 404"),
        (403, b"<html>proxy</html>", UnavailableError, "does not give model 'm'"),
        (404, refusal(404, "ENDPOINT_NOT_FOUND")[1], UnavailableError, "does not give model 'm'"),
        (500, b"boom http://user:hunter2@db/x?token=hunter2", UnavailableError, "does not give model 'm'"),
        (401, b'{"error_code": "X", "message": "no http://a:hunter2@x"}', UnavailableError, "does not give model 'm'"),
        (503, b"busy", UnavailableError, "does not give model 'm'"),
        (200, b"not json", UnavailableError, "does not give model 'm'"),
    ],
)
def test_only_the_registrys_own_words_are_about_the_model(
    status: int, body: bytes, kind: type[PenstockError], said: str, fake: FakeRegistry
) -> None:
    fake.answers[GET] = lambda _: (status, body)
    with pytest.raises(PenstockError, match=said) as caught:
        opened(fake).model("m")
    assert type(caught.value) is kind
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_registry_that_hangs_is_given_up_in_time(fake: FakeRegistry) -> None:
    fake.hangs = True
    with pytest.raises(UnavailableError, match="no answer in time"):
        opened(fake, timeout_s=0.05).models()


def test_a_registry_that_drips_is_given_up_in_time(fake: FakeRegistry, fake_clock: Any) -> None:
    clock = fake_clock()

    def drip() -> Iterator[bytes]:
        while not fake.is_over.is_set():
            clock.now += 1.0
            yield b" "

    fake.answers[SEARCH] = lambda _: drip()
    with pytest.raises(UnavailableError, match="its answer takes longer than 5 s"):
        opened(fake, timeout_s=5.0, clock=clock).models()


def test_an_answer_of_any_size_takes_little(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "MAX_REPLY_BYTES", 1_000_000)
    sent = 0

    def huge() -> Iterator[bytes]:
        nonlocal sent
        while not fake.is_over.is_set():
            sent += 100_000
            yield b" " * 100_000

    fake.answers[SEARCH] = lambda _: huge()
    with pytest.raises(UnavailableError, match="its answer has more than 1,000,000 bytes"):
        opened(fake).models()


def test_an_answer_that_is_cut_short_is_none(fake: FakeRegistry) -> None:
    fake.cut_bytes = 3
    with pytest.raises(UnavailableError, match="cut short"):
        opened(fake).models()


def test_a_workspace_is_asked_by_its_header(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(fake).models()
    assert "x-mlflow-workspace" not in fake.headers
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team-a")
    opened(fake).models()
    assert fake.headers["x-mlflow-workspace"] == "team-a"
    # That says nothing about a model: it would end what is served.
    fake.answers[f"{API}/registered-models/get"] = lambda _: (
        404, b'{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Workspace \'team-a\' not found"}',
    )  # fmt: skip
    with pytest.raises(UnavailableError, match="Workspace 'team-a' not found"):
        opened(fake).model("m")


def test_a_redirect_to_another_server_is_not_followed(fake: FakeRegistry) -> None:
    with fake_registry() as other:
        fake.redirect_to = f"http://127.0.0.1:{other.server_port}/x"
        with pytest.raises(UnavailableError, match="sends us on to another server") as caught:
            opened(fake).models()
        assert other.calls == []
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("netloc", "environment", "header"),
    [
        ("host", {}, None),
        ("user:p%40ss@host", {}, "Basic dXNlcjpwQHNz"),
        ("host", {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Basic dTpw"),
        ("user:x@host", {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Basic dTpw"),
        ("host", {"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
    ],
)
def test_credentials_are_those_that_mlflow_would_use(
    netloc: str, environment: dict[str, str], header: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert http_session._of_registry(netloc).get("Authorization") == header
    if not environment and netloc == "host":
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = p%1\n"
        )
        assert http_session._of_registry(netloc)["Authorization"] == "Basic dTpwJTE="
