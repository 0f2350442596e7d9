"""The drift baseline of what a model answers: the class or the score that it predicts, and more numbers of its outputs.

Of a classifier the confidence is watched too, the largest of a row's scores; and every further output that is one number per
row. Servers read and count the same (`prediction.outputs`).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import fit
from penstock_server.drift.baseline import MAX_ANSWERS, AnswerBaseline, Baseline, PredictionBaseline, Reads
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.manifest import ClassLabel
from penstock_server.models.signature import TensorInfo
from penstock_server.models.watched_answers import FLOATS, can_be_watched
from penstock_server.prediction.outputs import Largest, Number, OutputReader, output_reader

CONFIDENCE = "confidence"


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

    def added_to(self, baseline: Baseline, outputs: Sequence[NDArray[Any]]) -> Baseline:
        """The baseline with what is watched of these outputs, those for the training rows; as it is where nothing is."""
        predictions = self._predictions(outputs)
        taken = {column.name for column in baseline.columns} | ({predictions.name} if predictions else set())
        answers = []
        for at, reads in list(self._more(has_predictions=predictions is not None))[:MAX_ANSWERS]:
            name = _free(CONFIDENCE if reads == "largest" else self._specs[at].name, taken)
            taken.add(name)
            values = Number(at, 0)(outputs).astype(np.float64)
            answers.append(AnswerBaseline(self._specs[at].name, reads, fit.fit_number(name, values)))
        return msgspec.structs.replace(baseline, predictions=predictions, answers=tuple(answers))

    def predicted(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The predicted class of each row as serving counts it, else the score; of a model that predicts something."""
        classes = self.reader.classes
        return classes(outputs) if classes is not None else outputs[self.reader.score or 0].reshape(-1)

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


def _free(name: str, taken: Collection[str]) -> str:
    """A name like this that no column has, and no other answer."""
    while name in taken:
        name += " (answer)"
    return name
