"""From messages to the messages that go out: which version answers each, its answer, or its dead letter. No Kafka is in it.

A message's key is its routing key, so that a key goes to the version that a server's calls with this key go to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from penstock_server.rollout.plan import TrafficPlan
from penstock_tools.batch.scoring import BadRow, Scored
from penstock_tools.stream.codec import Codec, Rows
from penstock_tools.stream.dead_letters import Kind, dead_letter
from penstock_tools.stream.message import Message, Outgoing

_NOTHING: Final = "it has no value, and so no row"


class Version(Protocol):
    """A version that answers.

    Attributes:
        codec: reads its rows and writes its answers.
    """

    @property
    def codec(self) -> Codec: ...

    def score(self, rows: pa.RecordBatch) -> Scored:
        """The answers to rows."""
        ...


@dataclass(frozen=True, slots=True)
class Topics:
    """Where messages come from and go to."""

    source: str
    answers: str
    dead_letters: str


@dataclass(frozen=True, slots=True)
class Part:
    """What one version did with its share of a batch.

    Attributes:
        version: which.
        values: the messages that it was given and that have a value.
        answered: how many messages it answered.
        dead: how many messages have no answer, by kind.
        scored: its answers; None where it was given no value.
    """

    version: str
    values: Sequence[bytes]
    answered: int
    dead: Mapping[Kind, int]
    scored: Scored | None


@dataclass(frozen=True, slots=True)
class Answered:
    """What becomes of a batch.

    Attributes:
        outgoing: one message for each, in the order that they came.
        parts: what each version did.
    """

    outgoing: Sequence[Outgoing]
    parts: Sequence[Part]


def routed(plan: TrafficPlan, model: str, messages: Sequence[Message]) -> dict[str, Sequence[int]]:
    """Which messages each version answers, by their places; a message without a key goes to one at random."""
    if len(plan.places) == 1:
        return {plan.places[0].version: range(len(messages))}
    found: dict[str, list[int]] = {}
    for place, message in enumerate(messages):
        version, _ = plan.choose(model, "" if message.key is None else routing_key(message.key))
        found.setdefault(version, []).append(place)
    return dict(found)


def routing_key(key: bytes) -> str:
    r"""A message's key as the text that a server's callers would send; bytes that are no UTF-8 count as Latin-1.

    >>> routing_key(b"customer-7"), routing_key(b"\xff")
    ('customer-7', 'ÿ')
    """
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key.decode("latin-1")


def answered(
    messages: Sequence[Message],
    plan: TrafficPlan,
    versions: Mapping[str, Version],
    *,
    model: str,
    topics: Topics,
    most_bytes: int,
) -> Answered:
    """The answers and dead letters of messages.

    Args:
        messages: in the order that they came.
        plan: which version answers which key.
        versions: those of the plan.
        model: the model's name.
        topics: where messages come from and go to.
        most_bytes: the largest value that can be sent.
    """
    outgoing: list[Outgoing | None] = [None] * len(messages)
    parts = []
    for version, places in routed(plan, model, messages).items():
        own = messages if len(places) == len(messages) else [messages[place] for place in places]
        parts.append(
            _answer(
                own,
                places,
                outgoing,
                version=(version, versions[version]),
                model=model,
                topics=topics,
                most_bytes=most_bytes,
            )
        )
    return Answered([each for each in outgoing if each is not None], parts)


def _answer(
    messages: Sequence[Message],
    places: Sequence[int],
    outgoing: list[Outgoing | None],
    *,
    version: tuple[str, Version],
    model: str,
    topics: Topics,
    most_bytes: int,
) -> Part:
    """Has one version answer its messages, each at its place among those that go out."""
    name, found = version
    dead: dict[Kind, int] = {}

    def bury(at: int, kind: Kind, reason: str) -> None:
        dead[kind] = dead.get(kind, 0) + 1
        letter = dead_letter(
            messages[at], kind, reason, topic=topics.dead_letters, source=topics.source, version=(model, name)
        )
        outgoing[places[at]] = letter

    values = [message.value for message in messages]
    given: Sequence[int] = range(len(values))
    if None in values:
        given = [at for at, value in enumerate(values) if value is not None]
        for at in set(range(len(values))) - set(given):
            bury(at, "unreadable", _NOTHING)
    present = [value for value in values if value is not None]
    if not present:
        return Part(name, (), 0, dead, None)
    rows = found.codec.read(present)
    for place, reason in rows.unreadable.items():
        bury(given[place], "unreadable", reason)
    scored = found.score(rows.batch)
    bad = by_message(rows, scored.bad)
    for place, row in bad.items():
        bury(given[rows.places[place]], "unanswered", row.told())
    good: Sequence[int] = range(len(rows.places))
    answers = scored.answers
    if bad:
        good = [place for place in good if place not in bad]
        answers = _of_messages(rows, scored, bad)
    sent = 0
    for place, value in zip(good, found.codec.write(rows, good, answers), strict=True):
        at = given[rows.places[place]]
        if len(value) > most_bytes:
            bury(at, "unanswered", f"its answer has {len(value):,} bytes, and a message may have {most_bytes:,}")
            continue
        sent += 1
        message = messages[at]
        outgoing[places[at]] = Outgoing(topics.answers, message.key, value, message.headers)
    return Part(name, present, sent, dead, scored)


def by_message(rows: Rows, bad: Iterable[BadRow]) -> dict[int, BadRow]:
    """The first bad row of each message that has one, by the message's place in `rows.places`, numbered within it."""
    found: dict[int, BadRow] = {}
    for row in bad:
        place = rows.message_of(row.row)
        first = row.row if rows.counts is None else sum(rows.counts[:place])
        found.setdefault(place, replace(row, row=row.row - first))
    return found


def _of_messages(rows: Rows, scored: Scored, bad: Mapping[int, BadRow]) -> pa.RecordBatch:
    """The answers without those to the other rows of messages that have a bad one."""
    if rows.counts is None:
        return scored.answers
    is_good = np.ones(rows.batch.num_rows, np.bool_)
    is_good[[row.row for row in scored.bad]] = False
    owner = np.repeat(np.arange(len(rows.counts)), rows.counts)
    wanted = ~np.isin(owner, list(bad))
    return scored.answers.filter(pa.array(wanted[is_good]))
