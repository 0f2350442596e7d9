"""`python -m bench.explain`: what attributions cost beside the prediction, for one row.

A gradient-boosted classifier of 100 trees of depth 6 over 20 number columns is published into a folder and served. Two
ratios are printed: of the server's own computation, in this process, and of calls from a client over the wire. Both sides are
timed in turns, so that what else the machine does meets both; medians are shown.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from penstock_client import Client
from penstock_server.models import artifact
from penstock_server.models.loader import load
from penstock_server.models.servable import OnnxServable
from penstock_tools.explain.explanation import explained
from penstock_tools.publish.pipeline import prepare
from penstock_tools.server_process import PENSTOCK, ServerProcess

TREES: Final = 100
DEPTH: Final = 6
COLUMNS: Final = 20
TURNS: Final = 400
_REPEATS: Final = 20
_TRAINING_ROWS: Final = 4000


def publish(folder: Path) -> Any:
    """Writes the version, and returns its training rows."""
    import pandas as pd
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    names = [f"c{at}" for at in range(COLUMNS)]
    rows = pd.DataFrame(random.normal(size=(_TRAINING_ROWS, COLUMNS)), columns=names)
    score = rows["c0"] * rows["c1"] + np.sin(3 * rows["c2"]) + rows["c3"] + random.normal(size=len(rows))
    trees = GradientBoostingClassifier(n_estimators=TREES, max_depth=DEPTH, max_features=5, random_state=0)
    prepared = prepare(make_pipeline(StandardScaler(), trees).fit(rows, score > 0), rows)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(prepared.graph.model.SerializeToString())
    explanation = explained(prepared.compiled, prepared.pipeline)
    artifact.write(folder, features=prepared.features, explanation=explanation)
    return rows


def alternating(
    plain: Callable[[], Any], explaining: Callable[[], Any], turns: int, repeats: int
) -> tuple[float, float]:
    """The median seconds of each, measured in turns of `repeats` calls."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for call, times in zip((plain, explaining), taken, strict=True):
            started = time.perf_counter()
            for _ in range(repeats):
                call()
            times.append((time.perf_counter() - started) / repeats)
    return median(taken[0]), median(taken[1])


def computed(folder: Path, rows: Any) -> tuple[float, float]:
    """What the server computes for a row: features and graph, and both with attributions."""
    servable, _ = load(("explained", "1"), folder, threads=1, max_rows=64)
    assert isinstance(servable, OnnxServable)
    assert servable.explaining is not None, servable.unexplained
    blocks = [[rows.iloc[[at]].to_numpy(np.float64).tobytes()] for at in range(_REPEATS)]
    explaining = servable.explaining[0]

    def run(each: Any) -> Callable[[], Any]:
        turn = iter(range(sys.maxsize))
        return lambda: each.predict(blocks[next(turn) % _REPEATS], 1, None, None)

    return alternating(run(servable), run(explaining), TURNS, _REPEATS)


def called(repository: Path, rows: Any) -> tuple[float, float]:
    """A call from a client, without and with attributions."""
    arguments = ["serve", "--model-repository", str(repository), "--port", "0", "--http-port", "0"]
    with ServerProcess([*PENSTOCK, *arguments]) as server, Client(server.wait_ready().grpc) as client:
        given = [rows.iloc[[at]] for at in range(_REPEATS)]
        values = [{name: one[name].to_numpy() for name in one.columns} for one in given]

        def run(*, explain: bool) -> Callable[[], Any]:
            turn = iter(range(sys.maxsize))
            return lambda: client.predict("explained", values[next(turn) % _REPEATS], explain=explain)

        return alternating(run(explain=False), run(explain=True), TURNS // 4, _REPEATS)


def measured(repository: Path, rows: Any) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each of the two ratios as its two sides, once it was measured."""
    yield "computation", computed(repository / "explained" / "1", rows)
    yield "call", called(repository, rows)


def main() -> int:
    """Measures and prints."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        repository = Path(scratch)
        rows = publish(repository / "explained" / "1")
        print(f"{TREES} trees of depth {DEPTH}, {COLUMNS} columns, one row; microseconds")
        for name, (plain_s, explaining_s) in measured(repository, rows):
            ratio = explaining_s / plain_s
            print(f"{name:12} {plain_s * 1e6:8.1f} {explaining_s * 1e6:8.1f} with attributions, {ratio:.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
