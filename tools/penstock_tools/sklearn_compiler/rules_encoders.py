"""Rules of the package category_encoders: its encoders are asked what they make of each value, whatever their options.

Imported only when a transformer is of that package.
"""

from typing import Any, Final

import category_encoders

from penstock_tools.sklearn_compiler.asking import by_asking
from penstock_tools.sklearn_compiler.columns import Parts
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused

_TABLES: Final = frozenset({
    "BackwardDifferenceEncoder", "BaseNEncoder", "BinaryEncoder", "CatBoostEncoder", "CountEncoder",
    "CountTargetEncoder", "GLMMEncoder", "GrayEncoder", "HelmertEncoder", "JamesSteinEncoder", "LeaveOneOutEncoder",
    "MEstimateEncoder", "OneHotEncoder", "OrdinalEncoder", "PolynomialEncoder", "QuantileEncoder", "RankHotEncoder",
    "SumEncoder", "SummaryEncoder", "TargetEncoder", "WOEEncoder",
})  # fmt: skip
"""The encoders whose answer for a row is made of each column's category alone."""

_NO_TABLES: Final = {
    "HashingEncoder": "it hashes all columns into the same ones; sklearn's FeatureHasher for each column works",
    "MultiHotEncoder": "it takes texts apart; MultiHotEncoder before the pipeline, or OneHotEncoder, works",
}


def encoder(transformer: Any, parts: Parts) -> Parts:
    """An encoder of the package.

    Raises:
        NotCompiled: it is no class of the package.
        Refused: its columns are no tables.
    """
    name = type(transformer).__name__
    is_theirs = getattr(category_encoders, name, None) is type(transformer)
    if is_theirs and name in _NO_TABLES:
        raise Refused(_NO_TABLES[name])
    if not is_theirs or name not in _TABLES:
        raise NotCompiled(f"Penstock has no rule for {name}")
    return by_asking(transformer, parts, list(transformer.cols))
