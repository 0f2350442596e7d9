"""What a rollout is to do: its stages, how long and on how much evidence each is held, and what it is judged by.

It is declared as JSON in the tag `penstock.rollout` of a registered version, or by `penstock rollout start`, and it is checked
before anything begins. Once a rollout has begun, its specification is part of its record and changes no more. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any, Final, Literal

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.durations import LONGEST_S, duration_in_words, parse_duration

MAX_STEPS: Final = 20
MAX_SPEC_BYTES: Final = 4096

Metric = Literal["errors", "p50", "p95", "p99", "disagreement", "distance", "accuracy", "value"]
"""What a rollout can be judged by.

- errors: requests that the version failed on. Of one routing key the first counts, and apart from that the fourth.
- p50, p95, p99: requests that took longer than so many of the champion's did before the rollout.
- disagreement, distance: on which share of a request's rows the shadow's answer is another one than the champion's, and how
  far scores differ, on average over requests.
- accuracy: requests whose first row's label was another one than the prediction.
- value: the mean of what callers said a request's first answer was worth.
"""
RATES: Final[tuple[Metric, ...]] = ("errors", "p50", "p95", "p99")
"""Margins of these are ratios to the champion's rate: 1.5 tolerates half as many again."""
SHARES: Final[tuple[Metric, ...]] = ("disagreement", "distance")
"""Margins of these are mean shares of requests' rows and mean distances, 0 to 1."""
QUANTILES: Final[Mapping[Metric, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


_RANGES: Final[Mapping[str, tuple[float, float, str]]] = {
    "hold_s": (0, LONGEST_S, "0 seconds to a year"),
    "shadow_s": (0, LONGEST_S, "0 seconds to a year"),
    "deadline_s": (1, LONGEST_S, "a second to a year"),
    "requests": (1, 10**12, "at least 1"),
    "shadow_rows": (1, 10**12, "at least 1"),
    "sample": (1e-6, 1, "a share above 0, to 1"),
    "hold_back": (0, 0.999, "a share from 0 to below 1"),
    "false_rollbacks": (1e-9, 0.5, "a probability from 1e-9 to 0.5"),
    "false_promotions": (1e-9, 0.5, "a probability from 1e-9 to 0.5"),
    "errors_floor": (0, 0.5, "a share from 0 to 0.5"),
    "dispersion": (1, 1e6, "1 or more"),
}
"""The least and the most of each number, and how that is said."""


class Stage(msgspec.Struct, frozen=True):
    """One stage: the version is shadow, or canary with a weight.

    Attributes:
        weight: the canary's share, 0 to 1; 0 for the shadow's stage.
    """

    weight: float

    @property
    def is_shadow(self) -> bool:
        return self.weight == 0

    def __str__(self) -> str:
        return "shadow" if self.is_shadow else f"{100 * self.weight:g} %"


class RolloutSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rollout as declared. Weights and shares are 0 to 1 and durations seconds here; people write percent and `10m`.

    Attributes:
        steps: the canary's weights, rising. A last step of 1 means that the version is promoted after the one before it.
        hold_s: the least time at each step.
        requests: the least number of requests that the version must have answered at each step.
        shadow_s: the least time as shadow, before the first step; 0 for no such stage.
        shadow_rows: the least number of rows compared meanwhile.
        sample: the share of the champion's answers that are copied to the shadow.
        gates: the margin of each metric that the version is judged by.
        hold_back: the champion's share in a further step before the promotion; 0 for no such step.
        deadline_s: a rollout that is not through after this time is held until somebody decides.
        false_rollbacks: the most likely that a version no worse than the champion is rolled back, however long it takes.
        false_promotions: the most likely that a version worse by the margin of a gate passes it.
        errors_floor: a version whose share of errors is proven below this passes the gate of errors whatever the champion's is.
        dispersion: how much more counts vary than those of independent requests, by which they are divided. Where requests
            bring routing keys it is about how many requests of one key are slow, or answered wrong, together; errors are
            counted by key.
    """

    steps: tuple[float, ...] = (0.05, 0.25, 0.5, 1.0)
    hold_s: float = 600.0
    requests: int = 1000
    shadow_s: float = 0.0
    shadow_rows: int = 1000
    sample: float = 1.0
    gates: Mapping[Metric, float] = msgspec.field(default_factory=lambda: {"errors": 1.5, "p99": 2.0})
    hold_back: float = 0.0
    deadline_s: float = 86400.0
    false_rollbacks: float = 0.03
    false_promotions: float = 0.05
    errors_floor: float = 0.001
    dispersion: float = 1.0

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not self.gates:
            raise InvalidInputError(
                "gates is empty, expected at least one metric to judge the version by, such as errors"
            )
        for metric, margin in self.gates.items():
            _check_margin(metric, margin)
        for name, (low, high, expected) in _RANGES.items():
            # Written so that NaN is refused as well.
            if not low <= getattr(self, name) <= high:
                raise InvalidInputError(f"{name} is {getattr(self, name):g}, expected {expected}")
        if self.hold_back and 1 - self.hold_back <= self._last_weight:
            raise InvalidInputError(
                f"hold_back is {100 * self.hold_back:g} percent, expected less than the champion has at the last step, "
                f"which is {100 * (1 - self._last_weight):g}"
            )
        self._check_stages()

    def _check_stages(self) -> None:
        if not self.stages:
            raise InvalidInputError(
                "steps has 100 percent alone and there is no time as shadow, so nothing would be known before the promotion; "
                "give a smaller step or the shadow's time"
            )
        needs_canary = [metric for metric in self.gates if metric in RATES]
        if needs_canary and not self._last_weight and not self.hold_back:
            raise InvalidInputError(
                f"gates has {' and '.join(needs_canary)}, which only a canary shows; give a step below 100 percent"
            )
        needs_shadow = [metric for metric in self.gates if metric in SHARES]
        if needs_shadow and not self.shadow_s:
            raise InvalidInputError(
                f"gates has {' and '.join(needs_shadow)}, which only a shadow shows; give the shadow's time too"
            )

    @property
    def _last_weight(self) -> float:
        return max((weight for weight in self.steps if weight < 1), default=0.0)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the promotion, in order."""
        weights = [*((0.0,) if self.shadow_s else ()), *(weight for weight in self.steps if weight < 1)]
        if self.hold_back:
            weights.append(1 - self.hold_back)
        return tuple(map(Stage, weights))

    @property
    def is_promoted_after(self) -> bool:
        """Whether the rollout ends with a promotion; else it is held at its last stage."""
        return self.steps[-1:] == (1.0,) or self.hold_back > 0

    def in_words(self) -> str:
        """What will happen, in sentences."""
        sentences = []
        steps = [stage for stage in self.stages if not stage.is_shadow]
        if self.shadow_s:
            share = "" if self.sample == 1 else f" {100 * self.sample:g} % of"
            sentences.append(
                f"It is shadow for {duration_in_words(self.shadow_s)} at least, until{share} the champion's answers have been "
                f"compared on {self.shadow_rows:,} rows"
            )
        if steps:
            shares = _listed([str(stage) for stage in steps])
            sentences.append(
                f"It gets {shares} of the requests, each step for {duration_in_words(self.hold_s)} at least and until it has "
                f"answered {self.requests:,} requests"
            )
        gates = _listed([_gate_in_words(metric, margin) for metric, margin in self.gates.items()])
        sentences.append(
            f"It is rolled back as soon as it is proven worse than the champion (wrongly in at most "
            f"{100 * self.false_rollbacks:g} % of rollouts)"
        )
        sentences.append(
            f"{'It is promoted' if self.is_promoted_after else 'It has passed'} when the last step is through and these are "
            f"shown (each wrongly in at most {100 * self.false_promotions:g} %): {gates}"
        )
        if not self.is_promoted_after:
            sentences.append("Then it keeps its share until somebody promotes it")
        sentences.append(
            f"What is not through after {duration_in_words(self.deadline_s)} keeps its share, and waits for somebody to decide"
        )
        return ". ".join(sentences) + "."


def parse(text: str) -> RolloutSpec:
    """The specification in a tag: a JSON object as people write it, or nothing for the defaults.

    >>> parse('{"steps": [10, 50, 100], "hold": "5m"}').stages
    (Stage(weight=0.1), Stage(weight=0.5))

    Raises:
        InvalidInputError: it is none; names what is wrong and what was expected.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SPEC_BYTES:
        raise InvalidInputError(f"the rollout's declaration has more than {MAX_SPEC_BYTES} bytes")
    if text.strip() in ("", "default", "true"):
        return RolloutSpec()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the rollout's declaration is no JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise InvalidInputError(
            'the rollout\'s declaration is no JSON object; expected such as {"steps": [5, 25, 50, 100]}'
        )
    return of_mapping(found)


def of_mapping(found: Mapping[str, Any]) -> RolloutSpec:
    """The specification of a table with the names that people write: percentages, and durations such as `10m`."""
    unknown = found.keys() - _FIELDS.keys()
    if unknown:
        raise InvalidInputError(f"a rollout has no {min(unknown)[:40]!r}; expected {', '.join(_FIELDS)}")
    return RolloutSpec(**{_FIELDS[name][0]: _FIELDS[name][1](name, value) for name, value in found.items()})


def as_mapping(spec: RolloutSpec) -> dict[str, Any]:
    """What `of_mapping` reads, without what has its default."""
    default = RolloutSpec()
    percent = {"steps": lambda value: [_plain(100 * weight) for weight in value]}
    found: dict[str, Any] = {}
    for name, (attribute, read) in _FIELDS.items():
        value = getattr(spec, attribute)
        if value != getattr(default, attribute):
            show = percent.get(name, (lambda value: _plain(100 * value)) if read is _percent else lambda value: value)
            found[name] = show(value)
    return found


def _plain(number: float) -> float:
    rounded = round(number, 9)
    return int(rounded) if rounded == int(rounded) else rounded


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < inf:
        raise InvalidInputError(f"{name} is {str(value)[:40]!r}, expected a number")
    return float(value)


def _count(name: str, value: object) -> int:
    number = _number(name, value)
    if number != int(number):
        raise InvalidInputError(f"{name} is {number:g}, expected a whole number")
    return int(number)


def _percent(name: str, value: object) -> float:
    return round(_number(name, value) / 100, 12)


def _steps(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidInputError(f"{name} is {str(value)[:40]!r}, expected percentages such as [5, 25, 50, 100]")
    return tuple(_percent(name, each) for each in value)


def _gates(name: str, value: object) -> dict[Metric, float]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f'{name} is {str(value)[:40]!r}, expected margins such as {{"errors": 1.5, "p99": 2}}')
    return {metric: _number(f"{name}.{str(metric)[:40]}", margin) for metric, margin in value.items()}


def _duration(name: str, value: object) -> float:
    return parse_duration(value, name)


_FIELDS: Final[Mapping[str, tuple[str, Any]]] = {
    "steps": ("steps", _steps),
    "hold": ("hold_s", _duration),
    "requests": ("requests", _count),
    "shadow": ("shadow_s", _duration),
    "shadow_rows": ("shadow_rows", _count),
    "sample": ("sample", _percent),
    "gates": ("gates", _gates),
    "hold_back": ("hold_back", _percent),
    "deadline": ("deadline_s", _duration),
    "false_rollbacks": ("false_rollbacks", _number),
    "false_promotions": ("false_promotions", _number),
    "errors_floor": ("errors_floor", _number),
    "dispersion": ("dispersion", _number),
}
"""As people write it: the attribute, and how it is read."""


def _check_steps(steps: tuple[float, ...]) -> None:
    shown = ", ".join(f"{100 * weight:g}" for weight in steps[:MAX_STEPS])
    if not 1 <= len(steps) <= MAX_STEPS:
        raise InvalidInputError(f"steps has {len(steps)} percentages, expected 1 to {MAX_STEPS}")
    if not all(0 < weight <= 1 for weight in steps) or any(a >= b for a, b in pairwise(steps)):
        raise InvalidInputError(f"steps is {shown}, expected rising percentages above 0, to 100 at most")


def _check_margin(metric: str, margin: float) -> None:
    if metric in RATES:
        if not 1 < margin < inf:
            raise InvalidInputError(
                f"gates.{metric} is {margin:g}, expected a ratio above 1: 1.5 tolerates half as many again"
            )
    elif metric in SHARES:
        if not 0 < margin < 1:
            raise InvalidInputError(f"gates.{metric} is {margin:g}, expected a share above 0 and below 1")
    elif metric == "accuracy":
        if not 0 < margin < 100:
            raise InvalidInputError(f"gates.accuracy is {margin:g}, expected the points that may be lost, such as 1")
    elif metric == "value":
        if not 0 < margin < inf:
            raise InvalidInputError(f"gates.value is {margin:g}, expected how much of the mean value may be lost")
    else:
        raise InvalidInputError(
            f"gates has {metric[:40]!r}, which is no metric; expected "
            "errors, p50, p95, p99, disagreement, distance, accuracy or value"
        )


def _gate_in_words(metric: Metric, margin: float) -> str:
    if metric == "errors":
        return f"it fails on less than {margin:g} times the champion's share of requests"
    if metric in QUANTILES:
        return f"requests that take longer than the champion's {metric} did are less than {margin:g} times as many"
    return {
        "disagreement": f"it differs from the champion on less than {100 * margin:g} % of a request's rows on average",
        "distance": f"its scores are less than {margin:g} from the champion's on average",
        "accuracy": f"it loses less than {margin:g} {'point' if margin == 1 else 'points'} of accuracy",
        "value": f"its answers are worth less than {margin:g} below the champion's on average, or more",
    }[metric]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
