"""What a rollout is judged by: totals of what the version and the champion did, by the weight that was in force.

Servers count without an end, from their start (`Snapshot`). Each look adds what was counted since the look before
(`between`), if the same weight was in force all the time. So evidence is exact over ramps, restarts and several servers, and
what was counted while a weight changed is left out, whatever it was. Totals are all that the tests need (`rollout.sequential`),
so evidence fits into a tag of the registry. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.sequential import Moments, Split
from penstock_server.rollout.shares import all_or_none

REQUESTS: Final = "requests"
ERRORS: Final = "errors"
FIRST_ERRORS: Final = "first_errors"
FOURTH_ERRORS: Final = "fourth_errors"
LABELLED: Final = "labelled"
WRONG: Final = "wrong"


class VersionTotals(msgspec.Struct, frozen=True):
    """What one version did on one server since that began to count, in requests that were routed to it by chance or by key.

    Attributes:
        requests: those that were answered or failed.
        errors: those that failed because of the version.
        errors_by_key: of these, those that are the first of their routing key, those that are its fourth, and all but what a
            key has had beyond some, counted while canaries share the requests; those without a key are in each. None if the
            server is older and does not say.
        latency: how many took how long: the cells of `metrics.counters.LATENCY_EDGES_S` and one above, or none.
    """

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    errors_by_key: tuple[int, int, int] | None = None

    @property
    def units(self) -> tuple[int, int, int]:
        """`errors_by_key`; where they are not known, each error counts as one without a key."""
        return (self.errors,) * 3 if self.errors_by_key is None else self.errors_by_key


class ShadowTotals(msgspec.Struct, frozen=True):
    """What a shadow did on one server since that began to count.

    Attributes:
        agree, disagree, failed: rows.
        distances: how many requests differ by how much in their scores, on average over their rows: the cells of
            `metrics.counters.SCORE_EDGES` and one above. Rows if the server is older.
        differing: how many requests have which share of rows that do not agree: the cells of `rollout.shares`;
            none if the server is older and does not say.
    """

    agree: int = 0
    disagree: int = 0
    failed: int = 0
    distances: tuple[int, ...] = ()
    differing: tuple[int, ...] = ()


class LabelCounts(msgspec.Struct, frozen=True):
    """What labels say of the version and the champion, since they are counted at all.

    Attributes:
        wrong: by the weight in force when it answered (`weight_key`): the version's labelled and wrong rows, the champion's.
        pairs: of rows that both answered, the champion's being the answer: both right, only the champion, only the version,
            neither.
        values: number, sum and sum of squares of what answers were worth, of each request that of its first row: the version's,
            the champion's.
    """

    wrong: Mapping[str, tuple[int, int, int, int]] = msgspec.field(default_factory=dict)
    pairs: tuple[int, int, int, int] = (0, 0, 0, 0)
    values: tuple[float, ...] = (0.0,) * 6


class Snapshot(msgspec.Struct, frozen=True):
    """What one server has counted, at one moment.

    Attributes:
        instance: differs between two runs of a server, so that counts which begin anew are told apart.
        weight: the version's share in force on all workers, as `weight_key` says it; "" while they change, and where the
            version or the champion has none.
        since_s: when it began to count, in seconds since 1970.
        version: what the version did.
        champion: what the champion did.
        shadow: what the version did as shadow.
        labels: what labels say; None where nobody joins them here.
    """

    instance: str
    weight: str
    since_s: float = 0.0
    version: VersionTotals = VersionTotals()
    champion: VersionTotals = VersionTotals()
    shadow: ShadowTotals = ShadowTotals()
    labels: LabelCounts | None = None


class Evidence(msgspec.Struct, frozen=True):
    """All that is known of a rollout.

    Attributes:
        events: by metric, and by the weight in force (`weight_key`): the version's events, the champion's. "requests" are those
            routed to them, "labelled" and "wrong" those of which the first row has a label. "errors" are all but what a key has
            had beyond some; "first_errors" and "fourth_errors" are those that are their key's first and fourth, or have none.
        shadow: rows that agreed, disagreed, failed.
        distances: requests by distance of scores, as `ShadowTotals` has them.
        differing: requests by the share of rows that do not agree, as `ShadowTotals` has them.
        pairs: labelled rows that both answered, as `LabelCounts` has them.
        values: as `LabelCounts` has them.
        updated_s: when something was added last, in seconds since 1970.
    """

    events: Mapping[str, Mapping[str, tuple[int, int]]] = msgspec.field(default_factory=dict)
    shadow: tuple[int, int, int] = (0, 0, 0)
    distances: tuple[int, ...] = ()
    pairs: tuple[int, int, int, int] = (0, 0, 0, 0)
    values: tuple[float, ...] = (0.0,) * 6
    updated_s: float = 0.0
    differing: tuple[int, ...] = ()

    def splits(self, metric: str) -> list[Split]:
        """A metric's events, for the tests."""
        return [
            Split(float(key.rpartition(":")[2]) / 100, version, champion)
            for key, (version, champion) in self.events.get(metric, {}).items()
        ]

    def at(self, metric: str, weight: float) -> tuple[int, int]:
        """A metric's events of the version and of the champion at one weight of the version."""
        text = percent_text(weight)
        pairs = [pair for key, pair in self.events.get(metric, {}).items() if key.partition(":")[0] == text]
        return sum(ours for ours, _ in pairs), sum(theirs for _, theirs in pairs)

    def total(self, metric: str) -> tuple[int, int]:
        """A metric's events at all weights."""
        version, champion = 0, 0
        for ours, theirs in self.events.get(metric, {}).values():
            version, champion = version + ours, champion + theirs
        return version, champion

    @property
    def moments(self) -> tuple[Moments, Moments]:
        """The values of the version's answers, and of the champion's."""
        return Moments(*self.values[:3]), Moments(*self.values[3:])

    def plus(self, other: "Evidence") -> "Evidence":
        """Both together."""
        events = {
            metric: _added(self.events.get(metric, {}), other.events.get(metric, {}))
            for metric in dict.fromkeys((*self.events, *other.events))
        }
        shadow, pairs = _sum_of(self.shadow, other.shadow), _sum_of(self.pairs, other.pairs)
        return Evidence(
            events,
            (shadow[0], shadow[1], shadow[2]),
            _sum_of(self.distances, other.distances),
            (pairs[0], pairs[1], pairs[2], pairs[3]),
            tuple(a + b for a, b in zip(self.values, other.values, strict=True)),
            max(self.updated_s, other.updated_s),
            _sum_of(self.differing, other.differing),
        )


