"""Joins labels with answers, one step after another; what a step has done is there whole or not at all.

A step takes what workers have written: first the answers, then the labels that have lain for a moment, so that all answers to
their ids are there, a shadow's too. Labels without an answer wait. Then the answers that have become old enough are counted.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels import label_file, prediction_file, report, state
from penstock_server.labels.join import UNKNOWN, Joined, WrittenRows, join
from penstock_server.labels.keys import word_of
from penstock_server.labels.peers import Peers
from penstock_server.labels.prediction_file import (
    KEY,
    PREDICTION,
    ROW,
    SCORE,
    TIME_NS,
    VERSION_ROLE,
    WEIGHT,
    AnsweredVersion,
    read_table,
)
from penstock_server.labels.ring import NUMBER, Ring, rings_in
from penstock_server.labels.segment import ROW as STORED
from penstock_server.labels.segment import Rows
from penstock_server.labels.settings import LabelSettings
from penstock_server.labels.store import ANSWERS, LabelStore, Place, numbers_of
from penstock_server.labels.subjects import ClassTable, Subject
from penstock_server.labels.totals import totals_of
from penstock_server.labels.waiting import WaitingLabels
from penstock_server.labels.windows import Windows
from penstock_server.labels.wire import MODEL, PASSED_ON, RECEIVED_NS
from penstock_server.labels.wire import ROW as LABEL_ROW

SETTLE_NS: Final = 1_000_000_000
"""How long a label lies before it is joined: by then a shadow has answered too, and all workers' answers are taken."""
MOST_ANSWERS: Final = 65536
MOST_LABELS: Final = 65536
"""What a step takes at most."""
MOST_PASSED: Final = 4096
MOST_MATURE: Final = 1 << 20
MOST_SUBJECTS: Final = 2048
MOST_PAIRS: Final = 2048
RECALLED: Final = 1 << 22
"""Rows that are looked through for the windows when the joiner starts: the latest."""
_BILLION: Final = 1_000_000_000


