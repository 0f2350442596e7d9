"""What `penstock models --fleet` does: asks many servers what they have loaded, and shows where they differ.

Servers of one registry hold the same in the end. What most of them say of a version is what it is, and a server that says
something else, or nothing, is named.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, Final

import msgspec

from penstock_server.errors import InvalidInputError, PenstockError
from penstock_tools.client_commands import models
from penstock_tools.client_commands.connection import PLAIN, Encryption
from penstock_tools.formatting import safe

ASKED_AT_ONCE: Final = 32
DNS: Final = "dns://"
SHOWN: Final = 8
"""How many servers a line names."""


class Held(msgspec.Struct, frozen=True):
    """What a server says of one version.

    Attributes:
        wanted: the roles that its registry gives the version.
        roles: the roles in which the version answers, with the weight of each that has one.
        state: such as READY.
        reason: why it is in that state; two servers may word one thing otherwise, so it is not compared.
    """

    wanted: tuple[str, ...]
    roles: tuple[tuple[str, float | None], ...]
    state: str
    reason: str = ""

    def is_as(self, other: "Held") -> bool:
        return (self.wanted, self.roles, self.state) == (other.wanted, other.roles, other.state)


class FleetVersion(msgspec.Struct, frozen=True):
    """One version over all servers.

    Attributes:
        held: what most servers say; of as many, the first.
        count: how many servers say so.
        others: what other servers say, by their address; None where a server does not know the version.
    """

    model: str
    version: str
    held: Held
    count: int
    others: Mapping[str, Held | None]


class Fleet(msgspec.Struct, frozen=True):
    """What all servers say.

    Attributes:
        servers: the addresses of those that answered.
        away: why each of the others did not answer, by address.
        versions: every version that a server knows, by model and number.
        sources: what is wrong with a source, by the server that says so.
    """

    servers: tuple[str, ...]
    away: Mapping[str, str]
    versions: tuple[FleetVersion, ...]
    sources: Mapping[str, str]

    @property
    def agrees(self) -> bool:
        """Whether all servers answered, say the same, and each version answers in the roles that are wanted."""
        return not self.away and all(
            not one.others and {role for role, _ in one.held.roles} == set(one.held.wanted) for one in self.versions
        )


def addresses(told: Sequence[str], resolve: Callable[..., Any] = socket.getaddrinfo) -> list[str]:
    """The HTTP addresses that are meant, each once: `dns://NAME:PORT` is all addresses of a name.

    Raises:
        InvalidInputError: one is no address, or its name has none.
    """
    found: dict[str, None] = {}
    for each in told:
        if not each.startswith(DNS):
            found[each.rstrip("/")] = None
            continue
        name, colon, port = each.removeprefix(DNS).strip("/").rpartition(":")
        if not colon or not port.isdecimal():
            raise InvalidInputError(f"--fleet is {each!r}; expected a name and a port, such as dns://penstock:8002")
        try:
            answers = resolve(name, int(port), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, OverflowError) as error:
            raise InvalidInputError(f"--fleet is {each!r}, and {name!r} has no address: {error}") from error
        for family, *_, (host, *_) in answers:
            found[f"http://[{host}]:{port}" if family == socket.AF_INET6 else f"http://{host}:{port}"] = None
    return list(found)


def fetch(urls: Sequence[str], encryption: Encryption = PLAIN) -> Fleet:
    """Asks all servers, several at once."""

    def ask(url: str) -> models.Status | str:
        try:
            return models.fetch(url, encryption)
        except PenstockError as error:
            return str(error)

    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        return joined(dict(zip(urls, threads.map(ask, urls), strict=True)))


def joined(statuses: Mapping[str, models.Status | str]) -> Fleet:
    """What they say together.

    Args:
        statuses: by address what a server has loaded, or why it did not say.
    """
    answered = {url: status for url, status in statuses.items() if not isinstance(status, str)}
    held = {url: dict(_held(status["models"])) for url, status in answered.items()}
    keys = sorted({key for versions in held.values() for key in versions}, key=_order)
    return Fleet(
        servers=tuple(answered),
        away={url: status for url, status in statuses.items() if isinstance(status, str)},
        versions=tuple(_together(key, {url: versions.get(key) for url, versions in held.items()}) for key in keys),
        sources={
            url: "; ".join(f"{one.get('name')}: {one['reason']}" for one in status["sources"] if one.get("reason"))
            for url, status in answered.items()
            if any(one.get("reason") for one in status["sources"])
        },
    )


def _order(key: tuple[str, str]) -> tuple[str, int, str]:
    model, version = key
    return model, int(version) if version.isdecimal() else -1, version


def _held(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], Held]]:
    """What a server says of each version; it has a record for each role."""

    def key(record: Mapping[str, Any]) -> tuple[str, str]:
        return str(record.get("name") or ""), str(record.get("version") or "")

    for version, group in groupby(sorted(records, key=key), key):
        first, *more = group
        roles = sorted((str(one["role"]), one.get("weight")) for one in (first, *more) if one.get("role"))
        yield (
            version,
            Held(
                wanted=tuple(sorted(map(str, first.get("wanted") or ()))),
                roles=tuple(roles),
                state=str(first.get("state") or ""),
                reason=str(first.get("reason") or ""),
            ),
        )


def _together(key: tuple[str, str], held: Mapping[str, Held | None]) -> FleetVersion:
    counted = Counter((one.wanted, one.roles, one.state) for one in held.values() if one is not None)
    (most, count), *_ = counted.most_common(1)
    usual = next(one for one in held.values() if one is not None and (one.wanted, one.roles, one.state) == most)
    others = {url: one for url, one in held.items() if one is None or not one.is_as(usual)}
    return FleetVersion(*key, usual, count, others)


def show(fleet: Fleet) -> None:
    """Prints a table of the versions, and below it a line for each thing in which servers differ."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("model", "version", "wanted as", "serves as", "traffic", "state", "servers", box=box.SIMPLE_HEAD)
    table.pad_edge = False
    for one in fleet.versions:
        is_settled = {role for role, _ in one.held.roles} == set(one.held.wanted)
        table.add_row(
            Text(safe(one.model)),
            Text(one.version),
            Text(", ".join(one.held.wanted)),
            Text(", ".join(role for role, _ in one.held.roles), style="" if is_settled else "yellow"),
            ", ".join(f"{weight:g}%" for _, weight in one.held.roles if weight is not None),
            Text(one.held.state, style="green" if one.held.state == "READY" else "yellow"),
            Text(f"{one.count} of {len(fleet.servers)}", style="yellow" if one.others else ""),
        )
    if fleet.versions:
        console.print(table)
    for line in lines(fleet):
        console.print(Text(line, style="yellow"))
    console.print(summary(fleet))


