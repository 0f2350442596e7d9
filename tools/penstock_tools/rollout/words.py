"""How what a server knows of rollouts and experiments is written, in a terminal and on a page."""

import time
from collections.abc import Mapping
from typing import Any, Final

INTERVALS: Final = "Intervals hold at every look with a chance of 95 %, each by itself."
_RATES: Final = frozenset({"errors", "p50", "p95", "p99"})


def moment(at_s: float | None) -> str:
    """A time in UTC; "" for none."""
    return "" if at_s is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.4g} %"


def between(low: float | None, high: float | None) -> str:
    """An interval; nothing where it has no end that says something.

    >>> between(0.9, 1.2), between(None, 2), between(0.0, None)
    ('0.9 to 1.2', 'up to 2', '')
    """
    if high is None:
        return f"from {low:.3g}" if low else ""
    return f"up to {high:.3g}" if low is None else f"{low:.3g} to {high:.3g}"


def metric_value(metric: str, value: float | None) -> str:
    """A metric's value: a share in percent, but what answers are worth and how far scores are is a number."""
    if value is None or metric not in {"value", "distance"}:
        return share(value)
    return f"{value:.4g}"


def kind_of_gate(metric: str) -> str:
    """What a gate's interval is of: a ratio, a share, a difference; "" where that depends."""
    if metric in _RATES:
        return "ratio"
    return {"disagreement": "share", "distance": "share", "value": "difference"}.get(metric, "")


def mismatch(experiment: Mapping[str, Any]) -> str:
    """What the evidence of a sample ratio mismatch says."""
    if experiment["mismatch"] >= 1:
        return (
            "the requests were not shared by the weights, so that what is compared here means nothing: look for requests that "
            "one version loses, or for a few keys with most of the requests"
        )
    return "the requests were shared as the weights say"
