"""MLflow's webhooks that wake servers: made, shown, tried and deleted in a registry, through its own calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from penstock_server.control.webhook import PATH
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.sources.registry import default_registry, redacted
from penstock_tools.publish.registry import opened

EVENTS: Final = (
    "model_version_alias.created",
    "model_version_alias.deleted",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version.created",
    "registered_model.created",
)
"""All that MLflow tells of models. Of a deletion, a model's own tags and a new name it tells nothing: the poll finds those."""
PRIVATE: Final = "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"
SCHEMES: Final = "MLFLOW_WEBHOOK_ALLOWED_SCHEMES"
KEY: Final = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
_NAME: Final = "penstock"
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class RegisteredWebhook:
    """A webhook as the registry has it."""

    id: str
    name: str
    url: str
    is_active: bool
    events: tuple[str, ...]


def address_of(url: str) -> str:
    """The address for a server's webhooks, from that of its HTTP port.

    Raises:
        InvalidInputError: it is no address.

    >>> address_of("http://models:8002/"), address_of("https://models/behind/a/proxy")
    ('http://models:8002/v1/webhook', 'https://models/behind/a/proxy')
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInputError(
            f"the server's address is {redacted(url)!r}, expected http://HOST:PORT of its HTTP port"
        )
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/{'/'.join(PATH)}"


def add(registry: str | None, url: str, secret: str) -> tuple[str, bool]:
    """Has the registry tell a server of changes; a webhook for the same address gets the secret and the events.

    Returns:
        Its id, and whether it is new.

    Raises:
        InvalidInputError: the registry sends no webhooks.
        UnavailableError: it does not answer, or cannot make one.
    """
    _check_sends(registry)
    with opened(registry) as client:
        for found in _all(client):
            if found.url == url:
                client.update_webhook(found.id, events=list(EVENTS), secret=secret, status="ACTIVE")
                return found.id, False
        made = client.create_webhook(
            _NAME, url, list(EVENTS), description="Wakes a Penstock server's poll of this registry", secret=secret
        )
        return str(made.webhook_id), True


def listed(registry: str | None) -> list[RegisteredWebhook]:
    """All webhooks of the registry, whoever made them."""
    _check_sends(registry)
    with opened(registry) as client:
        return list(_all(client))


def remove(registry: str | None, which: str) -> str:
    """Deletes the webhook with this id or for this address; its id.

    Raises:
        NotFoundError: there is none.
    """
    _check_sends(registry)
    with opened(registry) as client:
        found = _one(list(_all(client)), which)
        client.delete_webhook(found.id)
        return found.id


def try_out(registry: str | None, which: str) -> str:
    """Has MLflow send an example to the webhook with this id or for this address; what came of it.

    Raises:
        UnavailableError: the server did not get it or refused it; says why.
    """
    _check_sends(registry)
    with opened(registry) as client:
        found = _one(list(_all(client)), which)
        result = client.test_webhook(found.id)
    said = (result.error_message or result.response_body or "").strip()[:500]
    if not result.success:
        raise UnavailableError(f"MLflow's webhook to {found.url} failed: {said or f'HTTP {result.response_status}'}")
    return f"{found.url} answered {result.response_status}"


def variables() -> list[str]:
    """The settings of the MLflow server without which webhooks do not come, each with its reason."""
    return [
        f"{PRIVATE}=true              # it sends none to private addresses otherwise",
        f"{SCHEMES}=http,https   # nor to addresses with http://",
    ]


def _check_sends(registry: str | None) -> None:
    uri = registry or default_registry()
    if not uri.startswith(("http://", "https://")):
        raise InvalidInputError(
            f"the registry {redacted(uri)} is no MLflow server, and only those send webhooks; servers poll it all the same"
        )


def _one(webhooks: Sequence[RegisteredWebhook], which: str) -> RegisteredWebhook:
    places = {which, address_of(which)} if "://" in which else {which}
    for found in webhooks:
        if found.id == which or found.url in places:
            return found
    known = ", ".join(found.url for found in webhooks) or "none"
    raise NotFoundError(f"the registry has no webhook {which!r}; it has {known}")


def _all(client: Any) -> Iterator[RegisteredWebhook]:
    token: str | None = None
    while True:
        page = client.list_webhooks(max_results=_PAGE, page_token=token)
        for one in page:
            events = tuple(str(event) for event in one.events)
            yield RegisteredWebhook(str(one.webhook_id), one.name, one.url, str(one.status) == "ACTIVE", events)
        token = page.token
        if not token:
            return