def lines(fleet: Fleet) -> Iterator[str]:
    """What is not as it should be, one thing a line, with the servers that say so."""
    for one in fleet.versions:
        if one.held.reason:
            yield f"{safe(one.model)} {one.version}".rstrip() + f": {one.held.reason}"
        told: dict[str, list[str]] = {}
        for url, other in one.others.items():
            told.setdefault(_in_words(other), []).append(url)
        for words, urls in told.items():
            yield f"{safe(one.model)} {one.version}".rstrip() + f" {words} at {_named(urls)}"
    told = {}
    for url, reason in [*fleet.sources.items(), *fleet.away.items()]:
        told.setdefault(reason.replace(url, "the server"), []).append(url)
    for reason, urls in told.items():
        yield f"{_named(urls)}: {reason}"


def _in_words(held: Held | None) -> str:
    if held is None:
        return "is not known"
    roles = ", ".join(role if weight is None else f"{role} with {weight:g}%" for role, weight in held.roles)
    wanted = (
        "" if {role for role, _ in held.roles} == set(held.wanted) else f", wanted as {', '.join(held.wanted) or '-'}"
    )
    return f"is {held.state} {f'as {roles}' if roles else 'without a role'}{wanted}" + (
        f" ({held.reason})" if held.reason else ""
    )


def _named(urls: Sequence[str]) -> str:
    more = len(urls) - SHOWN
    return ", ".join(urls[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def summary(fleet: Fleet) -> str:
    """One line: how many servers answered, and whether they agree.

    >>> summary(Fleet(("http://a",), {}, (), {}))
    '1 server answers, and serves what is wanted'
    """
    count = len(fleet.servers)
    answering = f"{count} of {count + len(fleet.away)} servers answer" if fleet.away else f"all {count} servers answer"
    if count == 1 and not fleet.away:
        answering = "1 server answers"
    if fleet.agrees:
        return f"{answering}, and serve{'s' if count == 1 else ''} what is wanted"
    differing = sum(bool(one.others) for one in fleet.versions)
    return answering + (f"; they differ in {differing} version{'' if differing == 1 else 's'}" if differing else "")
