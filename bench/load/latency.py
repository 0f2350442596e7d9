"""Percentiles of latencies. Called by whoever reports a run."""

import numpy as np
from numpy.typing import NDArray


def percentile(latencies_s: NDArray[np.float64], percent: float) -> float | None:
    """The smallest latency that at least `percent` of the requests did not exceed (nearest rank); None without any.

    A value that was really measured, never one between two.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile is above 0 and at most 100, got {percent}")
    if not latencies_s.size:
        return None
    return float(np.percentile(latencies_s, percent, method="inverted_cdf"))
