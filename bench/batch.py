"""`python -m bench.batch`: rows that one core scores per second, and the same by scikit-learn's `pipeline.predict`.

Two pipelines: the flights of the example, with boosted trees behind categories and filled numbers, and the payments of the
other example, with a logistic regression. Both sides get chunks of 10,000 rows, one as a record batch and the other as a
frame, with one thread each. Answers are compared before anything is timed. They run in turns, and the best of many is told.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np

CHUNK_ROWS: Final = 10_000
ROUNDS: Final = 30
ASKED: Final = 10.0


def pipelines() -> dict[str, tuple[Any, Any, Any]]:
    """Fitted pipelines with their training rows and a chunk to score."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tools" / "examples"))
    import flights as example
    import fraud

    from penstock_tools.demo import flights

    frame = flights.load()
    training, later = flights.by_months(frame, [1, 2, 3]), flights.by_months(frame, [4, 5, 6])
    columns = list(flights.COLUMNS)
    payments, own = fraud.payments(4000 + CHUNK_ROWS), fraud.NUMBERS + fraud.TEXTS
    first, last = payments.head(4000), payments.tail(CHUNK_ROWS)
    return {
        "flights": (
            example.unfitted_pipeline().fit(training[columns], training["late"]),
            training[columns],
            later[columns].head(CHUNK_ROWS),
        ),
        "payments": (fraud.better_pipeline().fit(first[own], first["is_fraud"]), first[own], last[own]),
    }


def version_of(pipeline: Any, sample: Any, folder: Path) -> Any:
    """The pipeline as a version with a drift baseline, in a folder."""
    from penstock_server.models import artifact
    from penstock_tools.publish import golden
    from penstock_tools.publish.pipeline import prepare

    prepared = prepare(pipeline, sample)
    (folder / "model.onnx").write_bytes(prepared.graph.model.SerializeToString())
    (folder / "MLmodel").write_text("flavors: {}")
    baseline = golden.fit_baseline(
        prepared.graph,
        prepared.pipeline,
        {
            name: np.asarray(sample[name], object if sample[name].dtype.kind not in "fiu" else None)
            for name in prepared.pipeline.columns
        },
    )
    graph = prepared.graph
    return artifact.write(
        folder, features=prepared.features, baseline=baseline, classes=graph.classes, class_output=graph.class_output
    )


def best_s(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """The least CPU time of each call, of so many that come in turns."""
    best = [inf] * len(calls)
    for _ in range(rounds):
        for at, call in enumerate(calls):
            began = time.process_time()
            call()
            best[at] = min(best[at], time.process_time() - began)
    return best


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and tells; 1 if a pipeline is scored less than ten times as fast as by scikit-learn."""
    parser = argparse.ArgumentParser(prog="python -m bench.batch", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how many (default: {ROUNDS})")
    options = parser.parse_args(arguments)
    import pyarrow as pa

    from penstock_tools.batch.scoring import Scorer

    pa.set_cpu_count(1)
    slowest = inf
    for name, (pipeline, sample, chunk) in pipelines().items():
        with tempfile.TemporaryDirectory() as folder:
            scorer = Scorer(version_of(pipeline, sample, Path(folder)), (name, "1"))
            batch = pa.RecordBatch.from_pandas(chunk, preserve_index=False)
            ours = scorer(batch).column("probabilities_1").to_numpy()
            if not np.allclose(ours, pipeline.predict_proba(chunk)[:, 1], atol=1e-5):
                raise ValueError(f"{name}: the two sides answer differently")
            theirs_s, ours_s = best_s(
                [lambda p=pipeline, c=chunk: p.predict(c), lambda s=scorer, b=batch: s(b)], options.rounds
            )
            times = theirs_s / ours_s
            slowest = min(slowest, times)
            sys.stdout.write(
                f"{name}: scikit-learn {len(chunk) / theirs_s:,.0f} rows/s, Penstock {len(chunk) / ours_s:,.0f} rows/s of one "
                f"core, {times:.1f} times as many\n"
            )
            scorer.close()
    return int(slowest < ASKED)


if __name__ == "__main__":
    sys.exit(main())