class Joiner:
    """Takes from the files of a folder, and keeps what it knows there.

    Args:
        folder: of the workers' files and the joiner's own.
        settings: of labels.
        now_ns: since 1970.
        peers: get the labels that no answer here is for; None for nobody.

    Attributes:
        state: after the last step.

    Raises:
        OSError: a file cannot be opened.
    """

    def __init__(self, folder: Path, settings: LabelSettings, now_ns: int, peers: Peers | None = None) -> None:
        self._folder = folder
        self._peers = peers
        self._settings = settings
        self.state, intent = state.load(folder)
        unsure = intent.segments if intent.step > self.state.step else ()
        self._store = LabelStore(
            folder / ANSWERS, settings.keep_bytes, self.state.segments, unsure=unsure, step=self.state.step
        )
        first, end = self.state.waiting
        self._waiting = WaitingLabels(
            folder, first=first, end=end, step=self.state.step, now_ns=now_ns, settle_ns=SETTLE_NS
        )
        self._rings: dict[str, Ring] = {}
        self._tables: dict[str, tuple[AnsweredVersion, ...]] = {}
        self._numbers = {subject: number for number, subject in enumerate(self.state.subjects)}
        self._class_tables = [ClassTable(subject.version) for subject in self.state.subjects]
        self._windows = Windows()
        self._begin_ages()
        self._recall()

    def step(self, now_ns: int, *, is_last: bool = False) -> bool:
        """Takes what is there; whether there may be more to take at once.

        Args:
            now_ns: since 1970.
            is_last: no worker writes any more, so labels need not lie.

        Raises:
            OSError: something cannot be written; then a new joiner goes on from the last state.
        """
        known = self.state
        before = self._marks()
        step = known.step + 1
        has_more = self._take_answers(now_ns)
        taken = 0
        if not has_more:
            taken = self._take_labels(now_ns, step, settle_ns=0 if is_last else SETTLE_NS)
        self._give_up(now_ns, step)
        self._pass_on(now_ns)
        self._count_mature(now_ns)
        self._shed(now_ns)
        if self._marks() == before:
            return False
        known.step = step
        known.segments = self._store.state
        known.waiting = (self._waiting.first, self._waiting.end)
        state.save(self._folder, known)
        self._store.sweep()
        for name, ring in self._rings.items():
            ring.release(known.cursors[name])
        return has_more or taken >= MOST_LABELS

    def report(self, now_ns: int) -> report.Report:
        """What is known now."""
        known = self.state
        rings = [(Path(name).stem, ring.lost) for name, ring in self._rings.items()]
        kept = report.Kept(
            answers=self._store.rows,
            bytes=self._store.size_bytes,
            most_bytes=self._settings.keep_bytes,
            oldest_ns=self._store.oldest_ns,
            waiting=len(self._waiting),
            lost=sum(lost for name, lost in rings if name.startswith(prediction_file.KIND)),
            early=known.early,
            refused=sum(lost for name, lost in rings if name.startswith(label_file.KIND)),
        )
        models = sorted({subject.version.model for subject in known.subjects})
        maturity_s = {model: self._settings.of(model).maturity_s for model in models}
        qualities = [
            report.VersionQuality(version.model, version.version, version.identity, quality)
            for version, quality in self._windows.qualities()
        ]
        totals = totals_of(known.step, known.counted, known.subjects, maturity_s)
        peers = {} if self._peers is None else self._peers.counts()
        return report.Report(now_ns, kept, totals, tuple(qualities), known.counted.models, peers)

    def close(self) -> None:
        """Closes the store's files."""
        self._store.close()

    def _marks(self) -> tuple[object, ...]:
        """What changes with all that is done in a step."""
        known = self.state
        return dict(known.cursors), self._store.state, len(self._waiting), self._waiting.end, dict(known.mature)

    def _taken(self, kind: str, most: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """What is there in each ring of a kind, at most so many records of each; the rings' cursors stay."""
        for path in rings_in(self._folder, kind):
            name = path.name
            if name not in self._rings:
                try:
                    self._rings[name] = Ring(path)
                except (OSError, ValueError):
                    continue  # it is being made
            ring = self._rings[name]
            cursor = self.state.cursors.get(name)
            places = len(ring.records)
            if cursor is None or (cursor and ring.records[(cursor - 1) % places, NUMBER] != cursor):
                # The file is another one than it was, or is seen for the first time.
                cursor = self.state.cursors[name] = ring.taken
            yield name, ring.read(cursor, most)

    def _take_answers(self, now_ns: int) -> bool:
        """Keeps the answers that are there; whether there are more."""
        most = min(MOST_ANSWERS, self._store.capacity)
        has_more = False
        for name, records in self._taken(prediction_file.KIND, most):
            has_more |= len(records) == most
            if not len(records):
                continue
            self.state.cursors[name] += len(records)
            rows = self._rows_of(name, records)
            self._store.append(rows)
            self._waiting.wake(rows["key"], now_ns + SETTLE_NS)
        return has_more

    def _rows_of(self, name: str, records: NDArray[np.int64]) -> Rows:
        numbers, words = records.view(np.float64), records.view(np.uint64)
        rows = np.zeros(len(records), STORED)
        rows["key"] = words[:, KEY]
        rows["time_ns"] = records[:, TIME_NS]
        rows["row"] = records[:, ROW]
        rows["prediction"] = numbers[:, PREDICTION]
        rows["score"] = numbers[:, SCORE]
        # Few versions, roles and weights stand for many records.
        mixed = words[:, VERSION_ROLE] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, WEIGHT]
        _, first, of_record = np.unique(mixed, return_index=True, return_inverse=True)
        subjects: list[int | None] = []
        for at in first.tolist():
            subjects.append(self._subject(name, int(records[at, VERSION_ROLE]), float(numbers[at, WEIGHT]), subjects))
        is_known = np.array([each is not None for each in subjects])[of_record]
        rows["subject"] = np.array([each or 0 for each in subjects])[of_record]
        kept: Rows = rows[is_known]
        return kept

    def _subject(self, name: str, version_role: int, weight: float, taken: Sequence[int | None]) -> int | None:
        """The number of what a record is about; None if the table of its file does not say, or there is no number left.

        Numbers that are `taken` are about rows that are not kept yet.
        """
        place, role = version_role & 0xFFFFFFFF, version_role >> 32
        if place >= len(self._tables.get(name, ())):
            self._tables[name] = read_table(self._folder / name)
        if place >= len(self._tables[name]) or not 0 <= role < len(prediction_file.ROLES):
            return None
        subject = Subject(self._tables[name][place], role, weight)
        number = self._numbers.get(subject)
        if number is None:
            number = len(self.state.subjects)
            if number >= MOST_SUBJECTS:
                number = self._unused_number(taken)
                if number is None:
                    return None
                del self._numbers[self.state.subjects[number]]
                self.state.counted.totals.pop(number, None)
                self.state.subjects[number] = subject
                self._class_tables[number] = ClassTable(subject.version)
            else:
                self.state.subjects.append(subject)
                self._class_tables.append(ClassTable(subject.version))
            self._numbers[subject] = number
        return number

    def _unused_number(self, taken: Sequence[int | None]) -> int | None:
        used = [np.unique(segment.rows["subject"][: segment.count]) for segment in self._store.segments]
        mine = np.array([number for number in taken if number is not None], np.int64)
        free = np.setdiff1d(np.arange(MOST_SUBJECTS), np.concatenate([*used, mine]))
        return int(free[0]) if len(free) else None

    def _take_labels(self, now_ns: int, step: int, *, settle_ns: int) -> int:
        """Joins labels that have lain long enough; how many were taken."""
        fresh = []
        for name, records in self._taken(label_file.KIND, MOST_LABELS):
            is_young = records[:, RECEIVED_NS] > now_ns - settle_ns
            ready = records[: int(is_young.argmax())] if is_young.any() else records
            self.state.cursors[name] += len(ready)
            fresh.append(ready)
        for ready in fresh:
            self._waiting.hasten(ready.view(np.uint64)[:, KEY], now_ns)
        # Those that are to be given up are looked at once more: their answers may have come just now.
        due = self._waiting.due(now_ns, now_ns - round(self._settings.wait_s * _BILLION))
        fresh.append(self._waiting.at(due))
        every = np.concatenate(fresh)
        if not len(every):
            return 0
        order = np.argsort(every[:, RECEIVED_NS], kind="stable")
        waited_at = np.concatenate([np.full(len(every) - len(due), -1), due])[order]
        every, has_waited = every[order], waited_at >= 0
        states = self._joined(every, step).states
        is_unknown = states == UNKNOWN
        self._count_states(every[~is_unknown], states[~is_unknown])
        given_up = self._waiting.add(every[is_unknown & ~has_waited], now_ns)
        self._count_states(given_up, np.full(len(given_up), UNKNOWN))
        self._waiting.done(waited_at[has_waited & ~is_unknown], step)
        self._waiting.rest(waited_at[has_waited & is_unknown])
        return len(every) - len(due)

    def _joined(self, records: NDArray[np.int64], step: int) -> Joined:
        known = self.state
        found = self._store.find(records.view(np.uint64)[:, KEY])
        maturity_s = np.array([self._settings.of(each.version.model).maturity_s for each in known.subjects])
        joined = join(records, found, known.subjects, self._class_tables, maturity_s)
        touched = np.concatenate([joined.labels.places, joined.values.places])
        if len(touched):
            state.intend(self._folder, state.Intent(step, tuple(numbers_of(touched))))
            self._write("label", joined.labels, step)
            self._write("value", joined.values, step)
            known.counted.count_pairs(joined.pairs, known.subjects)
            known.counted.count_delays(joined, known.subjects)
            while len(known.counted.pairs) > MOST_PAIRS:
                del known.counted.pairs[next(iter(known.counted.pairs))]
        return joined

    def _write(self, what: str, written: WrittenRows, step: int) -> None:
        self._store.write(written.places, what, written.values)
        self._store.write(written.places, f"{what}_delay_s", written.delays_s)
        self._store.write(written.places, f"{what}_step", step)

    def _count_states(self, records: NDArray[np.int64], states: NDArray[np.int64] | None) -> None:
        """Counts what became of labels; None for those that were passed on."""
        names = {word_of(subject.version.model): subject.version.model for subject in self.state.subjects}
        words = records.view(np.uint64)[:, MODEL]
        for word in np.unique(words).tolist():
            mine = words == word
            is_from_peer = (records[mine, LABEL_ROW] & PASSED_ON) != 0
            counts = self.state.counted.model(names.get(word, ""))
            if states is None:
                counts.add("passed_on", int(mine.sum()))
            else:
                counts.count(states[mine], is_from_peer)

    def _give_up(self, now_ns: int, step: int) -> None:
        """Gives up the labels that have waited for as long as they may."""
        places = self._waiting.since(now_ns - round(self._settings.wait_s * _BILLION))
        if len(places):
            records, is_passed = self._waiting.at(places), self._waiting.is_passed(places)
            # Whether a peer has had the answer is counted there.
            self._count_states(records[~is_passed], np.full(int((~is_passed).sum()), UNKNOWN))
            self._count_states(records[is_passed], None)
            self._waiting.done(places, step)

    def _pass_on(self, now_ns: int) -> None:
        """Offers labels that have waited for a moment to peers, once."""
        if self._peers is None:
            return
        for places, turns in self._peers.taken():
            self._waiting.passed(places, turns)
        places, turns = self._waiting.to_pass(now_ns - SETTLE_NS, MOST_PASSED)
        if len(places) and self._peers.offer(places, turns, self._waiting.at(places)):
            self._waiting.leaves(places)

    def _ages(self) -> dict[str, float]:
        """The ages at which answers of some model count, as the state names them."""
        settings = self._settings
        ages = {settings.maturity_s, *(settings.of(model).maturity_s for model in settings.models)}
        return {repr(age): age for age in sorted(ages)}

    def _begin_ages(self) -> None:
        """Has answers of an age that is new here count from now on: older ones have counted at another age."""
        mature, ages = self.state.mature, self._ages()
        start = self._store.end if mature else Place(0, 0)
        self.state.mature = {name: mature.get(name, start) for name in ages}

    def _count_mature(self, now_ns: int) -> None:
        """Counts the answers that have become old enough."""
        for name, age_s in self._ages().items():
            before_ns = now_ns - round(age_s * _BILLION) - 2 * SETTLE_NS
            self.state.mature[name] = self._mature(self.state.mature[name], before_ns, age_s)

    def _mature(self, start: Place, before_ns: int, age_s: float) -> Place:
        known = self.state
        of_age = np.array([self._settings.of(each.version.model).maturity_s == age_s for each in known.subjects])
        for number, rows in self._store.between(start, MOST_MATURE):
            is_young = rows["time_ns"] > before_ns
            ready = rows[: int(is_young.argmax())] if is_young.any() else rows
            first = start.row if number == start.number else 0
            start = Place(number, first + len(ready))
            mine = ready[of_age[ready["subject"]]] if len(ready) else ready
            self._count(mine, age_s, is_new=True)
            if len(ready) < len(rows):
                break
        return start

    def _count(self, rows: Rows, age_s: float, *, is_new: bool) -> None:
        if not len(rows):
            return
        is_labelled = (rows["label_step"] != 0) & (rows["label_delay_s"] <= age_s)
        has_value = (rows["value_step"] != 0) & (rows["value_delay_s"] <= age_s)
        subjects = self.state.subjects
        if is_new:
            self.state.counted.count_mature(rows, is_labelled, has_value, subjects)
        labelled = rows[is_labelled]
        for version, numbers in _by_version(np.unique(labelled["subject"]).tolist(), subjects):
            self._windows.add(version, labelled[np.isin(labelled["subject"], numbers)])

    def _recall(self) -> None:
        """Fills the windows from the store, as they were."""
        ends = dict(self.state.mature)
        left = RECALLED
        parts: list[tuple[int, Rows]] = []
        for segment in reversed(self._store.segments):
            if left <= 0:
                break
            parts.append((segment.number, segment.rows[: segment.count]))
            left -= segment.count
        for number, rows in reversed(parts):
            for name, age_s in self._ages().items():
                end = ends.get(name, Place(0, 0))
                mature = rows if number < end.number else rows[: end.row] if number == end.number else rows[:0]
                of_age = np.array(
                    [self._settings.of(each.version.model).maturity_s == age_s for each in self.state.subjects]
                )
                self._count(mature[of_age[mature["subject"]]], age_s, is_new=False)

    def _shed(self, now_ns: int) -> None:
        """Lets go of answers that are too old, or too many."""
        before_ns = now_ns - round(self._settings.keep_s * _BILLION)
        if self._store.shed(before_ns):
            first = self._store.segments[0].number if self._store.segments else self._store.end.number + 1
            self.state.early += self._lost_early(first)
        self._windows.forget_before(before_ns)

    def _lost_early(self, first: int) -> int:
        """How many of the answers before a segment had not become old enough; of several ages the longest."""
        lost = 0
        for segment in self.state.segments:
            if segment.number >= first:
                continue
            done = [
                segment.rows if place.number > segment.number else place.row if place.number == segment.number else 0
                for place in self.state.mature.values()
            ]
            lost += segment.rows - min(done, default=0)
        return lost


def _by_version(numbers: Sequence[int], subjects: Sequence[Subject]) -> Iterator[tuple[AnsweredVersion, list[int]]]:
    """The numbers of subjects, by the version that they are about."""
    found: dict[AnsweredVersion, list[int]] = {}
    for number in numbers:
        found.setdefault(subjects[number].version, []).append(number)
    yield from found.items()