_evidence: Final = msgspec.json.Decoder(Evidence)


def read_evidence(text: str) -> Evidence:
    """The evidence in a tag. In one of earlier servers each error counts as one without a key, and each row as a request.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        found = _evidence.decode(text)
        _ = [found.splits(metric) for metric in found.events], found.moments
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:
        raise InvalidInputError(f"the tag holds no evidence of a rollout: {str(error)[:200]}") from error
    if ERRORS in found.events and FIRST_ERRORS not in found.events:
        errors = found.events[ERRORS]
        events = {**found.events, FIRST_ERRORS: errors, FOURTH_ERRORS: errors}
        found = msgspec.structs.replace(found, events=events)
    if sum(found.shadow) and not found.differing:
        agree, disagree, failed = found.shadow
        found = msgspec.structs.replace(found, differing=all_or_none(agree, disagree + failed))
    return found


def write_evidence(evidence: Evidence) -> str:
    """The tag's text."""
    return msgspec.json.encode(evidence).decode()


def weight_key(weight: float, champion: float) -> str:
    """How evidence names a weight in force: the version's in percent, and its share beside the champion where others have some.

    >>> weight_key(0.05, 0.95), weight_key(0.2, 0.6)
    ('5', '20:25')
    """
    share = weight / (weight + champion)
    return percent_text(weight) if abs(share - weight) < 1e-9 else f"{percent_text(weight)}:{percent_text(share)}"


def percent_text(weight: float) -> str:
    """A weight in percent, as evidence names it.

    >>> percent_text(0.05), percent_text(0.125)
    ('5', '12.5')
    """
    return f"{100 * weight:.9f}".rstrip("0").removesuffix(".")


