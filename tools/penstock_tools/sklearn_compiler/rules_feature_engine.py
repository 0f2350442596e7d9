"""Rules of the package feature_engine, whose transformers take a frame, change some of its columns, and pass the others on.

Encoders are asked what they make of each value; what works on numbers becomes steps of the columns that it names. Imported
only when a transformer is of that package.
"""

import importlib
from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final

import numpy as np
import pandas as pd
from feature_engine.selection.base_selector import BaseSelector
from feature_engine.wrappers import SklearnTransformerWrapper

from penstock_server.features.spec.blocks import Time, TimePart
from penstock_server.features.spec.steps import (
    Apply,
    Binarise,
    Bucket,
    Clip,
    Compute,
    Cyclic,
    Fill,
    Linear,
    Lookup,
    Power,
    Refuse,
    Standardise,
    Step,
)
from penstock_tools.sklearn_compiler import rules_graph
from penstock_tools.sklearn_compiler.asking import by_asking
from penstock_tools.sklearn_compiler.columns import Numbers, Part, Parts, Times, numbers, pick, then
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused
from penstock_tools.sklearn_compiler.rules_creation import (
    Expressions,
    first_above,
    geo_distance,
    math_features,
    relative_features,
    tree_features,
)
from penstock_tools.sklearn_compiler.rules_missing import filled, indicated

Rule = Callable[[Any, Parts], Parts]
StepsOf = Callable[[Any, Sequence[Hashable]], list[Step]]
"""Makes the steps of columns side by side, given the fitted transformer and the columns' names."""


def rule(transformer: Any, of: Callable[[Any], Rule]) -> Rule | None:
    """The rule of one of the package's transformers.

    Args:
        transformer: fitted.
        of: finds the rule of any transformer, for those that wrap one.
    """
    kind = type(transformer)
    if kind is SklearnTransformerWrapper:
        return partial(_wrapped, of)
    if isinstance(transformer, BaseSelector) and kind.transform is BaseSelector.transform:
        return _selected
    return RULES.get(kind)


def _names(transformer: Any) -> list[Hashable]:
    return list(transformer.feature_names_in_)


def _places(transformer: Any, variables: Collection[Hashable]) -> list[int]:
    """Where the columns of these names are."""
    names = _names(transformer)
    return [names.index(name) for name in variables]


def _others(transformer: Any, variables: Collection[Hashable]) -> list[int]:
    return [at for at, name in enumerate(_names(transformer)) if name not in variables]


def _in_place(steps: StepsOf, transformer: Any, parts: Parts) -> Parts:
    """The columns that it names with these steps, where they were."""
    return _changed(steps, transformer, parts, transformer.variables_)


def _changed(steps: StepsOf, transformer: Any, parts: Parts, variables: Collection[Hashable]) -> Parts:
    names = _names(transformer)
    made: list[Part] = []
    # Neighbours share their steps.
    for is_changed, run in groupby(range(len(names)), key=lambda at: names[at] in variables):
        places = list(run)
        picked = pick(parts, places)
        if is_changed:
            block = numbers(picked)
            made.append(Numbers(then(block, *steps(transformer, [names[at] for at in places]))))
        else:
            made += picked
    return tuple(made)


def _floats(by_name: Any, names: Sequence[Hashable]) -> tuple[float, ...]:
    return tuple(float(by_name[name]) for name in names)


# Missing values.


def _fill(imputer: Any, names: Sequence[Hashable]) -> list[Step]:
    return [Fill(_floats(imputer.imputer_dict_, names))]


def _number_imputer(imputer: Any, parts: Parts) -> Parts:
    """MeanMedianImputer, ArbitraryNumberImputer, EndTailImputer."""
    return _changed(_fill, imputer, parts, list(imputer.imputer_dict_))


def _categorical_imputer(imputer: Any, parts: Parts) -> Parts:
    """CategoricalImputer, of text, or of numbers where it ignores the format."""
    made: list[Part] = []
    for at, name in enumerate(_names(imputer)):
        (part,) = pick(parts, [at])
        is_filled = name in imputer.imputer_dict_
        made.append(filled(part, pd.NA, [imputer.imputer_dict_[name]]) if is_filled else part)
    return tuple(made)


