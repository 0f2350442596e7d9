"""The HTTP requests that actions make. Pure: settings, an event and secrets in, a request out.

Sources of the contracts: the Standard Webhooks specification 1.0; GitHub's "Create a repository dispatch event"; Airflow's
stable REST API, `TriggerDAGRunPostBody` of version 2 and `DAGRun` of version 1; Kubeflow Pipelines' `v2beta1Run`; Argo
Workflows' `WorkflowSubmitRequest`.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_server.retraining.event import Event
from penstock_server.retraining.settings import ActionSettings

GITHUB: Final = "https://api.github.com"
GITHUB_API: Final = "2022-11-28"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how a secret begins
LEAST_SECRET_BYTES: Final = 16
_NAME_CHARACTERS: Final = 50
_HEX_CHARACTERS: Final = 8


@dataclass(frozen=True, slots=True)
class Secrets:
    """What an action shows or signs with; "" for nothing."""

    token: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A POST request.

    Attributes:
        is_repeated: the other side tells repetitions by the event's id, so that it may be sent again after a crash.
        already: the status by which it says that it has the event; 0 for none.
    """

    url: str
    body: bytes
    headers: dict[str, str]
    is_repeated: bool = False
    already: int = 0


def request_of(action: ActionSettings, event: Event, secrets: Secrets, now_s: float) -> HttpCall:
    """The request that tells of an event.

    Args:
        action: of any kind but "command".
        event: what it tells.
        secrets: read just now.
        now_s: seconds since 1970, which a webhook's signature holds.

    Raises:
        InvalidInputError: a webhook's secret is not what it should be; does not show it.
    """
    made = _REQUESTS[action.kind](action, event, secrets, now_s)
    headers = {"Content-Type": "application/json", "User-Agent": "penstock", **made.headers}
    if secrets.token:
        headers["Authorization"] = f"Bearer {secrets.token}"
    return HttpCall(made.url, made.body, headers, made.is_repeated, made.already)


def _webhook(action: ActionSettings, event: Event, secrets: Secrets, now_s: float) -> HttpCall:
    body, moment = event.to_json(), str(int(now_s))
    headers = {
        "webhook-id": event.id,
        "webhook-timestamp": moment,
        "webhook-signature": signature(secrets.secret, event.id, moment, body),
    }
    return HttpCall(action.url, body, headers, is_repeated=True)


def signature(secret: str, message_id: str, moment: str, body: bytes) -> str:
    """The signature of a message, as Standard Webhooks has it: version 1, HMAC with SHA-256.

    Args:
        secret: base64 of the key, perhaps behind `whsec_`.
        message_id: the header `webhook-id`.
        moment: the header `webhook-timestamp`.
        body: of the message.

    Raises:
        InvalidInputError: the secret is no base64, or its key is too short.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError(f"the webhook's secret is no base64, expected {SECRET_PREFIX} and base64") from error
    if len(key) < LEAST_SECRET_BYTES:
        raise InvalidInputError(f"the webhook's secret has {len(key)} bytes, expected {LEAST_SECRET_BYTES} or more")
    signed = f"{message_id}.{moment}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _github(action: ActionSettings, event: Event, _: Secrets, __: float) -> HttpCall:
    # GitHub takes ten properties at the top of a payload, so the event is one of them.
    payload = {name: getattr(event, name) for name in ("id", "model", "version", "rule", "reason")}
    body = {
        "event_type": action.event_type or "penstock-retraining",
        "client_payload": {**payload, "event": event.to_builtins()},
    }
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": GITHUB_API}
    owner, name = action.repository.split("/")
    return _posted(f"{_base(action, GITHUB)}/repos/{quote(owner, '')}/{quote(name, '')}/dispatches", body, headers)


def _airflow(action: ActionSettings, event: Event, _: Secrets, __: float) -> HttpCall:
    api = action.api or "v2"
    body: dict[str, Any] = {"dag_run_id": f"penstock__{event.id}", "conf": event.to_builtins(), "note": event.reason}
    if api == "v2":
        body["logical_date"] = None  # required there, and None where a run stands for no date
    url = f"{_base(action)}/api/{api}/dags/{quote(action.dag, '')}/dagRuns"
    return _posted(url, body, {}, is_repeated=True, already=409)


def _kubeflow(action: ActionSettings, event: Event, _: Secrets, __: float) -> HttpCall:
    pipeline = {"pipeline_id": action.pipeline}
    if action.pipeline_version:
        pipeline["pipeline_version_id"] = action.pipeline_version
    body: dict[str, Any] = {
        "display_name": f"{_kubernetes_name(event.model)}-{event.id}",
        "description": event.reason,
        "pipeline_version_reference": pipeline,
        "runtime_config": {"parameters": _parameters(event)},
    }
    if action.experiment:
        body["experiment_id"] = action.experiment
    return _posted(f"{_base(action)}/apis/v2beta1/runs", body, {})


def _argo(action: ActionSettings, event: Event, _: Secrets, __: float) -> HttpCall:
    # A name of its own, so that the API refuses the same event a second time.
    digest = hashlib.sha256(event.id.encode()).hexdigest()[:_HEX_CHARACTERS]
    options: dict[str, Any] = {
        "name": f"{_kubernetes_name(f'retrain-{event.model}')}-{digest}",
        "parameters": [f"{name}={value}" for name, value in _parameters(event).items()],
    }
    if action.service_account:
        options["serviceAccount"] = action.service_account
    body = {
        "namespace": action.namespace,
        "resourceKind": "WorkflowTemplate",
        "resourceName": action.template,
        "submitOptions": options,
    }
    url = f"{_base(action)}/api/v1/workflows/{quote(action.namespace, '')}/submit"
    return _posted(url, body, {}, is_repeated=True, already=409)


def _parameters(event: Event) -> dict[str, str]:
    """The event as parameters, which are texts: the whole as JSON, and what most pipelines want by itself."""
    return {
        "model": event.model,
        "version": event.version,
        "reason": event.reason,
        "event": msgspec.json.encode(event).decode(),
    }


def _kubernetes_name(text: str) -> str:
    """A text as a part of a name in Kubernetes: small letters, digits and dashes.

    >>> _kubernetes_name("Fraud / Ünited_v2")
    'fraud---nited-v2'
    """
    kept = "".join(one if one.isascii() and one.isalnum() else "-" for one in text.lower()[:_NAME_CHARACTERS])
    return kept.strip("-") or "model"


def _base(action: ActionSettings, default: str = "") -> str:
    return (action.url or default).rstrip("/")


def _posted(url: str, body: object, headers: dict[str, str], **how: Any) -> HttpCall:
    return HttpCall(url, msgspec.json.encode(body), headers, **how)


_REQUESTS: Final[dict[str, Callable[[ActionSettings, Event, Secrets, float], HttpCall]]] = {
    "webhook": _webhook,
    "github": _github,
    "airflow": _airflow,
    "kubeflow": _kubeflow,
    "argo": _argo,
}
