"""Minkowski's distances between rows, summed column by column in double precision."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.refusals import NotCompiled

_POWERS: Final[dict[str, float]] = {"manhattan": 1.0, "cityblock": 1.0, "l1": 1.0, "euclidean": 2.0, "l2": 2.0}


@dataclass(frozen=True, slots=True)
class Metric:
    """Minkowski's distance.

    Attributes:
        power: 1 for city blocks, 2 for Euclid's, inf for Chebyshev's.
    """

    power: float

    def reduced(self, x: Var, rows: NDArray[np.float64]) -> Var:
        """The sums of powers, without the root, FP64 [rows of x, rows].

        Args:
            x: FP64 [rows, columns].
            rows: fitted ones [rows, columns].
        """
        total: Var | None = None
        for at in range(rows.shape[1]):
            each = self.term(op.sub(ops.column(x, at), op.const(rows[:, at].reshape(1, -1))))
            total = each if total is None else self.sum(total, each)
        assert total is not None
        return total

    def distance(self, reduced: Var) -> Var:
        """The distances that belong to `reduced`."""
        if self.power == 2.0:
            return op.sqrt(reduced)
        return reduced if self.power in (1.0, np.inf) else op.pow(reduced, op.const(1.0 / self.power, np.float64))

    def sum(self, total: Var, term: Var) -> Var:
        """A sum of terms with one more."""
        return op.max([total, term]) if self.power == np.inf else op.add(total, term)

    def term(self, difference: Var) -> Var:
        """What a difference in one column adds."""
        if self.power == 2.0:
            return op.mul(difference, difference)
        size = op.abs(difference)
        return size if self.power in (1.0, np.inf) else op.pow(size, op.const(self.power, np.float64))


def metric_of(estimator: Any) -> Metric:
    """The metric of a fitted estimator of neighbours.

    Raises:
        NotCompiled: it is another than Minkowski's, or has weights.
    """
    name, params = estimator.effective_metric_, dict(estimator.effective_metric_params_)
    if params.get("w") is None:
        params.pop("w", None)
    if name == "chebyshev":
        return Metric(np.inf)
    if name == "minkowski" and set(params) <= {"p"}:
        return Metric(float(params.get("p", 2)))
    if name not in _POWERS or set(params) - {"p"}:
        raise NotCompiled(f"its metric {name} is not Minkowski's")
    return Metric(_POWERS[name])
