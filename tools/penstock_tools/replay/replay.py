"""What `penstock replay` does once its options are read: opens the log and the version, asks it for every row, and sums up.

Only sums, the distances and the answers to labelled rows are kept, so that a log may be larger than memory.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.clock import Clock, monotonic
from penstock_server.errors import InvalidInputError
from penstock_tools.progress import Advance, Bars
from penstock_tools.publish import published
from penstock_tools.replay import report
from penstock_tools.replay.candidate import Answered, Candidate, ClassNames, Unanswered
from penstock_tools.replay.log import Part, ReplayLog
from penstock_tools.replay.report import DifferentRow, Replay
from penstock_tools.replay.truth import Truth, truth_of

MOST_REASONS: Final = 20


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `penstock replay`; None for those that were not given.

    Attributes:
        model: a version, as `publish.published.version` takes it.
        allows_python: whether a version that runs Python may be replayed.
        since, until: bounds of the time of the answers, as `ReplayLog` takes them.
    """

    log: Path
    model: str
    labels: Path | None = None
    registry: str | None = None
    allows_python: bool = False
    since: datetime | None = None
    until: datetime | None = None


def replay(request: Request, bars: Bars, clock: Clock = monotonic) -> Replay:
    """Replays a log.

    Raises:
        InvalidInputError: the log, the labels or the version are not what they should be, or have nothing to compare.
        NotFoundError: there is no such version, or nothing was logged.
        UnavailableError: the registry does not answer.
    """
    log = ReplayLog(request.log, published.name_of(request.model), request.since, request.until)
    truth = None if request.labels is None else truth_of(request.labels, log.model)
    fetching = bars.begin(f"loading {request.model}", 1)
    with published.version(request.model, request.registry) as version:
        name = published.name_of(request.model) or version.path.name
        candidate = Candidate(version, (name, request.model), allows_python=request.allows_python)
        try:
            fetching(1)
            sums = Sums(candidate.classes, truth)
            _run(candidate, log, sums, bars.begin("replaying", log.rows), clock)
        finally:
            candidate.close()
    return sums.report(f"{request.model} on {request.log}")


def _run(candidate: Candidate, log: ReplayLog, sums: "Sums", advance: Advance, clock: Clock) -> None:
    for part in log.parts():
        sums.seen(part)
        lacking = candidate.lacking(list(part.inputs)) if part.rows else []
        if lacking:
            sums.lacks(lacking, part.rows)
        elif part.rows:
            began_s = clock()
            for answer in _answers(candidate, part):
                sums.add(part, answer)
            sums.took_s += clock() - began_s
        advance(part.rows)


def _answers(candidate: Candidate, part: Part) -> Iterator[Answered | Unanswered]:
    """What the candidate makes of a part's rows."""
    if not part.is_ragged and candidate.takes_rows(part.inputs):
        yield from candidate.answers(part.inputs, part.outputs, part.rows)
        return
    for at in range(part.rows):
        one = part.row(at)
        for answer in candidate.answers(one.inputs, one.outputs, 1, is_alone=True):
            yield answer._replace(at=answer.at + at) if isinstance(answer, Answered) else answer


