"""What a transformer of frames makes of each value of its columns of categories, found by asking the fitted transformer.

Encoders of other libraries have options for missing and unseen values that interact, and their versions differ. So no
option is read: the transformer itself transforms rows that differ in one column from a first row. They hold the values
that it knows, what is missing, and texts or numbers that nobody has seen. The answers become a table for each column, a
`Lookup` or `OneHot`; texts that become other texts stay a column of text. What the transformer refuses, the table
refuses. An answer that depends on several columns, or on what an unseen text says, is no table, and is refused.
"""

import copy
import warnings
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.features.spec import spec
from penstock_server.features.spec.spec import Categories
from penstock_server.features.spec.step_base import Unseen
from penstock_server.features.spec.steps import Lookup, Match, OneHot, Step
from penstock_tools.sklearn_compiler.columns import (
    Coded,
    InGraph,
    Meaning,
    Numbers,
    Part,
    Parts,
    Strings,
    Times,
    pick,
    singles,
    then,
)
from penstock_tools.sklearn_compiler.known import known_values
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused
from penstock_tools.sklearn_compiler.sample import Missing, missing_kind

_CALLS: Final = 512
"""How often the transformer is called at most; a row that it refuses is found by halves."""

_FIRSTS: Final = 8
"""How many first rows are tried; some of what is found in a transformer's state may be none of its categories."""

_UNSEEN_TEXTS: Final = ("penstock has never seen this", "Né 42", "~")
_UNSEEN_NUMBERS: Final = (-7.640625e17, 0.0390625171875, 3.5e12)

_MISSING: Final = {Missing.NAN: np.nan, Missing.NONE: None, Missing.NA: pd.NA, Missing.EMPTY: ""}
"""The kinds of missing values as a frame holds them. Where a missing text may be of any kind, the first counts."""


def by_asking(transformer: Any, parts: Parts, encoded: Collection[Hashable]) -> Parts:
    """What the transformer makes of the parts.

    Args:
        transformer: fitted on a frame, or on an array in whose place it takes a frame; it gives rows one for one.
        parts: the columns that it was fitted on, in their order.
        encoded: the names of the columns whose values it changes; it passes the others on, or drops them.

    Raises:
        NotCompiled: one of the columns is computed by the graph.
        Refused: it is no table for each column.
    """
    names = list(transformer.feature_names_in_)
    strangers = [name for name in encoded if name not in names]
    if strangers:
        raise Refused(f"it makes {strangers[0]!r} of several columns; encode each column alone")
    columns = singles(parts)
    if len(columns) != len(names):
        raise Refused(f"it was fitted on {len(names)} columns, and {len(columns)} reach it")
    questions = tuple(
        _question(part, known_values(transformer, name) if name in encoded else None)
        for name, part in zip(names, columns, strict=True)
    )
    answers = _Answers(transformer, names, questions)
    owners = answers.owners()
    made: list[Part] = []
    # What is passed on stays together, since the graph would compute it once for each part.
    for owner, run in groupby(range(len(owners)), key=lambda at: owners[at] if questions[owners[at]].encoded else None):
        chosen = list(run)
        if owner is None:
            made += pick(parts, [owners[at] for at in chosen])
        else:
            made.append(_encoded(questions[owner], answers.of(owner, chosen)))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Question:
    """What the transformer is asked about one column.

    Attributes:
        part: the column.
        encoded: whether the transformer changes its values; else one other value is asked, to see where it goes.
        wire: what requests may hold: texts, or numbers, of which None is NaN.
        asked: for each of these the values in a frame that it may be; the transformer must treat them alike.
        unseen: values that stand for all that is not in `wire`.
        firsts: values for the rows that ask about other columns, of which one at least should be taken.
    """

    part: Part
    encoded: bool
    wire: tuple[Any, ...]
    asked: tuple[tuple[Any, ...], ...]
    unseen: tuple[Any, ...]
    firsts: tuple[Any, ...]

    @property
    def values(self) -> list[Any]:
        """All values that are asked."""
        return [value for alike in (*self.asked, self.unseen) for value in alike]