def between(before: Snapshot, after: Snapshot, bounds: Mapping[str, int], now_s: float) -> Evidence:
    """What one server counted between two looks.

    Requests and errors count only if both looks, at the same run of the server, saw the same weight in force. Rows of the
    shadow and labels do not depend on the weight of now.

    Args:
        before: the look before.
        after: this look.
        bounds: by metric, the cell of the latency histogram above which a request is slow.
        now_s: when the later one was, in seconds since 1970.
    """
    found = Evidence()
    if before.instance == after.instance:
        found = _requests(before, after, bounds).plus(_shadow(before.shadow, after.shadow))
    if after.labels is not None:
        # The joiner's totals are kept over restarts, so that they may be compared whichever run told them.
        found = found.plus(_labels(before.labels or after.labels, after.labels))
    return msgspec.structs.replace(found, updated_s=now_s)


def fresh(after: Snapshot) -> Snapshot:
    """What a server that has just started had counted before: nothing, while the same weight was in force."""
    return Snapshot(after.instance, after.weight, after.since_s, labels=after.labels)


def _requests(before: Snapshot, after: Snapshot, bounds: Mapping[str, int]) -> Evidence:
    weight = after.weight
    if not weight or weight != before.weight:
        return Evidence()
    ours, theirs = _since(before.version, after.version), _since(before.champion, after.champion)
    if ours is None or theirs is None:
        return Evidence()
    counts = {REQUESTS: (ours.requests, theirs.requests)}
    of_errors = zip((FIRST_ERRORS, FOURTH_ERRORS, ERRORS), ours.units, theirs.units, strict=True)
    counts |= {metric: (mine, other) for metric, mine, other in of_errors}
    for metric, cell in bounds.items():
        counts[metric] = (sum(ours.latency[cell + 1 :]), sum(theirs.latency[cell + 1 :]))
    return Evidence({metric: {weight: pair} for metric, pair in counts.items()})


def _since(before: VersionTotals, after: VersionTotals) -> VersionTotals | None:
    """What was counted in between; None if counts went down, as where a version was unloaded and loaded again."""
    latency = _difference(before.latency, after.latency)
    units = _difference(before.units, after.units)
    if latency is None or units is None or after.requests < before.requests or after.errors < before.errors:
        return None
    requests, errors = after.requests - before.requests, after.errors - before.errors
    return VersionTotals(requests, errors, latency, (units[0], units[1], units[2]))


def _shadow(before: ShadowTotals, after: ShadowTotals) -> Evidence:
    rows = _difference((before.agree, before.disagree, before.failed), (after.agree, after.disagree, after.failed))
    distances = _difference(before.distances, after.distances)
    differing = _difference(before.differing, after.differing)
    if rows is None or distances is None or differing is None:
        return Evidence()
    agree, disagree, failed = rows
    if any(rows) and not differing:
        differing = all_or_none(agree, disagree + failed)
    return Evidence(shadow=(agree, disagree, failed), distances=distances, differing=differing)


def _labels(before: LabelCounts, after: LabelCounts) -> Evidence:
    labelled, wrong = {}, {}
    for percent, now in after.wrong.items():
        found = _difference(before.wrong.get(percent, (0, 0, 0, 0)), now)
        if found is not None:
            ours, ours_wrong, theirs, theirs_wrong = found
            labelled[percent], wrong[percent] = (ours, theirs), (ours_wrong, theirs_wrong)
    pairs = _difference(before.pairs, after.pairs) or (0, 0, 0, 0)
    values = tuple(b - a for a, b in zip(before.values, after.values, strict=True))
    return Evidence(
        {LABELLED: labelled, WRONG: wrong} if labelled else {},
        pairs=(pairs[0], pairs[1], pairs[2], pairs[3]),
        values=values if after.values[0] >= before.values[0] and after.values[3] >= before.values[3] else (0.0,) * 6,
    )


def _difference(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...] | None:
    """What was counted in between, cell by cell; None if a cell went down."""
    first = tuple(before) or (0,) * len(after)
    if len(first) != len(after):
        return None
    found = tuple(b - a for a, b in zip(first, after, strict=True))
    return None if any(each < 0 for each in found) else found


def _added(one: Mapping[str, tuple[int, int]], other: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    keys = sorted({*one, *other}, key=lambda key: [float(part) for part in key.split(":")])
    pairs = ((one.get(key, (0, 0)), other.get(key, (0, 0))) for key in keys)
    return {key: (a[0] + b[0], a[1] + b[1]) for key, (a, b) in zip(keys, pairs, strict=True)}


def _sum_of(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    if not one or not other:
        return tuple(one or other)
    return tuple(a + b for a, b in zip(one, other, strict=True))