def _missing_indicator(indicator: Any, parts: Parts) -> Parts:
    """AddMissingIndicator: all columns, and indicators after them."""
    added = [indicated(part, pd.NA) for part in pick(parts, _places(indicator, indicator.variables_))]
    return (*parts, *added)


# Text.


def _encoder(encoder: Any, parts: Parts) -> Parts:
    return by_asking(encoder, parts, encoder.variables_)


# Numbers alone. All of these refuse what is missing or infinite.

_LARGEST: Final = float(np.finfo(np.float64).max)
_FINITE: Final = Refuse(missing=True, largest=_LARGEST)


def _of_finite(steps: StepsOf) -> Rule:
    return partial(_in_place, lambda transformer, names: [_FINITE, *steps(transformer, names)])


def _required(names: Sequence[Hashable], function: str, *limits: float) -> Compute:
    """Refuses rows in which a column is not as the function of two says, beside one of the limits."""
    made = Expressions(names)
    columns = [made.column(name) for name in names]
    for column in columns:
        made.require(made.of(function, column, *limits))
    return made.step(columns)


def _log(transformer: Any, names: Sequence[Hashable]) -> list[Step]:
    return [_required(names, "greater", 0.0), Apply("log" if transformer.base == "e" else "log10")]


def _log_of_sum(transformer: Any, names: Sequence[Hashable]) -> list[Step]:
    added = transformer.C_
    by_name = added if isinstance(added, dict | pd.Series) else dict.fromkeys(names, added)
    return [Linear(None, _floats(by_name, names)), *_log(transformer, names)]


def _reciprocal(transformer: Any, names: Sequence[Hashable]) -> list[Step]:  # noqa: ARG001 - as all have it
    return [_required(names, "not_equal", 0.0), Apply("reciprocal")]


def _power(transformer: Any, names: Sequence[Hashable]) -> list[Step]:
    made = Expressions(names)
    return [made.step([made.of("power", made.column(name), float(transformer.exp)) for name in names])]


def _box_cox(transformer: Any, names: Sequence[Hashable]) -> list[Step]:
    return [_required(names, "greater", 0.0), Power("box-cox", _floats(transformer.lambda_dict_, names))]


def _yeo_johnson(transformer: Any, names: Sequence[Hashable]) -> list[Step]:
    return [Power("yeo-johnson", _floats(transformer.lambda_dict_, names))]


def _arcsin(transformer: Any, names: Sequence[Hashable]) -> list[Step]:  # noqa: ARG001 - as all have it
    return [_required(names, "greater_equal", 0.0), _required(names, "less_equal", 1.0), Apply("sqrt"), Apply("arcsin")]


def _arcsinh(transformer: Any, names: Sequence[Hashable]) -> list[Step]:  # noqa: ARG001 - as all have it
    return [Standardise((float(transformer.loc),), (float(transformer.scale),)), Apply("arcsinh")]


def _mean_normalisation(scaler: Any, names: Sequence[Hashable]) -> list[Step]:
    return [Standardise(_floats(scaler.mean_, names), _floats(scaler.range_, names))]


def _cap(capper: Any, names: Sequence[Hashable]) -> list[Step]:
    low = tuple(capper.left_tail_caps_.get(name) for name in names)
    high = tuple(capper.right_tail_caps_.get(name) for name in names)
    refused = [_FINITE] if capper.missing_values == "raise" else []
    return [*refused, Clip(_unless_open(low), _unless_open(high))]


def _unless_open(caps: tuple[float | None, ...]) -> tuple[float | None, ...] | None:
    return None if all(each is None for each in caps) else caps


def _winsorizer(capper: Any, parts: Parts) -> Parts:
    """Winsorizer: an indicator is 1 where the value was below the low end, or above the high one."""
    capped = _in_place(_cap, capper, parts)
    if not capper.add_indicators:
        return capped
    added: list[Part] = []
    for name, at in zip(capper.variables_, _places(capper, capper.variables_), strict=True):
        block = numbers(pick(parts, [at]))
        if capper.tail in ("left", "both"):
            low = float(capper.left_tail_caps_[name])
            added.append(Numbers(then(block, Linear((-1.0,)), Binarise((-low,)))))
        if capper.tail in ("right", "both"):
            added.append(Numbers(then(block, Binarise((float(capper.right_tail_caps_[name]),)))))
    return (*capped, *added)


