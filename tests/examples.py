"""How many examples a property test draws, where one example costs more or less than most."""

from typing import Any

from hypothesis import settings


def examples(of_hundred: int, **others: Any) -> settings:
    """So many examples where the profile draws a hundred, and as many times more or fewer where it draws others.

    A plain `max_examples` would hold in every profile: `make explore` would look no further there, and `make test` would
    not be quick.
    """
    return settings(max_examples=max(1, of_hundred * settings.default.max_examples // 100), **others)
