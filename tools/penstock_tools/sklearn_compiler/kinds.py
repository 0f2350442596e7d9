"""Finds what is known of a class: its own entry in a table, or that of the parent whose answers it gives.

People subclass to change how something is fitted, or to give it another name. What answers is then still the parent's.
"""

import importlib
import sys
from collections.abc import Hashable, Mapping, Sequence
from functools import cache, partial
from itertools import takewhile
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

_ANSWERS_ALIKE: Final = frozenset(
    {
        *("fit", "fit_transform", "fit_predict", "fit_resample", "partial_fit", "score", "get_params", "set_params"),
        *("get_feature_names_out", "get_metadata_routing", "_parameter_constraints", "_estimator_type", "_more_tags"),
        *("_sklearn_auto_wrap_output_keys", "_doc_link_module", "_doc_link_template", "_abc_impl", "metadata_routing"),
    }
)
"""What a subclass may have of its own and still answer as its parent does; further all that Python itself uses."""

_ALIASES: Final = {
    "imblearn.pipeline.Pipeline": "sklearn.pipeline.Pipeline",
    "feature_engine.pipeline.pipeline.Pipeline": "sklearn.pipeline.Pipeline",
    "imblearn.ensemble._bagging.BalancedBaggingClassifier": "sklearn.ensemble._bagging.BaggingClassifier",
    "imblearn.ensemble._easy_ensemble.EasyEnsembleClassifier": "sklearn.ensemble._bagging.BaggingClassifier",
    "imblearn.ensemble._forest.BalancedRandomForestClassifier": "sklearn.ensemble._forest.RandomForestClassifier",
    "imblearn.ensemble._weight_boosting.RUSBoostClassifier": "sklearn.ensemble._weight_boosting.AdaBoostClassifier",
}
"""Classes that override more than that, and whose fitted objects answer as these do."""


def lookup(table: Mapping[type, T], fitted: Any) -> T | None:
    """The entry of the object's class, or of the nearest parent whose answers it gives; None where there is none."""
    return next((table[kind] for kind in kinds(fitted) if kind in table), None)


def kinds(fitted: Any) -> Sequence[type]:
    """The object's class, and the parents whose answers it gives, nearest first."""
    return _kinds(cast("Hashable", type(fitted)))  # mypy thinks of metaclasses without a hash


@cache  # every rule asks it of every step
def _kinds(own: Any) -> Sequence[type]:
    alias = _ALIASES.get(f"{own.__module__}.{own.__qualname__}")
    if alias is not None:
        module, _, name = alias.rpartition(".")
        own = getattr(sys.modules.get(module) or importlib.import_module(module), name)
    return tuple(takewhile(partial(_answers_as, own), own.__mro__))


def _answers_as(own: type, parent: type) -> bool:
    """Whether nothing between the class and its parent changes what the parent has."""
    between = [kind for kind in own.__mro__ if kind not in parent.__mro__]
    names = {name for kind in between for name in vars(kind)}
    return not any(hasattr(parent, name) for name in names if not _is_alike(name))


def _is_alike(name: str) -> bool:
    is_request = name.startswith("set_") and name.endswith("_request")
    return name in _ANSWERS_ALIKE or is_request or (name.startswith("__") and name not in ("__call__", "__getattr__"))
