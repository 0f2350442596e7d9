"""What was counted of labels, exactly and never less than before: for those who decide by it."""

from collections.abc import Iterator, Sequence
from math import isnan
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.labels.join import STATES, Joined, JoinedPairs
from penstock_server.labels.prediction_file import ROLES
from penstock_server.labels.quality import MOST_ERROR
from penstock_server.labels.segment import Rows
from penstock_server.labels.subjects import Subject

DELAY_EDGES_S: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0)
"""Of the time from an answer to its label."""


class SubjectTotals(msgspec.Struct):
    """What was counted of one version in one role with one share of the traffic, of answers that are old enough.

    Attributes:
        rows: answers, with a label or without.
        labelled: those with a label that came in time.
        wrong: those of them whose class is another one; of numbers, the answers that are none, or so large that an error
            has no square.
        error_sum, error_squares: of the other numbers, the sum of the absolute errors and of their squares.
        values, value_sum, value_squares: how many values came in time, their sum and the sum of their squares.
        labelled_requests, wrong_requests: `labelled` and `wrong` among the first rows of requests. A request goes to one
            version with all its rows, so these are what a test of versions may count.
        request_values, request_value_sum, request_value_squares: the same of values.
    """

    rows: int = 0
    labelled: int = 0
    wrong: int = 0
    error_sum: float = 0.0
    error_squares: float = 0.0
    values: int = 0
    value_sum: float = 0.0
    value_squares: float = 0.0
    labelled_requests: int = 0
    wrong_requests: int = 0
    request_values: int = 0
    request_value_sum: float = 0.0
    request_value_squares: float = 0.0

    def plus(self, other: "SubjectTotals") -> "SubjectTotals":
        """Both together."""
        return SubjectTotals(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


class PairTotals(msgspec.Struct):
    """What was counted of rows that a champion and its shadow both answered, when their label came.

    Both have the same label at the same time, so these count at once.

    Attributes:
        both, only_champion, only_shadow, neither: whose class was right.
        numbers, difference_sum, difference_squares: of numbers, how many, and the sums of the shadow's absolute error less the
            champion's, and of its square.
        requests: the first four among the first rows of requests.
    """

    both: int = 0
    only_champion: int = 0
    only_shadow: int = 0
    neither: int = 0
    numbers: int = 0
    difference_sum: float = 0.0
    difference_squares: float = 0.0
    requests: tuple[int, int, int, int] = (0, 0, 0, 0)


class VersionLabels(msgspec.Struct, frozen=True):
    """The totals of a version in a role, for who decides.

    Attributes:
        weight: the share of the traffic that it had; None where requests named it, or nothing was to be chosen.
    """

    model: str
    version: str
    identity: str
    role: str
    weight: float | None
    totals: SubjectTotals


class PairLabels(msgspec.Struct, frozen=True):
    """The totals of a champion and a shadow."""

    model: str
    champion: str
    shadow: str
    totals: PairTotals


class LabelTotals(msgspec.Struct, frozen=True):
    """All totals at one moment; a later one has no smaller count.

    Attributes:
        step: grows by one whenever something was counted.
        maturity_s: by model, how old an answer is when it counts.
    """

    step: int = 0
    versions: tuple[VersionLabels, ...] = ()
    pairs: tuple[PairLabels, ...] = ()
    maturity_s: dict[str, float] = {}

    def of(self, model: str, version: str, role: str = "") -> SubjectTotals:
        """The sum over the shares of the traffic, and over roles where none is named."""
        total = SubjectTotals()
        for each in self.versions:
            if each.model == model and each.version == version and role in ("", each.role):
                total = total.plus(each.totals)
        return total

    def pair(self, model: str, champion: str, shadow: str) -> PairTotals:
        """Of a champion and a shadow."""
        found = (
            each.totals for each in self.pairs if (each.model, each.champion, each.shadow) == (model, champion, shadow)
        )
        return next(found, PairTotals())


class ModelCounts(msgspec.Struct):
    """What became of a model's labels.

    Attributes:
        states: by the words of `join.STATES`, of labels that callers sent here; also "passed_on", those that went to peers.
        from_peers: of labels that peers passed on.
        delays: how many labels came after how long, in the cells between `DELAY_EDGES_S`.
        delay_sum_s: the sum of these times.
    """

    states: dict[str, int] = {}
    from_peers: dict[str, int] = {}
    delays: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DELAY_EDGES_S) + 1))
    delay_sum_s: float = 0.0

    def count(self, states: NDArray[np.int64], is_from_peer: NDArray[np.bool_]) -> None:
        """Counts what became of labels, by `join`'s numbers."""
        for counts, mine in ((self.states, ~is_from_peer), (self.from_peers, is_from_peer)):
            for state, count in enumerate(np.bincount(states[mine], minlength=len(STATES)).tolist()):
                if count:
                    counts[STATES[state]] = counts.get(STATES[state], 0) + count

    def add(self, word: str, count: int) -> None:
        """Counts callers' labels of which something else became."""
        self.states[word] = self.states.get(word, 0) + count