def _cyclical(transformer: Any, parts: Parts) -> Parts:
    """CyclicalFeatures: sine and cosine after all columns, whose largest value is the period."""
    chosen = numbers(pick(parts, _places(transformer, transformer.variables_)))
    added = Numbers(then(chosen, _FINITE, Cyclic(_floats(transformer.max_values_, transformer.variables_))))
    kept = pick(parts, _others(transformer, transformer.variables_)) if transformer.drop_original else parts
    return (*kept, added)


def _created(
    variables: Callable[[Any], Sequence[Hashable]],
    compute: Callable[[Any, Sequence[Hashable]], Compute],
    transformer: Any,
    parts: Parts,
) -> Parts:
    """Columns computed of these ones, after all columns, or after those that are none of them."""
    names = list(dict.fromkeys(variables(transformer)))
    chosen = numbers(pick(parts, _places(transformer, names)))
    refused = {"raise": [_FINITE], "ignore": []}[getattr(transformer, "missing_values", "raise")]
    added = Numbers(then(chosen, *refused, compute(transformer, names)))
    kept = pick(parts, _others(transformer, names)) if transformer.drop_original else parts
    return (*kept, added)


# Numbers cut into bins.


def _bins(discretiser: Any, names: Sequence[Hashable]) -> list[Step]:
    """The number of the bin (low, high]; the first one has its low end too, and what is in none becomes NaN."""
    if discretiser.return_boundaries:
        raise Refused("it makes texts of ranges; return_boundaries=False works")
    refused = [Refuse(missing=True)] if getattr(discretiser, "errors", "ignore") == "raise" else []
    return [*_binned([discretiser.binner_dict_[name] for name in names]), *refused]


def _binned(limits: Sequence[Sequence[float]]) -> list[Step]:
    edges, tables = [], []
    for given in limits:
        first, *inner, last = (float(each) for each in given)
        # x > e is x >= the next number after e.
        own = [*([first] if np.isfinite(first) else []), *(float(np.nextafter(each, np.inf)) for each in inner)]
        own += [float(np.nextafter(last, np.inf))] if np.isfinite(last) else []
        bins = range(len(inner) + 1)
        below = [(np.nan,)] if np.isfinite(first) else []
        beyond = [(np.nan,)] if np.isfinite(last) else []
        edges.append(tuple(own))
        tables.append((*below, *((float(each),) for each in bins), *beyond, (np.nan,)))
    return [Bucket(tuple(edges)), Lookup(tuple(tables))]


def _tree_bins(discretiser: Any, names: Sequence[Hashable]) -> list[Step]:
    """DecisionTreeDiscretiser: the tree of one column is constant between its thresholds."""
    if discretiser.bin_output == "boundaries":
        raise Refused("it makes texts of ranges; bin_output='prediction' or 'bin_number' works")
    if discretiser.bin_output == "bin_number":
        return _binned([discretiser.binner_dict_[name] for name in names])
    edges, tables = [], []
    for name in names:
        own, values = _tree_table(discretiser, name)
        edges.append(own)
        tables.append((*((value,) for value in values), (np.nan,)))
    return [Bucket(tuple(edges)), Lookup(tuple(tables))]


def _tree_table(discretiser: Any, name: Hashable) -> tuple[tuple[float, ...], list[float]]:
    """The smallest number of each piece but the first, and what the tree gives for each piece."""
    search = discretiser.binner_dict_[name]
    tree = search.best_estimator_.tree_
    edges = sorted({first_above(threshold) for threshold in tree.threshold[tree.feature == 0]})
    asked = pd.DataFrame({name: [np.nextafter(edges[0], -np.inf) if edges else 0.0, *edges]})
    given = search.predict(asked) if discretiser.regression else search.predict_proba(asked)[:, 1]
    values = given if discretiser.precision is None else np.round(given, discretiser.precision)
    return tuple(edges), [float(value) for value in values]


