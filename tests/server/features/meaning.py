"""What a specification means, in plain numpy: the oracle for the kernels, as slow and as clear as can be."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats
from scipy.interpolate import BSpline
from sklearn.utils import murmurhash3_32

from penstock_server.features.spec import steps
from penstock_server.features.spec.spec import (
    Block,
    Categories,
    FeatureSpec,
    Hash,
    Join,
    NumberColumn,
    Take,
    Text,
    Time,
    TimeColumn,
)

Matrix = NDArray[np.float64]
NAN = float("nan")


def meaning(spec: FeatureSpec, table: Mapping[str, Sequence[Any]]) -> tuple[Matrix, NDArray[np.bool_]]:
    """The outputs as float64 [rows, width], and which rows are refused."""
    rows = len(next(iter(table.values())))
    refused = np.zeros(rows, bool)
    for column in spec.columns:
        if isinstance(column, NumberColumn):
            refused |= is_refused(
                np.asarray(table[column.name], np.float64), column.missing == "refuse", column.largest
            )
        elif isinstance(column, TimeColumn) and column.missing == "refuse":
            refused |= np.asarray(table[column.name], np.int64) == np.iinfo(np.int64).min
        elif column.missing == "refuse":
            refused |= np.array([not value for value in table[column.name]], bool)
    with np.errstate(all="ignore"):
        return of_block(spec.features, table, refused), refused


def is_refused(x: Matrix, missing: bool, largest: float | None) -> NDArray[np.bool_]:
    is_large = np.zeros(x.shape, bool) if largest is None else np.abs(x) > largest
    return is_large | np.isnan(x) if missing else is_large


def of_block(block: Block, table: Mapping[str, Sequence[Any]], refused: NDArray[np.bool_]) -> Matrix:
    match block:
        case Take(columns):
            x = np.stack([np.asarray(table[column], np.float64) for column in columns], axis=1)
        case Text(column, Categories() as encode):
            x = np.array([code_of(encode, value) for value in table[column]], np.float64).reshape(-1, 1)
            if encode.unseen == "refuse":
                refused |= x[:, 0] == len(encode.values)
        case Text(column, Hash() as encode):
            x = np.array([hashed(encode, value) for value in table[column]]).reshape(-1, encode.width)
        case Time(column, parts):
            x = np.stack([time_part(np.asarray(table[column], np.int64), part) for part in parts], axis=1)
        case Join(blocks):
            x = np.concatenate([of_block(each, table, refused) for each in blocks], axis=1)
    for step in block.steps:
        x = of_step(step, x, refused)
    return x


def time_part(nanoseconds: NDArray[np.int64], part: str) -> Matrix:
    series = pd.Series(nanoseconds.view("M8[ns]"))
    is_there = series.notna().to_numpy()
    match part:
        case "days":
            return np.where(is_there, nanoseconds // (86400 * 10**9), NAN)
        case "nanoseconds_of_day":
            return np.where(is_there, nanoseconds % (86400 * 10**9), NAN)
        case "seconds":
            return np.where(is_there, nanoseconds / 1e9, NAN)
        case "week":
            return np.asarray(series.dt.isocalendar().week.astype(float))
        case "weekday":
            return np.asarray(series.dt.day_of_week, np.float64)
    return np.asarray(getattr(series.dt, part), np.float64)


def code_of(encode: Categories, value: str) -> int:
    if value in encode.values:
        return encode.values.index(value)
    return encode.missing if value == "" and encode.missing is not None else len(encode.values)


def hashed(encode: Hash, value: str) -> list[float]:
    row = [0.0] * encode.width
    if value or encode.missing == "hash":
        mixed = murmurhash3_32((encode.prefix + value).encode(), seed=0)
        row[abs(mixed) % encode.width] = -1.0 if mixed < 0 and encode.signed else 1.0
    return row


def reals(values: Any) -> Matrix:
    return np.array(values, np.float64)


def of_step(step: steps.Step, x: Matrix, refused: NDArray[np.bool_]) -> Matrix:  # noqa: C901 - one branch a step
    match step:
        case steps.Select(columns):
            return x[:, columns]
        case steps.Fill(values, missing):
            return np.where(equals(x, missing), reals(values), x)
        case steps.IsMissing(missing):
            return equals(x, missing).astype(float)
        case steps.Clip(low, high):
            low = [-np.inf if side is None else side for side in low or [None]]
            return np.clip(x, low, [np.inf if side is None else side for side in high or [None]])
        case steps.Standardise(mean, scale):
            x = x if mean is None else x - reals(mean)
            return x if scale is None else x / reals(scale)
        case steps.Linear(scale, offset):
            x = x if scale is None else x * reals(scale)
            return x if offset is None else x + reals(offset)
        case steps.Refuse(missing, largest):
            refused |= is_refused(x, missing, largest).any(axis=1)
            return x
        case steps.Apply(function):
            return np.asarray(getattr(np, function)(x), np.float64)
        case steps.Binarise(threshold):
            return (x > reals(threshold)).astype(float)
        case steps.Cyclic(period):
            angle = 2 * np.pi * x / reals(period)
            return np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(len(x), 2 * x.shape[1])
        case steps.Polynomial(terms):
            return np.stack([product(x, term) for term in terms], axis=1)
        case steps.Normalise(norm):
            return normalised(x, norm)
        case steps.Compute():
            return computed(step, x, refused)
    if not x.shape[1]:
        return x
    parts = [of_column(step, at, column, refused) for at, column in enumerate(x.T)]
    return np.concatenate([part[:, None] if part.ndim == 1 else part for part in parts], axis=1)


def computed(step: steps.Compute, x: Matrix, refused: NDArray[np.bool_]) -> Matrix:
    values = list(x.T)
    for operation in step.operations:
        taken = [values[at] for at in operation.of]
        match operation.function:
            case "constant":
                value = np.full(len(x), NAN if operation.value is None else operation.value)
            case "where":
                value = np.where(taken[0] != 0, taken[1], taken[2])
            case function:
                value = np.asarray(getattr(np, function)(*taken), np.float64)
        values.append(value)
    for at in step.required:
        refused |= values[at] < 1
    return np.stack([values[at] for at in step.outputs], axis=1)


def equals(x: Matrix, missing: float | None) -> NDArray[np.bool_]:
    return np.isnan(x) if missing is None else x == missing


def product(x: Matrix, term: tuple[int, ...]) -> Matrix:
    total = np.ones(len(x)) if not term else x[:, term[-1]]
    for at in term[-2::-1]:
        total = total * x[:, at]
    return total


def normalised(x: Matrix, norm: str) -> Matrix:
    if norm == "l2":
        size = np.sqrt((x * x).sum(axis=1))
    else:
        size = np.abs(x).sum(axis=1) if norm == "l1" else np.abs(x).max(axis=1, initial=0)
    return x / np.where(size == 0, 1, size)[:, None]


def of_column(step: steps.Step, at: int, x: Matrix, refused: NDArray[np.bool_]) -> Matrix:  # noqa: C901 - one branch a step
    """A step that treats each column by itself, with parameters that are its own or those of all."""

    def own(field: Sequence[Any]) -> Any:
        return field[at] if len(field) > 1 else field[0]

    match step:
        case steps.Power("yeo-johnson", lambdas):
            return np.asarray(stats.yeojohnson(x, own(lambdas)))
        case steps.Power("box-cox", lambdas):
            return np.asarray(special.boxcox(x, own(lambdas)))
        case steps.Quantiles(quantiles, references, distribution):
            return quantile_of(x, reals(own(quantiles)), reals(references), distribution)
        case steps.Spline():
            return spline_of(step, x, reals(own(step.knots)), refused)
        case steps.Bucket(edges):
            codes = np.searchsorted(own(edges), x, side="right").astype(float)  # whole numbers have another reciprocal
            return np.where(np.isnan(x), len(own(edges)) + 1.0, codes)
        case steps.Match(values, unseen):
            known = own(values)
            codes = np.full(len(x), float(len(known)))
            for code, value in enumerate(known):
                codes[equals(x, value)] = code
            if unseen == "refuse":
                refused |= codes == len(known)
            return codes
        case steps.OneHot(columns, widths):
            places = np.array(own(columns))[codes_among(x, len(own(columns)))]
            out = np.zeros((len(x), own(widths)))
            out[np.flatnonzero(places >= 0), places[places >= 0]] = 1
            return out
        case steps.Lookup(values):
            return reals(own(values))[codes_among(x, len(own(values)))]
    raise AssertionError(step)


def codes_among(x: Matrix, count: int) -> NDArray[np.int64]:
    return np.array([int(value) if value in range(count) else count - 1 for value in x.tolist()], int)


def quantile_of(x: Matrix, known: Matrix, shares: Matrix, distribution: str) -> Matrix:
    out = x.copy()
    there = ~np.isnan(x)
    backward = np.interp(-x[there], -known[::-1], -shares[::-1])
    out[there] = 0.5 * (np.interp(x[there], known, shares) - backward)
    near = 1e-7 if distribution == "normal" else 0
    is_high = x + near > known[-1] if near else x == known[-1]
    is_low = x - near < known[0] if near else x == known[0]
    out[is_high], out[is_low] = 1, 0
    if not near:
        return out
    farthest = stats.norm.ppf(near - np.spacing(1))
    return np.clip(stats.norm.ppf(out), farthest, stats.norm.ppf(1 - (near - np.spacing(1))))


def spline_of(step: steps.Spline, x: Matrix, knots: Matrix, refused: NDArray[np.bool_]) -> Matrix:
    count = len(knots) - step.degree - 1
    low, high = knots[step.degree], knots[count]
    basis = BSpline(knots, np.eye(count), step.degree)
    is_missing = np.isnan(x)
    if step.extrapolation == "periodic":
        x = low + (x - low) % (high - low)
    out = basis(x)
    if step.extrapolation == "refuse":
        refused |= (x < low) | (x > high)
    if step.extrapolation in {"constant", "linear"}:
        for end, is_beyond in ((low, x < low), (high, x > high)):
            slopes = basis(end, nu=1) if step.degree and step.extrapolation == "linear" else np.zeros(count)
            moved = np.where(slopes != 0, (x[is_beyond, None] - end) * slopes, 0)
            out[is_beyond] = basis(end) + moved
    if step.extrapolation == "periodic":
        joined = count - step.degree
        out[:, : step.degree] += out[:, joined:]
        out = out[:, :joined]
    out[is_missing] = 0 if step.missing == "zeros" else NAN
    return out if step.include_bias else out[:, :-1]