def _question(part: Part, known: Sequence[str | float] | None) -> _Question:
    if known is None:
        first, other = ("a text", "another") if isinstance(part, Strings) else (1.0, 2.5)
        return _Question(part, False, (), (), (other,), (first,))
    if isinstance(part, InGraph | Times | Coded):
        raise NotCompiled("what comes before it is in the graph")
    if isinstance(part, Strings):
        texts = part.texts([value for value in known if isinstance(value, str)])
        if not any(isinstance(value, str) for value in known):
            raise Refused(f"it does not show which texts of column {part.column!r} it knows")
        asked = tuple(_as_held(meaning) for meaning in texts.values())
        unseen = _as_held(part.otherwise) if part.otherwise is not None else _unlike(known, _UNSEEN_TEXTS)
        return _Question(part, True, tuple(texts), asked, unseen, _firsts(asked, unseen))
    numbers = [value for value in known if not isinstance(value, str)]
    held = tuple((number,) for number in (*numbers, np.nan))
    unseen = _unlike(known, _UNSEEN_NUMBERS)
    return _Question(part, True, (*numbers, None), held, unseen, _firsts(held, unseen))


def _firsts(asked: Sequence[tuple[Any, ...]], unseen: Sequence[Any]) -> tuple[Any, ...]:
    return (*(alike[0] for alike in asked[: _FIRSTS - 1]), unseen[0])


def _as_held(meaning: Meaning) -> tuple[Any, ...]:
    """A text, or the missing values that the column may hold; where it may hold any, the commonest."""
    if isinstance(meaning, str):
        return (meaning,)
    kinds = [kind for kind in _MISSING if kind in meaning]
    return tuple(_MISSING[kind] for kind in (kinds[:1] if len(kinds) == len(_MISSING) else kinds))


def _unlike(known: Sequence[Any], candidates: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value for value in candidates if value not in known)


class _Refusal:
    """The answer to a row that the transformer refuses."""

    def __repr__(self) -> str:
        return "a refusal"


_REFUSED: Final = _Refusal()


@dataclass(frozen=True, slots=True)
class _Table:
    """What the values of one column become, in the columns that it gives: for each of `wire`, and for all others."""

    rows: tuple[tuple[Any, ...], ...]
    unseen: tuple[tuple[Any, ...], ...]