# What a time becomes.


def _datetime(transformer: Any, parts: Parts) -> Parts:
    """DatetimeFeatures: parts of the calendar after all columns, or after those that are no times."""
    if transformer.variables == "index":
        raise Refused("it reads the frame's index, which a request has none of; give it a column")
    times = pick(parts, _places(transformer, transformer.variables_))
    added = [_calendar(transformer, part) for part in times]
    kept = pick(parts, _others(transformer, transformer.variables_)) if transformer.drop_original else parts
    return (*kept, *added)


def _calendar(transformer: Any, part: Part) -> Part:
    if not isinstance(part, Times):
        raise Refused("it reads times from text or numbers; a column of times works")
    features = transformer.features_to_extract_
    unknown = [feature for feature in features if feature not in _CALENDAR]
    if unknown:
        raise Refused(f"the feature {unknown[0]} is not one that Penstock knows; {', '.join(_CALENDAR)} work")
    read: list[TimePart] = list(dict.fromkeys([*(_CALENDAR[feature] for feature in features), "year"]))
    made = Expressions(read)
    if transformer.missing_values == "raise" or _WHOLE & set(features):
        # pandas makes no whole number of a missing one.
        made.require(made.of("equal", made.column("year"), made.column("year")))
    outputs = [_calendar_value(made, feature) for feature in features]
    return Numbers(Time(part.column, tuple(read), (made.step(outputs),)))


def _calendar_value(made: Expressions, feature: str) -> int:
    value = made.column(_CALENDAR[feature])
    if feature == "semester":
        return made.of("where", made.of("less_equal", value, 6.0), 1.0, 2.0)
    return made.of("where", made.of("less_equal", value, 4.0), 0.0, 1.0) if feature == "weekend" else value


_CALENDAR: Final[dict[str, TimePart]] = {
    "month": "month",
    "quarter": "quarter",
    "semester": "month",
    "year": "year",
    "week": "week",
    "day_of_week": "weekday",
    "day_of_month": "day",
    "day_of_year": "day_of_year",
    "weekend": "weekday",
    "month_start": "is_month_start",
    "month_end": "is_month_end",
    "quarter_start": "is_quarter_start",
    "quarter_end": "is_quarter_end",
    "year_start": "is_year_start",
    "year_end": "is_year_end",
    "leap_year": "is_leap_year",
    "days_in_month": "days_in_month",
    "hour": "hour",
    "minute": "minute",
    "second": "second",
}
"""For each of its features the part of a time that it is, or that it is made of."""

_WHOLE: Final = {"week", "days_in_month"}


# What chooses columns, or wraps a transformer.


def _selected(selector: Any, parts: Parts) -> Parts:
    return pick(parts, _others(selector, selector.features_to_drop_))


def _match_variables(matcher: Any, parts: Parts) -> Parts:
    """MatchVariables: a request has all columns, in their order."""
    if matcher.match_dtypes and any(isinstance(dtype, pd.CategoricalDtype) for dtype in matcher.dtype_dict_.values()):
        raise Refused("it makes missing values of unknown categories; MatchCategories works")
    return parts


def _wrapped(of: Callable[[Any], Rule], wrapper: Any, parts: Parts) -> Parts:
    """SklearnTransformerWrapper: selectors drop columns, encoders and polynomials add theirs at the end, others change them."""
    inner, variables = wrapper.transformer_, list(wrapper.variables_)
    if hasattr(wrapper, "features_to_drop_"):
        return _selected(wrapper, parts)
    chosen = pick(parts, _places(wrapper, variables))
    try:
        made = of(inner)(inner, chosen)
    except NotCompiled:
        made = rules_graph.computed(inner, chosen)
    if type(inner).__name__ in ("OneHotEncoder", "PolynomialFeatures"):
        return (*pick(parts, _others(wrapper, variables)), *made)
    if sum(part.width for part in made) != len(variables):
        raise Refused(f"{type(inner).__name__} does not give a column for each of its columns")
    changed: list[Part] = []
    for is_made, run in groupby(enumerate(_names(wrapper)), key=lambda each: each[1] in variables):
        places = list(run)
        changed += (
            pick(made, [variables.index(name) for _, name in places])
            if is_made
            else pick(parts, [at for at, _ in places])
        )
    return tuple(changed)


