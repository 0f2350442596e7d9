"""Reads LightGBM's trees from the text that it saves models as, which has all digits.

It compares doubles, `x <= threshold`. What is no larger than `ZERO` is 0 to it. A column where the fit saw no missing
values takes one for 0; with `zero_as_missing` both are missing. A category that a node does not name goes right, as a
missing one does.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.trees import LEAF, Link, Tree, TreeEnsemble

_CATEGORY, _DEFAULT_LEFT = 1, 2
"""Bits of a node's decision type; above them stands what it takes for missing."""
_NOTHING, _ZERO, _NAN = 0, 1, 2

ZERO: Final = float(np.float32(1e-35))

_LINKS: Final[dict[str, Link]] = {
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"),
    **dict.fromkeys(("lambdarank", "rank_xendcg"), "identity"),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "exp"),
    **dict.fromkeys(("binary", "multiclassova", "cross_entropy"), "logistic"),
    "multiclass": "softmax",
}


def lightgbm(estimator: Any) -> TreeEnsemble | None:
    """LGBMClassifier, LGBMRegressor and LGBMRanker; None for objectives whose answer is no known link of the sum.

    Raises:
        UnsupportedError: leaves are linear models.
    """
    booster = estimator.booster_
    head, *sections = booster.model_to_string().split("\n\nTree=")
    facts = _facts(head)
    name, *options = facts.get("objective", "").split()
    if name not in _LINKS or "sqrt" in options:
        return None
    outputs = int(facts["num_tree_per_iteration"])
    averaged = max(len(sections) // outputs, 1) if "average_output" in head.splitlines() else 1
    fields = [_facts(section.partition("\n\n\n")[0]) for section in sections]
    zeros = _zero_is_missing(fields)
    trees = tuple(_tree(each, at % outputs, outputs, averaged) for at, each in enumerate(fields))
    sigmoid = next((float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")), 1.0)
    return TreeEnsemble(
        trees,
        outputs,
        "<=",
        "FP64",
        np.zeros(outputs),
        _LINKS[name],
        sigmoid,
        averaged,
        zero_is_missing=zeros,
    )


def _facts(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {name: value for name, separator, value in lines if separator}


def _tree(facts: Mapping[str, str], output: int, outputs: int, averaged: int) -> Tree:
    if facts.get("is_linear", "0") != "0":
        raise UnsupportedError(
            "the leaves of LightGBM's trees are linear models; linear_tree=False gives leaves of one value each"
        )
    leaves = np.array(facts["leaf_value"].split(), np.float64) / averaged
    inner = len(leaves) - 1
    value = np.zeros((inner + len(leaves), outputs))
    value[inner:, output] = leaves
    decision = _whole(facts, "decision_type", inner)
    threshold = _around_zero(_numbers(facts, "threshold", inner))
    is_category = (decision & _CATEGORY) != 0
    kind = decision >> 2 & 3
    default_left = (decision & _DEFAULT_LEFT) != 0
    # A missing value is compared as 0 where the fit saw none.
    missing_left = np.where(is_category, False, np.where(kind == _NOTHING, threshold >= 0, default_left))
    categories = tuple(_categories(facts, _whole(facts, "threshold", inner), is_category)) + (None,) * len(leaves)
    ends = np.full(len(leaves), LEAF)
    return Tree(
        feature=np.append(_whole(facts, "split_feature", inner), ends).astype(np.int32),
        threshold=np.append(np.where(is_category, 0.0, threshold), np.zeros(len(leaves))),
        left=np.append(_children(facts, "left_child", inner), ends).astype(np.int32),
        right=np.append(_children(facts, "right_child", inner), ends).astype(np.int32),
        missing_left=np.append(missing_left, np.zeros(len(leaves))).astype(np.bool_),
        value=value,
        cover=np.append(_numbers(facts, "internal_count", inner), _numbers(facts, "leaf_count", len(leaves))),
        categories=categories if is_category.any() else (),
    )


def _around_zero(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds that part all values as the given ones part those that are not taken for 0, and 0."""
    below = np.where((thresholds >= -ZERO) & (thresholds < 0), np.nextafter(-ZERO, -np.inf), thresholds)
    return np.where((thresholds >= 0) & (thresholds < ZERO), ZERO, below)


def _numbers(facts: Mapping[str, str], name: str, count: int) -> NDArray[np.float64]:
    """An array of the text; a tree of one leaf has none."""
    found = np.array(facts.get(name, "").split(), np.float64)
    return found if len(found) == count else np.zeros(count)


def _whole(facts: Mapping[str, str], name: str, count: int) -> NDArray[np.int64]:
    return _numbers(facts, name, count).astype(np.int64)


def _children(facts: Mapping[str, str], name: str, inner: int) -> NDArray[np.int64]:
    """Numbers of nodes; LightGBM counts leaves from -1 downwards, here they follow the inner nodes."""
    found = _whole(facts, name, inner)
    return np.where(found < 0, inner + ~found, found)


def _categories(
    facts: Mapping[str, str], places: NDArray[np.int64], is_category: NDArray[np.bool_]
) -> Iterator[tuple[int, ...] | None]:
    bounds = [int(bound) for bound in facts.get("cat_boundaries", "").split()]
    words = np.array(facts.get("cat_threshold", "").split(), np.uint32)
    for at, place in enumerate(places.tolist()):
        if not is_category[at]:
            yield None
            continue
        bits = words[bounds[place] : bounds[place + 1]]
        yield tuple(np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist())


def _zero_is_missing(fields: list[dict[str, str]]) -> tuple[int, ...]:
    """The columns where 0 is missing; LightGBM decides that for a whole column.

    Raises:
        UnsupportedError: it is so in some nodes alone.
    """
    kinds: dict[int, set[bool]] = {}
    for facts in fields:
        inner = int(facts["num_leaves"]) - 1
        columns, decisions = _whole(facts, "split_feature", inner), _whole(facts, "decision_type", inner)
        for column, decision in zip(columns.tolist(), decisions.tolist(), strict=True):
            if not decision & _CATEGORY:
                kinds.setdefault(column, set()).add(decision >> 2 & 3 == _ZERO)
    if any(len(kind) > 1 for kind in kinds.values()):
        raise UnsupportedError(
            "LightGBM takes 0 for missing in some nodes of a column alone (zero_as_missing); expected that of all or of none"
        )
    return tuple(sorted(column for column, kind in kinds.items() if True in kind))
