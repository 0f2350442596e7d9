"""Asks the cloud whether it is about to take this machine away, and says so once: the server drains then, as on SIGTERM.

Machines that cost less (spot instances) are taken away with a notice of half a minute to two minutes. Each cloud tells it at an
address of its own that only the machine reaches. Where it does not answer, as on a machine that is no cloud's, nothing follows.

Sources: "Spot Instance interruption notices" and "Use IMDSv2" (Amazon EC2); "Spot VMs" (Google Compute Engine); "Scheduled
Events" (Azure).
"""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Final

import msgspec
import structlog

from penstock_server.control.settings import Cloud, PreemptionSettings
from penstock_server.redirections import NoRedirection

log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 2.0
MOST_BYTES: Final = 64 * 1024
_AWAY: Final = "the cloud does not say whether it takes this machine away"
_LINK_LOCAL: Final = "http://169.254.169.254"
_TOKEN_PATH: Final = "/latest/api/token"  # noqa: S105 - a path
_TOKEN_LIFE: Final = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a cloud answers, and what must be asked with."""

    address: str
    path: str
    headers: Mapping[str, str]


_PLACES: Final[Mapping[Cloud, _Place]] = {
    "aws": _Place(_LINK_LOCAL, "/latest/meta-data/spot/instance-action", {}),
    "gcp": _Place(
        "http://metadata.google.internal", "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
    ),
    "azure": _Place(_LINK_LOCAL, "/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"}),
}


# The addresses are never those of a proxy, whatever the environment says.
_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirection)


class _Event(msgspec.Struct):
    kind: str = msgspec.field(name="EventType", default="")
    before: str = msgspec.field(name="NotBefore", default="")


class _Events(msgspec.Struct):
    events: list[_Event] = msgspec.field(name="Events", default_factory=list)


class _Action(msgspec.Struct):
    action: str
    time: str = ""


_events: Final = msgspec.json.Decoder(_Events)
_action: Final = msgspec.json.Decoder(_Action)


def notice(cloud: Cloud, body: bytes) -> str:
    """What an answer says about the machine's end, in a few words; "" if it stays.

    Raises:
        msgspec.MsgspecError: this is no answer of the cloud.
    """
    match cloud:
        case "aws":  # which answers 404 while there is nothing to say
            found = _action.decode(body)
            return f"{found.action} at {found.time}" if found.action in ("terminate", "stop", "hibernate") else ""
        case "gcp":
            return "preempted" if body.strip().upper() == b"TRUE" else ""
        case "azure":
            events = _events.decode(body).events
            return next((f"{each.kind} not before {each.before}" for each in events if each.kind == "Preempt"), "")


def ask(cloud: Cloud, address: str | None = None) -> str:
    """Asks a cloud once, which takes seconds at most.

    Args:
        cloud: which.
        address: where it answers in place of its own.

    Returns:
        What it says about the machine's end; "" if it stays.

    Raises:
        OSError, HTTPException, msgspec.MsgspecError: it does not answer, or not as the cloud does.
    """
    place = _PLACES[cloud]
    base = (address or place.address).rstrip("/")
    headers = dict(place.headers)
    if cloud == "aws":
        token = _read(urllib.request.Request(base + _TOKEN_PATH, method="PUT", headers=_TOKEN_LIFE))  # noqa: S310 - http
        headers["X-aws-ec2-metadata-token"] = token.decode("latin-1").strip()
    try:
        return notice(cloud, _read(urllib.request.Request(base + place.path, headers=headers)))  # noqa: S310 - http
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise


def _read(request: urllib.request.Request) -> bytes:
    with _opener.open(request, timeout=TIMEOUT_S) as answer:
        body: bytes = answer.read(MOST_BYTES)
        return body


async def follow(
    settings: PreemptionSettings,
    leave: Callable[[], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Asks at an interval; calls `leave` once, when the machine is about to go, and then asks no more."""
    assert settings.cloud is not None
    was_away = False
    while True:
        said = ""
        try:
            said = await asyncio.to_thread(ask, settings.cloud, settings.address)
            was_away = False
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            if not was_away:
                log.warning(_AWAY, cloud=settings.cloud, reason=str(error))
            was_away = True
        if said:
            log.warning("the cloud takes this machine away: draining", cloud=settings.cloud, notice=said)
            leave()
            await asyncio.Event().wait()
        await sleep(settings.every_s)
