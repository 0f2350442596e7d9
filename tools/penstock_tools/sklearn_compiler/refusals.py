"""Names the place of a transformer in a pipeline, and lets a rule say that it cannot compile one."""

from typing import Any

StepPath = tuple[str, ...]
"""The names of the steps that lead to a transformer, and its own."""


class NotCompiled(Exception):  # noqa: N818 - it is no failure yet: the graph may take the transformer
    """A rule gives up. Its text is half a sentence: why, and what would work."""


class Refused(Exception):  # noqa: N818 - becomes an error once the place is known
    """Neither the specification nor the graph can do what the transformer does. Its text is half a sentence: why."""


def step_of(name: str, transformer: Any) -> str:
    """What people call a step: its class, and its name where that says more.

    >>> step_of("impute", 1.5), step_of("float", 1.5)
    ('impute (float)', 'float')
    """
    kind = type(transformer).__name__
    return kind if name.rpartition("-")[0] == kind.lower() or name == kind.lower() else f"{name} ({kind})"


def place(path: StepPath) -> str:
    """The path as text, such as "preprocess → num → KNNImputer"."""
    return " → ".join(path)
