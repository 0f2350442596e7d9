"""`python -m bench.models_as_kernels`: graphs as programs of our kernels, and the same in onnxruntime, from a request's bytes.

Each graph is proven as a server proves it before it is timed: what is refused stops the measurement. CPU time is counted, in
turns, and the best of many is printed, as in `features`.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import models
from penstock_server.compiled_models import graph, proof
from penstock_server.compiled_models.compiled_model import CompiledModel
from penstock_server.compiled_models.program import Given, Vectors, compile_graph
from penstock_server.kernels.processor import this_processor
from penstock_server.models.onnx_model import OnnxModel

ROWS: Final = (1, 8, 64, 1024)
TIMED_S: Final = 0.5
_COLUMNS: Final = 30
_TRAINING_ROWS: Final = 4000
_TURNS: Final = 20


def fitted() -> dict[str, Callable[[], bytes]]:
    """The graphs, by what they are."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    return {
        "boosting, 100 trees of depth 3": models.tabular,
        "boosting, 300 trees of 31 leaves": lambda: _converted(
            HistGradientBoostingClassifier(max_iter=300, max_leaf_nodes=31, early_stopping=False)
        ),
        "XGBoost, 100 trees of depth 6": _xgboost,
        "random forest, 100 deep trees": lambda: _converted(RandomForestClassifier(100, random_state=0)),
        "logistic regression": lambda: _converted(LogisticRegression()),
        "perceptron, 30-32-1": lambda: _converted(MLPClassifier((32,), max_iter=20, random_state=0)),
    }


def _training() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    rows = random.normal(size=(_TRAINING_ROWS, _COLUMNS)).astype(np.float32)
    return rows, (rows[:, 0] + rows[:, 1] * rows[:, 2] + random.normal(size=len(rows)) > 0).astype(int)


def _converted(estimator: Any) -> bytes:
    from skl2onnx import to_onnx

    rows, labels = _training()
    options, opsets = {"zipmap": False}, {"": 17, "ai.onnx.ml": 3}
    return bytes(
        to_onnx(estimator.fit(rows, labels), rows[:1], options=options, target_opset=opsets).SerializeToString()
    )


def _xgboost() -> bytes:
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    trees = xgboost.XGBClassifier(n_estimators=100, max_depth=6).fit(*_training())
    types = [("X", FloatTensorType([None, _COLUMNS]))]
    return bytes(onnxmltools.convert_xgboost(trees, initial_types=types).SerializeToString())


def both(content: bytes, folder: Path) -> tuple[OnnxModel, CompiledModel]:
    """The graph in onnxruntime and as kernels, which are proven.

    Raises:
        AssertionError: they are not.
    """
    path = folder / "model.onnx"
    path.write_bytes(content)
    session = OnnxModel(path)
    spec = session.signature.inputs[0]
    given = Given(spec.name, spec.shape[1], ("FP32", "FP64").index(spec.datatype))
    program = compile_graph(graph.read(content), given, Vectors.of(this_processor().flags))
    kernels = CompiledModel(program)
    why = proof.difference(
        program, lambda rows: kernels.run(rows.tobytes(), len(rows)), lambda rows: session.run({spec.name: rows}), None
    )
    assert not why, why
    return session, kernels


def times_s(session: OnnxModel, kernels: CompiledModel, rows: int, seconds: float) -> tuple[float, float]:
    """What kernels and onnxruntime take for so many rows, from raw contents to arrays."""
    matrix = np.random.default_rng(1).normal(size=(rows, session.signature.inputs[0].shape[1])).astype(np.float32)
    block = matrix.tobytes()
    calls = (lambda: kernels.run(block, rows), lambda: session.run(session.feeds([block], [matrix.shape])))
    best = [inf, inf]
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        for at, call in enumerate(calls):
            begun = time.process_time_ns()
            for _ in range(_TURNS):
                call()
            best[at] = min(best[at], (time.process_time_ns() - begun) / _TURNS * 1e-9)
    return best[0], best[1]


def measure(seconds: float = TIMED_S) -> dict[str, list[tuple[float, float]]]:
    """For each graph and number of rows the seconds of kernels and of onnxruntime."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        for name, make in fitted().items():
            session, kernels = both(make(), Path(scratch))
            found[name] = [times_s(session, kernels, rows, seconds) for rows in ROWS]
    return found


def table_of(found: dict[str, list[tuple[float, float]]]) -> str:
    """The times as a table."""
    lines = ["".join([f"{'microseconds':34}", *(f"{f'{rows:,} rows':>28}" for rows in ROWS)])]
    for name, times in found.items():
        cells = [f"{ours * 1e6:,.1f}, not {theirs * 1e6:,.1f} ({theirs / ours:.1f}x)" for ours, theirs in times]
        lines.append("".join([f"{name:34}", *(f"{cell:>28}" for cell in cells)]))
    return "\n".join(lines)


def main() -> int:
    """Measures and prints."""
    print(table_of(measure(float(sys.argv[1]) if len(sys.argv) > 1 else TIMED_S)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
