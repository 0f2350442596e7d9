import json
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.retraining.event import Event
from penstock_server.retraining.requests import HttpCall, Secrets, request_of, signature
from penstock_server.retraining.settings import ActionSettings

EVENT = Event("0af1", "2027-01-15T08:00:00.000Z", "Fraud EU", "3", "drift", "'age' has drifted", alarms={"age": "2027"})
SECRETS = Secrets("t0ken", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def made(action: ActionSettings, secrets: Secrets = SECRETS) -> tuple[HttpCall, Any]:
    found = request_of(action, EVENT, secrets, 1_614_265_330.7)
    assert found.headers["Content-Type"] == "application/json"
    return found, json.loads(found.body)


def test_a_signature_is_that_of_the_reference() -> None:
    """The value that the libraries of Standard Webhooks test themselves with."""
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(SECRETS.secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == expected
    assert signature(SECRETS.secret[6:], "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == expected


@pytest.mark.parametrize(
    ("secret", "words"), [("whsec_%%%", "is no base64"), ("whsec_YWJj", "has 3 bytes"), ("", "has 0")]
)
def test_a_secret_that_signs_nothing_is_refused(secret: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as raised:
        signature(secret, "id", "1", b"")
    assert "YWJj" not in str(raised.value)


def test_a_webhook_is_signed_and_may_come_again() -> None:
    found, body = made(ActionSettings("webhook", url="https://ci.example/hook?x=1"))
    assert (found.url, found.is_repeated) == ("https://ci.example/hook?x=1", True)
    assert (body["type"], body["data"]["model"]) == ("penstock.retraining.requested", "Fraud EU")
    assert found.headers["webhook-id"] == "0af1"
    assert found.headers["webhook-timestamp"] == "1614265330"
    assert found.headers["webhook-signature"] == signature(SECRETS.secret, "0af1", "1614265330", found.body)
    assert found.headers["Authorization"] == "Bearer t0ken"


def test_github_gets_a_repository_dispatch() -> None:
    found, body = made(ActionSettings("github", repository="owner/na me"))
    assert found.url == "https://api.github.com/repos/owner/na%20me/dispatches"
    assert (found.headers["Accept"], found.headers["X-GitHub-Api-Version"]) == (
        "application/vnd.github+json",
        "2022-11-28",
    )
    assert body["event_type"] == "penstock-retraining"
    assert len(body["client_payload"]) <= 10
    assert body["client_payload"]["event"]["alarms"] == {"age": "2027"}
    assert not found.is_repeated
    elsewhere = ActionSettings("github", repository="owner/name", url="https://ghe.example/api/v3/", event_type="train")
    found, body = made(elsewhere)
    assert (found.url, body["event_type"]) == ("https://ghe.example/api/v3/repos/owner/name/dispatches", "train")


@pytest.mark.parametrize(("api", "path"), [(None, "v2"), ("v2", "v2"), ("v1", "v1")])
def test_airflow_starts_a_run_that_has_the_events_id(api: Any, path: str) -> None:
    found, body = made(ActionSettings("airflow", url="https://af.example/", dag="re/train", api=api))
    assert found.url == f"https://af.example/api/{path}/dags/re%2Ftrain/dagRuns"
    assert body["dag_run_id"] == "penstock__0af1"
    assert body["conf"]["reason"] == "'age' has drifted"
    assert ("logical_date" in body) == (path == "v2")
    assert body.get("logical_date") is None
    assert (found.is_repeated, found.already) == (True, 409)


def test_kubeflow_starts_a_run_of_a_pipeline() -> None:
    action = ActionSettings("kubeflow", url="https://kf.example/pipeline", pipeline="p1", pipeline_version="v1")
    found, body = made(action)
    assert found.url == "https://kf.example/pipeline/apis/v2beta1/runs"
    assert body["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    assert body["display_name"] == "fraud-eu-0af1"
    assert json.loads(body["runtime_config"]["parameters"]["event"])["version"] == "3"
    assert "experiment_id" not in body


def test_argo_submits_a_workflow_of_a_template_under_a_name_of_its_own() -> None:
    action = ActionSettings(
        "argo", url="https://argo.example", namespace="ml", template="retrain", service_account="sa"
    )
    found, body = made(action)
    assert found.url == "https://argo.example/api/v1/workflows/ml/submit"
    assert (body["namespace"], body["resourceKind"], body["resourceName"]) == ("ml", "WorkflowTemplate", "retrain")
    options = body["submitOptions"]
    assert options["name"].startswith("retrain-fraud-eu-")
    assert options["serviceAccount"] == "sa"
    assert options["parameters"][:2] == ["model=Fraud EU", "version=3"]
    assert made(action)[1]["submitOptions"]["name"] == options["name"]
    assert (found.is_repeated, found.already) == (True, 409)
