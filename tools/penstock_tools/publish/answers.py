"""The drift baseline of what a model answers: the class or the score that it predicts, and more numbers of its outputs.

Of a classifier the confidence is watched too, the largest of a row's scores; and every further output that is one number per
row. Servers read and count the same (`prediction.outputs`).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_server.drift import fit
from penstock_server.drift.baseline import MAX_ANSWERS, AnswerBaseline, Baseline, PredictionBaseline, Reads
from penstock_server.drift.expected_accuracy import fit_holdout
from penstock_server.errors import InvalidInputError
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.manifest import ClassLabel
from penstock_server.models.signature import TensorInfo
from penstock_server.models.watched_answers import FLOATS, can_be_watched
from penstock_server.prediction.outputs import LabelOutput, Largest, Number, OutputReader, output_reader

CONFIDENCE = "confidence"


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What the model answers to rows that it did not train on, in the order of time, and the truth.

    Attributes:
        outputs: the answers.
        labels: the truth [rows], as the model's classes are called.
    """

    outputs: Sequence[NDArray[Any]]
    labels: ArrayLike


class Answers:
    """How a model's outputs are read.

    Args:
        specs: its outputs.
        found: those that a classifier in its graph gives.
        class_output: the one that holds the class, if that is known.
        labels: the classes, if they are known.
    """

    def __init__(
        self,
        specs: Sequence[TensorInfo],
        found: ClassOutputs,
        class_output: str | None,
        labels: Sequence[ClassLabel] | None,
    ) -> None:
        self._specs = specs
        self._found = found
        self._class_output = class_output
        self._labels = tuple(labels or ())
        self.reader: OutputReader = output_reader(specs, found, class_output, tuple(map(str, self._labels)))

    def added_to(self, baseline: Baseline, outputs: Sequence[NDArray[Any]], held: Held | None = None) -> Baseline:
        """The baseline with what is watched of these outputs, those for the training rows; as it is where nothing is.

        Args:
            baseline: of the columns.
            outputs: for the same rows.
            held: a hold-out, by which a classifier's accuracy is expected. Its confidence is then compared with the hold-out's,
                since a model is surer of rows that it trained on.

        Raises:
            InvalidInputError: there is a hold-out, and the model is no classifier with scores, or the labels are not its own.
        """
        predictions = self._predictions(outputs)
        taken = {column.name for column in baseline.columns} | ({predictions.name} if predictions else set())
        more = list(self._more(has_predictions=predictions is not None))[:MAX_ANSWERS]
        confidence = None if held is None else self._confidence(more)
        answers = []
        for at, reads in more:
            name = _free(CONFIDENCE if reads == "largest" else self._specs[at].name, taken)
            taken.add(name)
            if held is not None and at == confidence:
                numbers, holdout = fit_holdout(name, _numbers(held.outputs, at), self._is_right(held))
                answers.append(AnswerBaseline(self._specs[at].name, reads, numbers, holdout))
            else:
                numbers = fit.fit_number(name, _numbers(outputs, at))
                answers.append(AnswerBaseline(self._specs[at].name, reads, numbers))
        return msgspec.structs.replace(baseline, predictions=predictions, answers=tuple(answers))

    def _confidence(self, more: Sequence[tuple[int, Reads]]) -> int:
        """The output that says how sure a classifier is: with a score for each class, or with one score."""
        known = [at for at, reads in more if reads == "largest" or self._specs[at].datatype in FLOATS]
        if self.reader.classes is None or not known:
            raise InvalidInputError(
                "a hold-out is for classifiers that give a score beside the class; this model does not"
            )
        return known[0]

    def _is_right(self, held: Held) -> NDArray[np.bool_]:
        """Whether each answer to the hold-out is the truth."""
        assert self.reader.classes is not None
        predicted = self.reader.classes(held.outputs)
        truth = [_plain(label) for label in np.asarray(held.labels).reshape(-1).tolist()]
        if len(truth) != len(predicted):
            raise InvalidInputError(f"there are {len(truth)} labels for {len(predicted)} rows of the hold-out")
        places = {_plain(label): place for place, label in enumerate(self._labels)}
        unknown = next((label for label in truth if places and label not in places), None)
        if unknown is not None:
            raise InvalidInputError(
                f"the hold-out has the label {unknown!r}, expected one of {', '.join(map(repr, [*places][:10]))}"
            )
        # Labels that are whole numbers are what the output holds; of all others it holds, or is, the place.
        is_place = not isinstance(self.reader.classes, LabelOutput) or any(
            isinstance(label, str) for label in self._labels
        )
        codes = (places.get(label, label) if is_place else label for label in truth)
        pairs = zip(codes, predicted.tolist(), strict=True)
        return np.array([code == found for code, found in pairs], np.bool_)

    def _predictions(self, outputs: Sequence[NDArray[Any]]) -> PredictionBaseline | None:
        """The predicted class, else the score."""
        if self.reader.classes is not None:
            texts = tuple(label for label in self._labels if isinstance(label, str))
            return fit.fit_classes(self._class_output or "class", self.reader.classes(outputs), texts)
        at = self.reader.score
        if at is None or outputs[at].size != len(outputs[at]):
            return None
        return fit.fit_number(self._specs[at].name, outputs[at].reshape(-1).astype(np.float64))

    def _more(self, *, has_predictions: bool) -> Iterator[tuple[int, Reads]]:
        """The outputs that are watched beside the predictions, the confidence first, and how each is read."""
        classes = self.reader.classes
        confidence = None if classes is None else self._scores()
        if confidence is not None:
            yield confidence, "largest"
        score = self.reader.score if has_predictions else None
        predicted = score if classes is None else classes.output
        for at, spec in enumerate(self._specs):
            if at != predicted and can_be_watched(spec, "value"):
                yield at, "value"

    def _scores(self) -> int | None:
        """The output with a score for each class."""
        classes = self.reader.classes
        if isinstance(classes, Largest):
            return classes.output if can_be_watched(self._specs[classes.output], "largest") else None
        for at, spec in enumerate(self._specs):
            is_of_classes = spec.name in self._found.scores or spec.shape[1:] == (len(self._labels),)
            if is_of_classes and spec.datatype in FLOATS and can_be_watched(spec, "largest"):
                return at
        return None


def _numbers(outputs: Sequence[NDArray[Any]], at: int) -> NDArray[np.float64]:
    return Number(at, 0)(outputs).astype(np.float64)


def _plain(label: Any) -> Any:
    """A label as classes are kept: text, or a whole number where it is one."""
    return int(label) if isinstance(label, int | float) and float(label).is_integer() else label


def _free(name: str, taken: Collection[str]) -> str:
    """A name like this that no column has, and no other answer."""
    while name in taken:
        name += " (answer)"
    return name