class _Answers:
    """All answers: a first row, and behind it each column's values in turn."""

    def __init__(self, transformer: Any, names: Sequence[Hashable], questions: Sequence[_Question]) -> None:
        # A copy, since its output is set to what can be read.
        self._transformer = copy.deepcopy(transformer)
        if hasattr(self._transformer, "set_output"):
            self._transformer.set_output(transform="default")
        if hasattr(self._transformer, "return_df"):
            self._transformer.return_df = True
        self._calls = 0
        self._names, self._questions = list(names), questions
        self._starts = np.cumsum([1, *(len(question.values) for question in questions)]).tolist()
        given = self._first_row()
        self._outputs = list(given.columns)
        rows = list(self._asked(self._frame(self._starts[-1])))
        first = next(given.itertuples(index=False, name=None))
        self._rows = [first if row is None else row for row in rows]
        self._is_refused = [row is None for row in rows]

    def _first_row(self) -> pd.DataFrame:
        """The answer to the first row, whose values are kept as the other rows' too."""
        for attempt in range(_FIRSTS):
            self._firsts = [question.firsts[min(attempt, len(question.firsts) - 1)] for question in self._questions]
            given = self._transformed(self._frame(1))
            if given is not None:
                return given
        raise Refused("it refuses the rows that it is asked about")

    def _frame(self, rows: int) -> pd.DataFrame:
        """The first rows of all that are asked."""
        frame = pd.DataFrame({at: self._column(at)[:rows] for at in range(len(self._names))})
        frame.columns = pd.Index(self._names, dtype=object)
        return frame

    def _column(self, at: int) -> NDArray[Any]:
        """The column's values in all rows."""
        question = self._questions[at]
        values = np.empty(self._starts[-1], object)
        values[:] = [self._firsts[at]] * len(values)
        values[self._starts[at] : self._starts[at + 1]] = question.values
        return values if isinstance(question.part, Strings) else values.astype(np.float64)

    def _asked(self, frame: pd.DataFrame) -> Iterator[tuple[Any, ...] | None]:
        """The answer for each row, None where the transformer refuses it."""
        answer = self._transformed(frame)
        if answer is not None:
            yield from answer.itertuples(index=False, name=None)
        elif len(frame) == 1:
            yield None
        else:
            half = len(frame) // 2
            yield from self._asked(frame.iloc[:half])
            yield from self._asked(frame.iloc[half:])

    def _transformed(self, frame: pd.DataFrame) -> pd.DataFrame | None:
        self._calls += 1
        if self._calls > _CALLS:
            raise Refused("it refuses too many of the values that it knows")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = self._transformer.transform(frame.reset_index(drop=True).copy())
        except (ValueError, TypeError, KeyError):
            return None
        if not isinstance(answer, pd.DataFrame) or len(answer) != len(frame):
            raise Refused("it does not give a frame with a row for each row")
        return answer

    def owners(self) -> list[int]:
        """For each column that the transformer gives the place of the column that it is made of.

        Raises:
            Refused: it is made of several, or of one that should only be passed on.
        """
        return [self._owner(at, name) for at, name in enumerate(self._outputs)]

    def _owner(self, at: int, name: Hashable) -> int:
        first = self._rows[0][at]
        moving = [
            place
            for place in range(len(self._questions))
            if any(not _is_same(row[at], first) for row in self._rows[self._starts[place] : self._starts[place + 1]])
        ]
        if len(moving) > 1:
            raise Refused(f"its column {str(name)!r} is made of several columns; encode each column alone")
        if not moving:
            # A constant: any column of categories can say it, best the one of that name.
            encoded = [place for place, question in enumerate(self._questions) if question.encoded]
            return next((place for place in encoded if self._names[place] == name), encoded[0])
        question, moved = self._questions[moving[0]], self._rows[self._starts[moving[0]]][at]
        is_passed_on = _is_same(first, self._firsts[moving[0]]) and _is_same(moved, question.unseen[0])
        if not question.encoded and not is_passed_on:
            raise Refused(f"it changes the column {str(name)!r}, which is none of those that it encodes")
        return moving[0]

    def of(self, owner: int, chosen: Sequence[int]) -> _Table:
        """What the values of a column become in these of the columns that the transformer gives."""
        question = self._questions[owner]
        found, start = [], self._starts[owner]
        for alike in (*question.asked, question.unseen):
            found.append(tuple(self._row(at, chosen) for at in range(start, start + len(alike))))
            start += len(alike)
        *known, unseen = found
        for value, rows in zip(question.wire, known, strict=True):
            if any(not _are_same(row, rows[0]) for row in rows):
                raise Refused(_told_apart(question.part, value, question))
        return _Table(tuple(rows[0] for rows in known), unseen)

    def _row(self, at: int, chosen: Sequence[int]) -> tuple[Any, ...]:
        return tuple(_REFUSED if self._is_refused[at] else self._rows[at][column] for column in chosen)


def _told_apart(part: Part, value: Any, question: _Question) -> str:
    assert isinstance(part, Strings)
    kinds = " and ".join(repr(each) for each in question.asked[question.wire.index(value)])
    return (
        f"column {part.column!r} has {kinds} and makes different numbers of them, which requests cannot tell apart, as a "
        "missing text is ''; make them one before the pipeline is fitted"
    )


