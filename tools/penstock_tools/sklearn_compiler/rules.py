"""What each of scikit-learn's transformers becomes: one rule per class.

A rule takes the fitted transformer and the parts that reach it, and gives the parts that come out. If it raises
`NotCompiled`, the transformer may go into the graph. A subclass gets its parent's rule where it answers alike (`kinds`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sklearn import preprocessing
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction import FeatureHasher, text
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import MissingIndicator, SimpleImputer

# The public name is there only where somebody has allowed scikit-learn's experiments.
from sklearn.impute._iterative import IterativeImputer

from penstock_server.features.spec.steps import Step
from penstock_tools.sklearn_compiler import (
    kinds,
    rules_function,
    rules_graph,
    rules_missing,
    rules_numbers,
    rules_text,
    rules_words,
)
from penstock_tools.sklearn_compiler.columns import Numbers, Parts, Words, numbers, pick, then
from penstock_tools.sklearn_compiler.refusals import NotCompiled

Rule = Callable[[Any, Parts], Parts]


def of(transformer: Any) -> Rule:
    """The rule of a transformer; one that gives up where there is none."""
    if isinstance(transformer, SelectorMixin) and type(transformer).transform is SelectorMixin.transform:
        return _select
    package = type(transformer).__module__.partition(".")[0]
    if package == "category_encoders":
        from penstock_tools.sklearn_compiler import rules_encoders

        return rules_encoders.encoder
    if package == "feature_engine":
        from penstock_tools.sklearn_compiler import rules_feature_engine

        return rules_feature_engine.rule(transformer, of) or _none
    return kinds.lookup(RULES, transformer) or _none


def _on_numbers(make: Callable[[Any], list[Step]]) -> Rule:
    return partial(_stepped, make)


def _stepped(make: Callable[[Any], list[Step]], transformer: Any, parts: Parts) -> Parts:
    block = numbers(parts)
    return (Numbers(then(block, *make(transformer))),)


def _either(on_words: Rule, make: Callable[[Any], list[Step]]) -> Rule:
    """The first rule where counted words are among the parts, else one of numbers."""

    def rule(transformer: Any, parts: Parts) -> Parts:
        has_words = any(isinstance(part, Words) for part in parts)
        return on_words(transformer, parts) if has_words else _stepped(make, transformer, parts)

    return rule


def _select(transformer: Any, parts: Parts) -> Parts:
    return pick(parts, transformer.get_support(indices=True).tolist())


def _none(transformer: Any, parts: Parts) -> Parts:  # noqa: ARG001 - a rule
    raise NotCompiled(f"Penstock has no rule for {type(transformer).__name__}")


RULES: Final[dict[type, Rule]] = {
    SimpleImputer: rules_missing.simple_imputer,
    MissingIndicator: rules_missing.missing_indicator,
    IterativeImputer: rules_graph.iterative,
    preprocessing.StandardScaler: _either(rules_words.scaled(rules_words.standard_factors), rules_numbers.standard),
    preprocessing.RobustScaler: _on_numbers(rules_numbers.robust),
    preprocessing.MaxAbsScaler: _either(rules_words.scaled(rules_words.max_abs_factors), rules_numbers.max_abs),
    preprocessing.MinMaxScaler: _on_numbers(rules_numbers.min_max),
    preprocessing.Normalizer: _either(rules_words.normalizer, rules_numbers.normalizer),
    preprocessing.Binarizer: _either(rules_words.binarizer, rules_numbers.binarizer),
    preprocessing.PowerTransformer: _on_numbers(rules_numbers.power),
    preprocessing.QuantileTransformer: _on_numbers(rules_numbers.quantile),
    preprocessing.KBinsDiscretizer: _on_numbers(rules_numbers.bins),
    preprocessing.PolynomialFeatures: _on_numbers(rules_numbers.polynomial),
    preprocessing.SplineTransformer: _on_numbers(rules_numbers.spline),
    preprocessing.OneHotEncoder: rules_text.one_hot,
    preprocessing.OrdinalEncoder: rules_text.ordinal,
    preprocessing.TargetEncoder: rules_text.target,
    preprocessing.FunctionTransformer: rules_function.function,
    FeatureHasher: rules_function.hasher,
    text.CountVectorizer: rules_words.count,
    text.TfidfVectorizer: rules_words.tfidf,
    text.HashingVectorizer: rules_words.hashing,
    text.TfidfTransformer: rules_words.tfidf_transformer,
    TruncatedSVD: rules_words.svd,
    **rules_graph.RULES,
}
