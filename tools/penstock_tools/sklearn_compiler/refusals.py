"""Where in a pipeline something is, in words, and how a rule says that it cannot compile a transformer."""

from typing import Any

Path = tuple[str, ...]
"""The names of the steps that lead to a transformer, and its own."""


class NotCompiled(Exception):  # noqa: N818 - it is no failure yet: the graph may take the transformer
    """A rule gives up; its text is half a sentence that says why and what would do."""


class Refused(Exception):  # noqa: N818 - becomes an error once the place is known
    """A rule says that nobody can carry the transformer out as it was fitted; its text is half a sentence that says why."""


def step_of(name: str, transformer: Any) -> str:
    """What people call a step: its class, and its name where that tells more.

    >>> step_of("impute", 1.5), step_of("float", 1.5)
    ('impute (float)', 'float')
    """
    kind = type(transformer).__name__
    return kind if name.rpartition("-")[0] == kind.lower() or name == kind.lower() else f"{name} ({kind})"


def place(path: Path) -> str:
    """The path in words, such as "preprocess → num → KNNImputer"."""
    return " → ".join(path)