def _encoded(question: _Question, table: _Table) -> Part:
    part = question.part
    if any(isinstance(value, str) for row in (*table.rows, *table.unseen) for value in row):
        return _text(question, table)
    rows = {value: row for value, row in zip(question.wire, table.rows, strict=True) if row[0] is not _REFUSED}
    unseen: Unseen = "refuse" if table.unseen[0][0] is _REFUSED else "code"
    if any(not _are_same(row, table.unseen[0]) for row in table.unseen):
        raise Refused("it computes something of texts or numbers that it has not seen")
    if unseen == "code":
        rows = {value: row for value, row in rows.items() if not _are_same(row, table.unseen[0])}
    of_unseen = table.unseen[0] if unseen == "code" else (np.nan,) * len(table.unseen[0])
    steps = _steps([*rows.values(), of_unseen], is_refusing=unseen == "refuse")
    if isinstance(part, Strings):
        return Numbers(spec.Text(part.column, Categories(tuple(rows), None, unseen), steps, part.prepare))
    assert isinstance(part, Numbers)
    return Numbers(then(part.block, Match((tuple(rows),), unseen), *steps))


def _steps(rows: Sequence[tuple[Any, ...]], *, is_refusing: bool) -> tuple[Step, ...]:
    """The step that makes the rows of their codes; where one place of many is 1 and the others 0, only its place is kept."""
    table = np.array([[_number(value) for value in row] for row in rows], np.float64)
    of_values = table[:-1] if is_refusing else table
    is_one_hot = table.shape[1] > 1 and np.isin(of_values, (0.0, 1.0)).all() and (of_values.sum(axis=1) <= 1).all()
    if is_one_hot:
        places = [int(row.argmax()) if row.max() == 1 else -1 for row in of_values]
        return (OneHot(((*places, -1) if is_refusing else tuple(places),), (table.shape[1],)),)
    return (Lookup((tuple(tuple(row) for row in table.tolist()),)),)


def _number(value: Any) -> float:
    return float("nan") if missing_kind(value) is not None else float(value)


def _text(question: _Question, table: _Table) -> Strings:
    """The column as text again."""
    part = question.part
    if not isinstance(part, Strings):
        raise Refused("it makes text of numbers; make text of them before the pipeline")
    if len(table.unseen[0]) > 1:
        raise Refused(f"it makes several texts of column {part.column!r}")
    becomes = {
        text: _meaning(row[0], meaning)
        for (text, meaning), row in zip(part.texts(question.wire).items(), table.rows, strict=True)
    }
    answers = [row[0] for row in table.unseen]
    if answers[0] is _REFUSED or all(map(_is_same, answers, question.unseen)):
        told_apart = {text: meaning for text, meaning in becomes.items() if meaning != text or text in part.becomes}
        return replace(part, becomes=told_apart)
    if any(not _is_same(answer, answers[0]) for answer in answers):
        raise Refused(f"what it makes of an unseen text in column {part.column!r} depends on the text")
    return replace(part, becomes=becomes, otherwise=_meaning(answers[0], ""))


def _meaning(answer: Any, before: Meaning) -> Meaning:
    """What a text stands for now. What the transformer refuses is left as it was, for the pipeline refuses it."""
    if answer is _REFUSED:
        return before
    kind = missing_kind(answer)
    if kind is not None:
        # It stays of the kinds that it was.
        return before if isinstance(before, frozenset) and kind in before else frozenset({kind})
    if not isinstance(answer, str):
        raise Refused(f"it makes texts and numbers of one column, such as {answer!r}")
    return answer


def _is_same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    kinds = missing_kind(left), missing_kind(right)
    if kinds != (None, None):
        return kinds[0] is kinds[1] or (None not in kinds and Missing.EMPTY not in kinds)
    return bool(left == right)


def _are_same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return all(map(_is_same, left, right))
