"""What training knew, on the wire: an encoder's categories as texts and numbers that requests hold.

scikit-learn tells None, NaN and "" apart where a request has one missing text, "", and one missing number, NaN. Which of
its categories that is, is decided here; the rules of the encoders call it.
"""

from collections.abc import Sequence
from typing import Any

from penstock_server.features.spec.spec import Categories
from penstock_server.features.spec.step_base import Unseen
from penstock_tools.sklearn_compiler.columns import Strings
from penstock_tools.sklearn_compiler.refusals import Refused
from penstock_tools.sklearn_compiler.sample import Missing, missing_kind


def texts(part: Strings, categories: Sequence[Any], unseen: Unseen) -> tuple[Categories, tuple[int, ...]]:
    """The encoder of a text column, and for each of its codes the place among `categories` that it means.

    A text that an imputer replaces shares the category of its replacement.

    Raises:
        Refused: "" would mean several categories, or the categories are no texts.
    """
    meant: dict[str, int] = {}
    of_missing: list[int] = []
    for at, category in enumerate(categories):
        kind = missing_kind(category)
        if kind is None and not isinstance(category, str):
            raise Refused(f"column {part.column!r} is text, but it knows the category {category!r}")
        if isinstance(category, str) and category not in part.becomes:
            meant[category] = at
        meant |= {text: at for text, stands_for in part.becomes.items() if stands_for == category}
        if kind is not None and _may_be_missing(part, kind):
            of_missing.append(at)
    if len(of_missing) > 1:
        several = " and ".join(repr(categories[at]) for at in of_missing)
        raise Refused(
            f"column {part.column!r} has the categories {several}, which are one on the wire, where a missing text is ''; "
            "make them one before the pipeline is fitted"
        )
    meant |= dict.fromkeys([""] * len(of_missing), *of_missing)
    return _categories(meant, unseen), _places(meant)


def numbers(name: str, categories: Sequence[Any]) -> tuple[float | None, ...]:
    """The categories of a number column; None is NaN.

    Raises:
        Refused: one is a text, or both None and NaN are there.
    """
    found = tuple(_number(name, category) for category in categories)
    if found.count(None) > 1:
        raise Refused(f"column {name!r} has both None and NaN as categories, which are one on the wire")
    return found


def _may_be_missing(part: Strings, kind: Missing) -> bool:
    stands_for = part.becomes.get("")
    return isinstance(stands_for, frozenset) and kind in stands_for


def _categories(meant: dict[str, int], unseen: Unseen) -> Categories:
    """The encoder; the missing text shares the code of its category's own text where there is one, for people to read."""
    values = tuple(text for text in meant if text)
    shared = [text for text in values if meant[text] == meant.get("")]
    if shared:
        return Categories(values, values.index(shared[0]), unseen)
    return Categories(tuple(meant), None, unseen)


def _places(meant: dict[str, int]) -> tuple[int, ...]:
    texts = [text for text in meant if text]
    is_shared = any(meant[text] == meant.get("") for text in texts)
    return tuple(meant[text] for text in (texts if is_shared else meant))


def _number(name: str, category: Any) -> float | None:
    if isinstance(category, str):
        raise Refused(
            f"column {name!r} holds numbers or nothing in the sample, but it knows the category {category!r}; "
            "give a sample with text in the column (.csv cannot say that digits are text, .parquet can)"
        )
    return None if missing_kind(category) is not None else float(category)