def _drops_rows(transformer: Any, parts: Parts) -> Parts:  # noqa: ARG001 - a rule
    raise Refused("it drops rows, also of those that are to be predicted; drop them before the pipeline is fitted")


def _draws(transformer: Any, parts: Parts) -> Parts:  # noqa: ARG001 - a rule
    raise Refused("it fills values drawn by chance; MeanMedianImputer and CategoricalImputer work")


def _compares_texts(transformer: Any, parts: Parts) -> Parts:  # noqa: ARG001 - a rule
    raise Refused("it compares each text with others letter by letter; OneHotEncoder, MeanEncoder and others work")


def _in_place_rule(steps: StepsOf) -> Rule:
    return partial(_in_place, steps)


def _known(module: str, names: str, rule: Rule) -> dict[type, Rule]:
    """The rule for these classes of a module, without those that the installed version lacks."""
    try:
        found = importlib.import_module(f"feature_engine.{module}")
    except ModuleNotFoundError:
        return {}
    return {kind: rule for name in names.split() if (kind := getattr(found, name, None)) is not None}


RULES: Final[dict[type, Rule]] = {
    **_known("imputation", "MeanMedianImputer ArbitraryNumberImputer EndTailImputer", _number_imputer),
    **_known("imputation", "CategoricalImputer", _categorical_imputer),
    **_known("imputation", "AddMissingIndicator", _missing_indicator),
    **_known("imputation", "RandomSampleImputer", _draws),
    **_known("imputation", "DropMissingData", _drops_rows),
    **_known("outliers", "OutlierTrimmer", _drops_rows),
    **_known(
        "encoding",
        "OneHotEncoder OrdinalEncoder CountFrequencyEncoder MeanEncoder WoEEncoder DecisionTreeEncoder RareLabelEncoder",
        _encoder,
    ),
    **_known("encoding", "StringSimilarityEncoder", _compares_texts),
    **_known("preprocessing", "MatchCategories", _encoder),
    **_known("preprocessing", "MatchVariables", _match_variables),
    **_known("transformation", "LogTransformer", _of_finite(_log)),
    **_known("transformation", "LogCpTransformer", _of_finite(_log_of_sum)),
    **_known("transformation", "ReciprocalTransformer", _of_finite(_reciprocal)),
    **_known("transformation", "PowerTransformer", _of_finite(_power)),
    **_known("transformation", "BoxCoxTransformer", _of_finite(_box_cox)),
    **_known("transformation", "YeoJohnsonTransformer", _of_finite(_yeo_johnson)),
    **_known("transformation", "ArcsinTransformer", _of_finite(_arcsin)),
    **_known("transformation", "ArcSinhTransformer", _of_finite(_arcsinh)),
    **_known("scaling", "MeanNormalizationScaler", _of_finite(_mean_normalisation)),
    **_known("outliers", "Winsorizer", _winsorizer),
    **_known("outliers", "ArbitraryOutlierCapper", _in_place_rule(_cap)),
    **_known("creation", "CyclicalFeatures", _cyclical),
    **_known("datetime", "DatetimeFeatures", _datetime),
    **_known("creation", "MathFeatures", partial(_created, lambda each: each.variables, math_features)),
    **_known(
        "creation",
        "RelativeFeatures",
        partial(_created, lambda each: [*each.variables, *each.reference], relative_features),
    ),
    **_known("creation", "DecisionTreeFeatures", partial(_created, lambda each: each.variables_, tree_features)),
    **_known("creation", "GeoDistanceFeatures", partial(_created, lambda each: each.variables_, geo_distance)),
    **_known(
        "discretisation",
        "EqualFrequencyDiscretiser EqualWidthDiscretiser ArbitraryDiscretiser GeometricWidthDiscretiser",
        _of_finite(_bins),
    ),
    **_known("discretisation", "DecisionTreeDiscretiser", _of_finite(_tree_bins)),
}