class CountedLabels(msgspec.Struct):
    """All that is counted.

    Attributes:
        totals: by the number of the subject.
        pairs: by the model, the champion's version and the shadow's, joined by a zero character.
        models: by model.
    """

    totals: dict[int, SubjectTotals] = {}
    pairs: dict[str, PairTotals] = {}
    models: dict[str, ModelCounts] = {}

    def model(self, name: str) -> ModelCounts:
        """A model's counts."""
        return self.models.setdefault(name, ModelCounts())

    def count_pairs(self, pairs: JoinedPairs, subjects: Sequence[Subject]) -> None:
        """Counts rows that a champion and a shadow answered."""
        both = np.stack([pairs.champion, pairs.shadow], axis=1)
        for first, second in np.unique(both, axis=0).tolist():
            mine = (pairs.champion == first) & (pairs.shadow == second)
            champion, shadow = subjects[first].version, subjects[second].version
            key = f"{champion.model}\0{champion.version}\0{shadow.version}"
            totals = self.pairs.setdefault(key, PairTotals())
            answers, truths = pairs.answers[mine], pairs.truths[mine]
            if champion.kind == "number":
                errors = np.abs(answers - truths)
                errors = errors[(errors <= MOST_ERROR).all(axis=1)]
                difference = errors[:, 1] - errors[:, 0]
                totals.numbers += len(difference)
                totals.difference_sum += float(difference.sum())
                totals.difference_squares += float((difference**2).sum())
                continue
            right = answers == truths
            outcome = 2 * ~right[:, 0] + ~right[:, 1]
            both, only_champion, only_shadow, neither = np.bincount(outcome, minlength=4).tolist()
            totals.both += both
            totals.only_champion += only_champion
            totals.only_shadow += only_shadow
            totals.neither += neither
            firsts = np.bincount(outcome[pairs.rows[mine] == 0], minlength=4).tolist()
            both, only_champion, only_shadow, neither = (a + b for a, b in zip(totals.requests, firsts, strict=True))
            totals.requests = (both, only_champion, only_shadow, neither)

    def count_delays(self, joined: Joined, subjects: Sequence[Subject]) -> None:
        """Counts how long labels took; one that is written to several rows counts for each."""
        for subject in np.unique(joined.labels.subjects).tolist():
            delays = joined.labels.delays_s[joined.labels.subjects == subject].astype(np.float64)
            model = self.model(subjects[subject].version.model)
            cells = np.searchsorted(DELAY_EDGES_S, delays)
            for cell, count in enumerate(np.bincount(cells, minlength=len(DELAY_EDGES_S) + 1).tolist()):
                model.delays[cell] += count
            model.delay_sum_s += float(delays.sum())

    def count_mature(
        self, rows: Rows, is_labelled: NDArray[np.bool_], has_value: NDArray[np.bool_], subjects: Sequence[Subject]
    ) -> None:
        """Counts answers that are old enough, with the labels and values that came in time."""
        for subject, totals, mine in self._by_subject(rows):
            own, labelled, valued = rows[mine], is_labelled[mine], has_value[mine]
            totals.rows += len(own)
            totals.labelled += int(labelled.sum())
            is_first = own["row"][labelled] == 0
            totals.labelled_requests += int(is_first.sum())
            errors = (own["prediction"] - own["label"])[labelled]
            if subjects[subject].version.kind == "number":
                is_fit = np.abs(errors) <= MOST_ERROR
                totals.wrong += int((~is_fit).sum())
                errors = errors[is_fit]
                totals.error_sum += float(np.abs(errors).sum())
                totals.error_squares += float((errors**2).sum())
            else:
                totals.wrong += int((errors != 0).sum())
                totals.wrong_requests += int((errors[is_first] != 0).sum())
            values = own["value"][valued]
            totals.values += len(values)
            totals.value_sum += float(values.sum())
            totals.value_squares += float((values**2).sum())
            values = values[own["row"][valued] == 0]
            totals.request_values += len(values)
            totals.request_value_sum += float(values.sum())
            totals.request_value_squares += float((values**2).sum())

    def _by_subject(self, rows: Rows) -> Iterator[tuple[int, SubjectTotals, NDArray[np.bool_]]]:
        for subject in np.unique(rows["subject"]).tolist():
            yield subject, self.totals.setdefault(subject, SubjectTotals()), rows["subject"] == subject


def totals_of(
    step: int, counted: CountedLabels, subjects: Sequence[Subject], maturity_s: dict[str, float]
) -> LabelTotals:
    """The totals as those who decide read them."""
    versions = [
        VersionLabels(
            subjects[number].version.model,
            subjects[number].version.version,
            subjects[number].version.identity,
            ROLES[subjects[number].role],
            None if isnan(subjects[number].weight) else subjects[number].weight,
            totals,
        )
        for number, totals in sorted(counted.totals.items())
    ]
    pairs = []
    for key, of_pair in sorted(counted.pairs.items()):
        model, champion, shadow = key.split("\0")
        pairs.append(PairLabels(model, champion, shadow, of_pair))
    return LabelTotals(step, tuple(versions), tuple(pairs), maturity_s)
