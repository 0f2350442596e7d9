"""Who acts on a model's rollouts, where several servers could: a lease in a tag of the registry.

MLflow has no compare-and-set, and clocks of machines differ. So a lease needs neither: whoever finds that the tag has not
changed for `lease_s` on its own clock writes its name there, waits a quarter of that, and acts only if the name is still there
then (Fischer's algorithm; Lamport, "A fast mutual exclusion algorithm", ACM TOCS 1987). It is safe while a write comes within
that quarter after the read before it, which the source's own bound on a call sees to. A holder that was frozen for longer
than half of its lease finds that out by its own clock, and takes part again like anybody else. Pure.
"""

from typing import Final, Literal

import msgspec

LEASE_S: Final = 45.0
"""How long a lease lasts, unless settings say otherwise. A quarter of it is longer than a source's call takes."""

Move = Literal["act", "take", "renew", "wait"]


class ModelLease(msgspec.Struct, frozen=True):
    """What one server knows of one model's lease. Times are of its own monotonic clock.

    Attributes:
        value: the tag as it was seen last.
        since_s: since when it is like this.
        wrote_s: when this server wrote its name last; None before it did.
        is_own: this server's name stood there long enough.
    """

    value: str = ""
    since_s: float = 0.0
    wrote_s: float | None = None
    is_own: bool = False

    def seen(self, value: str, holder: str, now_s: float, lease_s: float) -> "ModelLease":
        """The lease after a look at the tag."""
        mine = holder_of(value) == holder
        found = self
        if value != self.value:
            found = msgspec.structs.replace(found, value=value, since_s=now_s)
        if not mine:
            return msgspec.structs.replace(found, wrote_s=None, is_own=False)
        if found.wrote_s is None or (found.is_own and now_s - found.wrote_s > lease_s / 2):
            # A name that an earlier run of this server left, or a holder that slept: it waits like others.
            return msgspec.structs.replace(found, wrote_s=None, is_own=False)
        return msgspec.structs.replace(found, is_own=found.is_own or now_s - found.wrote_s >= lease_s / 4)

    def move(self, holder: str, now_s: float, lease_s: float) -> Move:
        """What this server may do now."""
        if holder_of(self.value) == holder and self.wrote_s is not None:
            if not self.is_own:
                return "wait"
            return "renew" if now_s - self.wrote_s >= lease_s / 5 else "act"
        is_free = not self.value or now_s - self.since_s >= lease_s
        return "take" if is_free else "wait"

    def written(self, holder: str, now_s: float) -> "ModelLease":
        """The lease after this server wrote its name."""
        value = next_value(self.value, holder)
        return msgspec.structs.replace(self, value=value, since_s=now_s, wrote_s=now_s)


def next_value(value: str, holder: str) -> str:
    """The tag's next value: each one differs from the one before, so that others see that its holder lives."""
    last = value.rpartition(" ")[2]
    return f"{holder} {int(last) % 10**9 + 1 if last.isdecimal() else 1}"


def holder_of(value: str) -> str:
    """The name in a lease's tag."""
    return value.rpartition(" ")[0]
