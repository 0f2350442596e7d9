"""Linear models: one product of matrices, and what turns it into probabilities."""

from typing import Any, Final

RULES: Final[dict[type, Any]] = {}
