"""What a model's configuration says of its requests' priorities and timeouts, where it says other things than the protocol.

The predictor asks it once per request. Models without a policy take priorities and timeouts as requests name them.
"""

from dataclasses import dataclass
from math import inf

from penstock_server.batching.priorities import DEFAULT, HIGHEST, LOWEST


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """Triton's `priority_levels` and queue policy, in the terms of `priorities` and of deadlines.

    Attributes:
        levels: how many priorities requests may name, 1 is the highest; 0 where they are those of `priorities`.
        default_level: that of requests which name none, or a lower one than there is.
        timeout_s: from a request's arrival to its answer; infinite where there is none by default.
        takes_timeouts: whether a request's own timeout may make that shorter; never longer.
    """

    levels: int = 0
    default_level: int = DEFAULT
    timeout_s: float = inf
    takes_timeouts: bool = True

    def priority(self, asked: int) -> int:
        """The priority of a request that asks for this one, 0 for none.

        The default is the middle here too, and the others keep their distance to it as far as there are priorities.

        >>> [RequestPolicy(levels=3, default_level=2).priority(asked) for asked in (0, 1, 2, 3, 4)]
        [5, 4, 5, 6, 5]
        """
        level = asked if 0 < asked <= self.levels else self.default_level
        return min(max(level - self.default_level + DEFAULT, HIGHEST), LOWEST)

    def timeout_s_of(self, asked_s: float) -> float:
        """Within what a request is answered that asks for this; infinite for none."""
        return min(self.timeout_s, asked_s) if self.takes_timeouts else self.timeout_s

    @property
    def merges_levels(self) -> bool:
        """Whether some of the levels are one priority here."""
        return bool(self.levels) and (
            self.default_level - HIGHEST > DEFAULT - HIGHEST or self.levels - self.default_level > LOWEST - DEFAULT
        )
