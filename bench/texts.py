"""`python -m bench.texts`: texts of twenty words, classified by tf-idf and a logistic regression, and the same in scikit-learn.

The words are made up, with frequencies as in a language (Zipf's law); the vocabulary is of words, and of words and their
pairs. Both sides' probabilities are compared before anything is timed. The best of many runs is printed, as in `features`.
"""

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bench.features import TIMED_S, best_s
from penstock.names import MATRIX_INPUT
from penstock.tensors import join_bytes
from penstock_tools.publish.pipeline import prepare

ROWS: Final = (1, 64)
WORDS_PER_TEXT: Final = 20
_TRAINING_ROWS: Final = 4000
_WORDS: Final = 20_000


def texts(rows: int, seed: int) -> list[str]:
    """Texts of words whose frequency falls with their rank."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, random.integers(2, 11))) for _ in range(_WORDS)]
    share = 1 / np.arange(1, _WORDS + 1)
    chosen = np.random.default_rng(seed).choice(words, (rows, WORDS_PER_TEXT), p=share / share.sum())
    return [f"{' '.join(row).capitalize()}." for row in chosen]


def fitted(longest: int, training: list[str]) -> Any:
    """A pipeline for grams of up to `longest` words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    labels = np.random.default_rng(1).integers(0, 2, len(training))
    return make_pipeline(TfidfVectorizer(ngram_range=(1, longest)), LogisticRegression()).fit(training, labels)


def compiled(pipeline: Any, sample: list[str], given: list[str]) -> Callable[[], Any]:
    """The call that answers the probabilities of these texts, from the bytes of a request."""
    import pandas as pd

    prepared = prepare(pipeline, pd.Series(sample, name="text"))
    raw = [join_bytes([text.encode() for text in given])]
    features, graph, rows = prepared.pipeline, prepared.graph.runtime, len(given)
    names = [spec.name for spec in graph.signature.outputs]

    def call() -> Any:
        out = np.empty((rows, features.width), features.dtype)
        features.run(b"", raw, rows, out, None)
        return graph.run({MATRIX_INPUT: out})[names.index("probabilities")]

    return call


def measure(seconds: float = TIMED_S, rows: int = _TRAINING_ROWS) -> dict[str, list[tuple[float, float]]]:
    """For each vocabulary and number of rows the seconds of Penstock and of scikit-learn.

    Raises:
        AssertionError: they answer differently.
    """
    training, given = texts(rows, 2), texts(max(ROWS), 3)
    found = {}
    for name, longest in (("words", 1), ("words and pairs", 2)):
        pipeline = fitted(longest, training)
        times = []
        for count in ROWS:
            ours = compiled(pipeline, training[:200], given[:count])
            theirs = lambda count=count, pipeline=pipeline: pipeline.predict_proba(given[:count])  # noqa: E731 - timed as it is
            np.testing.assert_allclose(ours(), theirs(), atol=1e-5)
            times.append((best_s(ours, seconds), best_s(theirs, seconds)))
        found[f"{name} ({len(pipeline[0].vocabulary_):,})"] = times
    return found


def table_of(found: dict[str, list[tuple[float, float]]]) -> str:
    """The times as a table."""
    lines = ["".join([f"{'microseconds':26}", *(f"{f'{count} texts':>40}" for count in ROWS)])]
    for name, times in found.items():
        cells = [
            f"{ours * 1e6:,.1f}, scikit-learn {theirs * 1e6:,.1f} ({theirs / ours:.0f}x)" for ours, theirs in times
        ]
        lines.append("".join([f"{name:26}", *(f"{cell:>40}" for cell in cells)]))
    return "\n".join(lines)


def main() -> int:
    """Measures and prints."""
    print(table_of(measure(float(sys.argv[1]) if len(sys.argv) > 1 else TIMED_S)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