class Sums:
    """What is known of a log so far.

    Args:
        classes: the candidate's.
        truth: true answers, if some are given.

    Attributes:
        took_s: the candidate's time.
    """

    def __init__(self, classes: ClassNames, truth: Truth | None = None) -> None:
        self.took_s = 0.0
        self._classes = classes
        self._truth = truth
        self._rows = self._compared = self._agreeing = 0
        self._lacking: Counter[str] = Counter()
        self._unanswered: dict[str, Counter[str]] = {"refused": Counter(), "failed": Counter()}
        self._versions: Counter[str] = Counter()
        self._moments: list[np.datetime64] = []
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._distances: list[NDArray[np.float64]] = []
        self._different: list[tuple[tuple[bool, float, int], DifferentRow]] = []
        self._right: list[NDArray[np.bool_]] = []
        self._unknown_labels = 0
        self._values: list[NDArray[np.float64]] = []

    def seen(self, part: Part) -> None:
        """Counts rows of the log."""
        self._rows += part.rows
        self._versions.update(part.versions.tolist())
        if part.rows:
            self._moments += [part.times.min(), part.times.max()]

    def lacks(self, columns: Sequence[str], rows: int) -> None:
        """Counts rows that lack columns which the candidate takes."""
        self._lacking.update(dict.fromkeys(columns, rows))

    def add(self, part: Part, answer: Answered | Unanswered) -> None:
        """Counts rows of a part that the candidate was asked for."""
        if isinstance(answer, Unanswered):
            self._unanswered[answer.why][answer.reason] += answer.rows
            return
        found = answer.compared
        self._compared += len(answer.at)
        self._agreeing += int(found.agree.sum())
        self._distances.append(found.distance)
        if found.classes is not None:
            pairs, counts = np.unique(np.stack(found.classes), axis=1, return_counts=True)
            self._pairs.update(dict(zip(map(tuple, pairs.T.tolist()), counts.tolist(), strict=True)))
        self._note_different(part, answer)
        if self._truth is not None:
            self._judge(self._truth.of(part.ids[answer.at].tolist(), part.places[answer.at].tolist()), answer)

    def _note_different(self, part: Part, answer: Answered) -> None:
        """Keeps the rows that are farthest apart, those with another class first."""
        found = answer.compared
        order = np.lexsort((-found.distance, found.agree))[: report.MOST_DIFFERENT]
        for one in order[(~found.agree | (found.distance > 0))[order]].tolist():
            at = int(answer.at[one])
            pair, numbers = found.classes, answer.values
            row = DifferentRow(
                request_id=str(part.ids[at]),
                row=int(part.places[at]),
                time=f"{np.datetime_as_string(part.times[at], 'ms')}Z",
                version=str(part.versions[at]),
                logged=None if pair is None else self._classes.name(int(pair[0][one])),
                candidate=None if pair is None else self._classes.name(int(pair[1][one])),
                logged_value=None if numbers is None else float(numbers[0][one]),
                candidate_value=None if numbers is None else float(numbers[1][one]),
                distance=float(found.distance[one]),
            )
            # Of equal ones the first in the log.
            rank = not found.agree[one], float(found.distance[one]), -self._compared - one
            keep = heapq.heappush if len(self._different) < report.MOST_DIFFERENT else heapq.heappushpop
            keep(self._different, (rank, row))

    def _judge(self, labels: Sequence[Any], answer: Answered) -> None:
        """Compares both answers with the truth, where it is known."""
        known = np.array([label is not None for label in labels], np.bool_)
        if not known.any():
            return
        given = [label for label in labels if label is not None]
        if answer.compared.classes is not None:
            places = [self._classes.place(label) for label in given]
            named = np.array([place is not None for place in places], np.bool_)
            self._unknown_labels += int((~named).sum())
            truth = np.array([place for place in places if place is not None], np.int64)
            self._right.append(np.stack(answer.compared.classes)[:, known][:, named] == truth)
        elif answer.values is not None:
            self._values.append(np.stack([*(each[known] for each in answer.values), _numbers(given)]))

    def report(self, title: str) -> Replay:
        """What was found."""
        pairs: Counter[tuple[str, str]] = Counter()
        for (logged, candidate), rows in self._pairs.items():
            pairs[self._classes.name(logged), self._classes.name(candidate)] += rows
        classes, changed = report.by_class(pairs)
        right, values = _joined(self._right, 2), _joined(self._values, 3)
        return Replay(
            title=title,
            rows=self._rows,
            compared=self._compared,
            incompatible=_reasons(self._lacking),
            refused=_reasons(self._unanswered["refused"]),
            failed=_reasons(self._unanswered["failed"]),
            versions=dict(sorted(self._versions.items())),
            first=_iso(min(self._moments, default=None)),
            last=_iso(max(self._moments, default=None)),
            agreement=report.share(self._agreeing, self._compared),
            by_class=classes,
            changed=changed,
            distances=report.distances(np.concatenate([np.empty(0), *self._distances])),
            different=tuple(row for _, row in sorted(self._different, reverse=True, key=lambda each: each[0])),
            truth=report.paired_truth(right, self._unknown_labels) if self._right else None,
            errors=report.paired_errors(values[:2], values[2]) if self._values else None,
            took_s=self.took_s,
        )


def _numbers(labels: Sequence[Any]) -> NDArray[np.float64]:
    try:
        return np.array(labels, np.float64)
    except ValueError as error:
        raise InvalidInputError(f"a label is no number, and the version answers with numbers: {error}") from error


def _joined(parts: list[Any], rows: int) -> Any:
    return np.concatenate([np.empty((rows, 0), parts[0].dtype if parts else np.float64), *parts], axis=1)


def _reasons(found: Counter[str]) -> tuple[report.Unanswered, ...]:
    return tuple(report.Unanswered(reason, rows) for reason, rows in found.most_common(MOST_REASONS))


def _iso(moment: np.datetime64 | None) -> str | None:
    return None if moment is None else f"{np.datetime_as_string(moment, 's')}Z"
