"""Asks a server what it knows of a model's rollout, and of the versions that share its traffic."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_tools.client_commands import http
from penstock_tools.client_commands.connection import PLAIN, Encryption


class Served(NamedTuple):
    """What a server knows of a model.

    Attributes:
        rollout: as /v1/rollouts has it; None where no version is being rolled out.
        experiment: as /v1/experiments has it; None where no canary has a share of the traffic.
    """

    model: str
    rollout: Mapping[str, Any] | None
    experiment: Mapping[str, Any] | None


def fetch(url: str, model: str, encryption: Encryption = PLAIN) -> Served:
    """Asks the server.

    Raises:
        NotFoundError: it knows of neither.
        InvalidInputError: another service answers there, or an older server.
        UnavailableError: nothing answers there.
    """
    rollout, experiment = (_one(url, what, model, encryption) for what in ("rollouts", "experiments"))
    if rollout is None and experiment is None:
        raise NotFoundError(
            f"the server rolls no version of {model!r} out, and no canary of it has a share of the traffic"
        )
    return Served(model, rollout, experiment)


def _one(url: str, what: str, model: str, encryption: Encryption) -> Mapping[str, Any] | None:
    try:
        found = msgspec.json.decode(http.get(f"{url.rstrip('/')}/v1/{what}/{quote(model, safe='')}", encryption))
        (answer,) = found[what]
    except http.StatusError as error:
        if error.status == 404 and error.body.startswith(b'{"error"'):
            return None
        raise
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"the answer of {url} to /v1/{what} is not that of a Penstock server") from error
    one: Mapping[str, Any] = answer
    return one
