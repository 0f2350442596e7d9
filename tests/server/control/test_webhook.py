import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.control import webhook
from penstock_server.control.settings import WebhookSettings
from penstock_server.control.webhook import WebhookReceiver, refusal, signature
from penstock_server.control.webhook_gauges import WebhookCollector
from penstock_server.errors import InvalidInputError

SECRET = "a secret of the tests"
NOW_S = 1_700_000_000.0
BODY = json.dumps({"entity": "model_version_alias", "action": "created", "data": {"name": "m"}}).encode()


def headers(
    delivery: str = "one", moment: str = "1700000000", body: bytes = BODY, secret: str = SECRET
) -> dict[str, str]:
    return {
        "x-mlflow-delivery-id": delivery,
        "x-mlflow-timestamp": moment,
        "x-mlflow-signature": signature(secret, delivery, moment, body),
    }


def checked(found: dict[str, str], body: bytes = BODY, secret: str = SECRET) -> str:
    return refusal(secret, found, body, now_s=NOW_S, tolerance_s=300.0)


def test_the_signature_is_mlflows() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    for secret, body in ((SECRET, BODY.decode()), ("ключ " * 5, '{"name": "модель"}')):
        assert signature(secret, "id", "1700000000", body.encode()) == _generate_hmac_signature(
            secret, "id", "1700000000", body
        )


@pytest.mark.parametrize(
    ("found", "body", "secret", "why"),
    [
        (headers(), BODY, SECRET, ""),
        (headers(moment="1700000300"), BODY, SECRET, ""),
        (headers(moment="1699999700"), BODY, SECRET, ""),
        (headers(moment="1700000301"), BODY, SECRET, "the timestamp is more than 300 s"),
        (headers(moment="1699999699"), BODY, SECRET, "the timestamp is more than 300 s"),
        (headers(), BODY + b" ", SECRET, "the signature is not"),
        (headers(), BODY, SECRET + "!", "the signature is not"),
        (headers() | {"x-mlflow-delivery-id": "two"}, BODY, SECRET, "the signature is not"),
        (headers() | {"x-mlflow-timestamp": "1700000001"}, BODY, SECRET, "the signature is not"),
        (headers() | {"x-mlflow-signature": "v1,\xff"}, BODY, SECRET, "the signature is not"),
        (headers() | {"x-mlflow-signature": "sha256=00"}, BODY, SECRET, "the signature is not"),
        (headers() | {"x-mlflow-signature": ""}, BODY, SECRET, "expected the headers"),
        ({}, BODY, SECRET, "expected the headers"),
        (headers(delivery="x" * 201), BODY, SECRET, "expected a short delivery id"),
        (headers(moment="-1"), BODY, SECRET, "expected a short delivery id"),
        (headers(moment="nan"), BODY, SECRET, "expected a short delivery id"),
        (headers(moment="1" * 13), BODY, SECRET, "expected a short delivery id"),
        (headers(moment="\u0661"), BODY, SECRET, "expected a short delivery id"),
    ],
)
def test_only_what_is_genuine_and_fresh_is_taken(found: dict[str, str], body: bytes, secret: str, why: str) -> None:
    said = checked(found, body, secret)
    assert said.startswith(why)
    assert bool(said) == bool(why)


@given(st.data())
def test_no_changed_byte_is_taken(data: Any) -> None:
    at = data.draw(st.integers(0, len(BODY) - 1))
    changed = bytearray(BODY)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert checked(headers(), bytes(changed))


@given(st.dictionaries(st.sampled_from(sorted(headers())), st.text(max_size=300)))
def test_no_header_is_taken_or_fails(found: dict[str, str]) -> None:
    assert checked(found)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    return file


def receiver(secret_file: Path) -> tuple[WebhookReceiver, list[str]]:
    woken: list[str] = []
    return WebhookReceiver(WebhookSettings(secret_file), lambda: woken.append("woken"), wall=lambda: NOW_S), woken


def test_each_delivery_wakes_once(secret_file: Path) -> None:
    taken, woken = receiver(secret_file)
    assert taken.receive(headers("refused") | {"x-mlflow-signature": "v1,AAAA"}, BODY)
    assert not woken
    for delivery in ("refused", "one", "one", "two", "one"):
        assert taken.receive(headers(delivery), BODY) == ""
    assert len(woken) == 3
    assert taken.counts == {"accepted": 3, "repeated": 2, "refused": 1}
    (family,) = WebhookCollector(taken.counts).collect()
    assert {one.labels["result"]: one.value for one in family.samples} == {"accepted": 3, "repeated": 2, "refused": 1}


def test_what_is_remembered_is_bounded(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "MAX_DELIVERIES", 3)
    taken, woken = receiver(secret_file)
    for delivery in "abcd":
        taken.receive(headers(delivery), BODY)
    assert len(taken._seen) == 3
    taken.receive(headers("d"), BODY)
    assert len(woken) == 4
    taken.receive(headers("a"), BODY)
    assert len(woken) == 5  # forgotten, and only polled once more


def test_the_secret_can_be_exchanged(secret_file: Path) -> None:
    taken, woken = receiver(secret_file)
    secret_file.write_text(f"{SECRET} anew")
    assert taken.receive(headers(), BODY).startswith("the signature is not")
    assert taken.receive(headers(secret=f"{SECRET} anew"), BODY) == ""
    assert len(woken) == 1
    secret_file.unlink()
    with pytest.raises(InvalidInputError, match="cannot be read"):
        taken.receive(headers("two"), BODY)


def test_what_a_body_says_changes_nothing(secret_file: Path) -> None:
    taken, woken = receiver(secret_file)
    for number in range(20):
        body = random.Random(number).randbytes(number * 100)
        assert taken.receive(headers(str(number), body=body), body) == ""
    assert len(woken) == 20


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            {"secret_env": "UNSET_OF_THE_TESTS"},
            "variable UNSET_OF_THE_TESTS holds a secret of 0 characters, expected 16",
        ),
        ({"secret_file": Path("/nowhere/secret")}, "webhook.secret_file, /nowhere/secret, cannot be read"),
    ],
)
def test_a_secret_that_is_none_is_told(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        WebhookSettings(**settings).read_secret()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"secret_env": "A", "secret_file": Path("b")}, "both secret_file and secret_env"),
        ({"tolerance_s": 0.0}, "tolerance_s is 0.0"),
        ({"tolerance_s": float("nan")}, "tolerance_s is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        WebhookSettings(**settings)
