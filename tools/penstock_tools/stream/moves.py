"""What to do when the broker refuses a step of a transaction: pure, as Kafka's client classes its errors."""

from typing import Literal, NamedTuple

Move = Literal["again", "abort", "end"]
"""The step is tried again; the transaction is aborted and its messages are read again; the process ends."""


class Fault(NamedTuple):
    """An error of Kafka's client.

    Attributes:
        name: its name, such as "_FENCED".
        text: what the client says.
        is_fatal: the producer can do nothing more.
        aborts: the transaction cannot be committed any more.
        is_passing: the same step may succeed if it is tried again.
    """

    name: str
    text: str
    is_fatal: bool = False
    aborts: bool = False
    is_passing: bool = False


def move_after(fault: Fault) -> Move:
    """What follows an error in a step of a transaction."""
    if fault.is_fatal:
        return "end"
    if fault.aborts:
        return "abort"
    return "again" if fault.is_passing else "end"


def reason(fault: Fault, instance: str) -> str:
    """Why the process ends, in one sentence.

    Args:
        fault: the error.
        instance: the process's name among those of its group; "" if it has none.
    """
    if fault.name in _FENCED:
        who = f"another process with --instance {instance}" if instance else "the broker"
        return f"{who} has ended this process's transactions: {fault.text}; nothing of an open one was committed"
    return f"Kafka refuses: {fault.text}"


_FENCED = frozenset({"_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"})
