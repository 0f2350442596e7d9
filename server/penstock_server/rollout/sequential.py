"""Whether a canary or a shadow is worse or good enough, however often one looks: pure functions of totals.

Every test is an e-value: on average at most 1, at whatever look, while its null holds (Ville 1939), and growing
exponentially with the evidence against it. So **reject when `log_e >= threshold(alpha)`, at any look, after any number of
looks**: the chance that a true null is ever rejected is at most alpha. Nothing is kept between looks. An e-value depends
on totals only, so evidence is stored as counts, is added up over replicas, and survives restarts. All functions take
plain numbers or arrays of one shape, one test each, and return the natural logarithm of the e-value.

A canary beside a champion, for whatever is an *event* of one request: an error, a wrong answer, a latency above a limit
that was fixed before (`exceedance_edge`). One `Split` per weight that was in force since the rollout began:

    splits = [Split(0.05, canary=21, champion=190), Split(0.25, canary=40, champion=71)]
    log_e_worse(splits) >= threshold(0.05)          # roll back
    log_e_within(splits, 1.5) >= threshold(0.05)    # promote: its rate is below 1.5 times the champion's
    ratio_interval(splits, 0.05)                    # for people: between these, at every look

A shadow beside the champion that it copies, each pair of answers compared with its label: `Pairs`, `log_e_paired_worse`,
`log_e_paired_within`, `points_interval`. One share against a bound, such as the share of answers that differ:
`log_e_share_above`, `log_e_share_below`, `share_interval`; the mean of a share of each request's rows:
`log_e_shares_above`, `log_e_shares_below`. A mean of something bounded, such as a distance of scores from
0 to 1: `log_e_mean_above`, `log_e_mean_below`, `mean_interval`. Business value: `difference_interval`. Latencies:
`cdf_radius`, `quantile_interval`, `slower_by`. Several metrics, versions or canaries: `log_e_average`, `e_bh`. Whether
the router kept its weights: `log_e_mismatch`.

**One thing must be true: the unit that is counted is what the router drew for.** Requests without a key are drawn anew
each, retries too. With a key, the key is drawn, once, and one that fails a hundred times is one draw. What then is exact
is to count each key's first event of the whole rollout; and each key's fourth, as a metric of its own, which sees a fault
that hits some keys every time. Servers count errors like this. `dispersion`, by which counts are divided, is an approximation
for the rest: `dispersion_over_time` sees retries, `dispersion_over_keys` also keys that always fail. `python -m bench.judges`
simulates what each is worth. The rows of one request are one draw too: the unit is the request.

Exact at every look: all but `difference_interval`, which is asymptotic, and the quantile bands, which hold for latencies
that are alike all the time.
"""

from collections.abc import Iterable, Sequence
from math import exp, expm1, inf, lgamma, log, log1p, sqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError

Reals = NDArray[np.float64]

_WORSE: Final = np.geomspace(1.05, 20.0, 40)
"""The ratios that are looked for: from 5 % more events than the champion's to twenty times as many."""
_BELIEF: Final = np.exp(-0.5 * (np.log(_WORSE / 2.0) / 0.7) ** 2)
"""How likely each is, before anything is seen: around twice as many. Ratios near 20 need few events anyway."""
_NEAREST, _FARTHEST = 0.034, 1.61
_BELOW: Final = np.geomspace(_NEAREST, _FARTHEST, 40)
"""The logarithms by which ratios lie below a margin, from just below it to a fifth."""
_BETS: Final = np.geomspace(0.005, 0.95, 40)
"""The shares of what is at stake that are bet on a mean: small ones find small differences in many values."""
_LARGEST: Final = 3.0
_SHIFTS: Final = _LARGEST * np.sinh(np.linspace(-3.0, 3.0, 401)) / np.sinh(3.0)
"""The logarithms of ratios that an interval's mixture is spread over, from 1/20 to 20 and densest around 1."""
_STEPS: Final = 80
_MCNEMAR_PRIOR: Final = 5.0
_MISMATCH_PRIOR: Final = 1000.0
"""The units that the belief in the router's weights is worth: large, since mismatches are small."""
_FEWEST: Final = 10
_USUAL: Final = 0.75
_MEAN_OF_USUAL: Final = 0.3685
"""The mean of a chi-square variable with one degree of freedom, of the lowest three quarters."""
_TOLD_APART: Final = 1.5
_HALF: Final = 0.5
_TINY: Final = 1e-300


class Split(NamedTuple):
    """Events while one weight was in force.

    Attributes:
        share: the probability by which the router sends a unit to the canary, among the units of canary and champion: its
            weight by the sum of both weights. As designed, not as it turned out. A share of 0 or 1 says nothing.
        canary: the canary's events, a number or an array of them.
        champion: the champion's, alike.
    """

    share: float
    canary: Any
    champion: Any


class Pairs(NamedTuple):
    """Labelled pairs of answers to the same requests.

    Attributes:
        shadow_right: pairs that only the shadow got right.
        champion_right: pairs that only the champion got right.
        total: all pairs, with those that both or neither got right.
    """

    shadow_right: Any
    champion_right: Any
    total: Any


class Moments(NamedTuple):
    """What is known of values: how many, their sum, and the sum of their squares."""

    size: float
    total: float
    squares: float


class Interval(NamedTuple):
    """A confidence sequence at one look: with a chance of 1 - alpha the truth is in it at every look."""

    low: float
    high: float


def threshold(alpha: float) -> float:
    """The logarithm of the e-value from which a null is rejected; of false alarms there are at most alpha.

    >>> round(threshold(0.05), 6)
    2.995732
    """
    if not 0 < alpha < 1:
        raise InvalidInputError(f"alpha is {alpha:g}, expected a probability above 0 and below 1")
    return -log(alpha)


def log_e_worse(splits: Iterable[Split], *, dispersion: Any = 1.0) -> Reals:
    """Against the null that the canary has at most the champion's rate of events: evidence to roll back.

    Of the events under one weight, each is the canary's with probability rho r / (1 - rho + rho r), where rho is the
    share and r the ratio of the two rates, **however the rate of both moves in time**. The e-value is the mean, over 40
    ratios from 1.05 to 20 with most weight around 2, of the likelihood of each by that of r = 1; for r < 1 it is smaller
    still, so the null is composite. The conditional test of two rates (Przyborowski and Wilenski, Biometrika 1940) as a
    mixture martingale (Robbins 1970; for counts: Lindon and Malek, "Anytime-valid inference for multinomial count data",
    NeurIPS 2022). Ramps are exact: each weight has its own rho.

    Args:
        splits: one per weight; none says nothing.
        dispersion: how much more counts vary than those of independent units, 1 or more.

    >>> round(float(np.exp(log_e_worse([Split(0.05, 12, 150), Split(0.25, 70, 160)]))), 6)
    2.267813
    """
    gained = _log_ratios(splits, np.log(_WORSE), 0.0, dispersion)
    return _log_sum(gained + np.log(_BELIEF / _BELIEF.sum()))


def log_e_within(splits: Iterable[Split], margin: float, *, dispersion: Any = 1.0) -> Reals:
    """Against the null that the canary has `margin` times the champion's rate of events or more: evidence to promote.

    As `log_e_worse`, with the likelihood of smaller ratios by that of the margin; since the likelihood ratio is monotone
    in r, it is valid for all ratios from the margin on. Half of the mixture is on a ratio of 1, the version that is as
    good, where the margin is above 1; the rest is spread from a fifth of the margin to just below it.

    Args:
        splits: as for `log_e_worse`.
        margin: the ratio that is too much, above 0, such as 1.5.
        dispersion: as for `log_e_worse`.
    """
    if not 0 < margin < inf:
        raise InvalidInputError(f"the margin is {margin:g} times the champion's rate, expected a ratio above 0")
    at = log(margin)
    nearest = min(_NEAREST, at / 4) if margin > 1 else _NEAREST
    below = at - np.geomspace(nearest, _FARTHEST, 40)
    gained = _log_ratios(splits, below, at, dispersion)
    spread = _log_mean(gained)
    if margin <= 1:
        return spread
    equal = _log_ratios(splits, np.zeros(1), at, dispersion)[..., 0]
    return _real(np.logaddexp(spread, equal) + log(_HALF))


def ratio_interval(splits: Iterable[Split], alpha: float, *, dispersion: Any = 1.0) -> Interval:
    """The canary's rate of events by the champion's, at every look; plain counts only.

    All ratios whose likelihood is above alpha times the mean likelihood of 401 ratios from 1/20 to 20 (the method of
    mixtures, Robbins 1970). The likelihood is log-concave in log r, so they are an interval, found by bisection.
    """
    kept = [split for split in splits if _informs(split)]
    level = -threshold(alpha) + float(_log_mean(_log_ratios(kept, _SHIFTS, 0.0, dispersion)))
    counts = [(share, float(canary / dispersion), float(champion / dispersion)) for share, canary, champion in kept]
    most = 60.0

    def likelihood(at: float) -> float:
        return sum(ours * at - (ours + theirs) * log1p(share * expm1(at)) for share, ours, theirs in counts)

    def slope(at: float) -> float:
        odds = exp(at)
        return sum(
            (ours * (1 - share) - theirs * share * odds) / (1 - share + share * odds) for share, ours, theirs in counts
        )

    best = _root(slope, -most, most)
    low = -inf if likelihood(-most) >= level else _root(lambda at: level - likelihood(at), -most, best)
    high = inf if likelihood(most) >= level else _root(lambda at: likelihood(at) - level, best, most)
    return Interval(exp(low), exp(high))


def log_e_paired_worse(pairs: Pairs, margin: float = 0.0) -> Reals:
    """Against the null that the shadow is at most `margin` less accurate than the champion: evidence to give it up.

    Each pair is worth 1 if only the shadow was right, -1 if only the champion was, 0 otherwise, and the null is a mean of
    -margin or more: a bet on a bounded mean, as in `log_e_mean_above`. Without a margin only discordant pairs count, as in
    McNemar's test. Labels may come late and for some requests only, as long as both answers get the same ones.

    Args:
        pairs: the totals.
        margin: a difference of accuracies, 0.01 for a point.
    """
    values, counts = _outcomes(pairs)
    return log_e_mean_above(-values, counts, _points(margin), bounds=(-1.0, 1.0))


def log_e_paired_within(pairs: Pairs, margin: float) -> Reals:
    """Against the null that the shadow is `margin` less accurate than the champion, or more: evidence that it is good enough.

    The opposite of `log_e_paired_worse`; with a margin of 0, evidence that the shadow is better.
    """
    values, counts = _outcomes(pairs)
    return log_e_mean_above(values, counts, -_points(margin), bounds=(-1.0, 1.0))


def points_interval(pairs: Pairs, alpha: float) -> Interval:
    """The shadow's accuracy less the champion's, at every look; plain counts only."""
    values, counts = _outcomes(pairs)
    return mean_interval(values, counts, alpha, bounds=(-1.0, 1.0))


def log_e_mcnemar(pairs: Pairs) -> Reals:
    """Against the null that both are equally accurate: evidence of a difference, either way.

    The Beta(5, 5) mixture over the share of discordant pairs that the shadow got right, by that share at a half (Robbins
    1970).

    >>> round(float(np.exp(log_e_mcnemar(Pairs(60, 40, 1000)))), 6)
    1.865655
    """
    return _beta_mixture(pairs.shadow_right, pairs.champion_right, _MCNEMAR_PRIOR) + log(2) * _real(
        pairs.shadow_right + pairs.champion_right
    )


def log_e_share_above(count: Any, total: Any, limit: float) -> Reals:
    """Against the null that something happens with a probability of at most `limit`.

    Args:
        count: how often it happened.
        total: of how many; each happens or not, with a probability that may depend on those before.
        limit: above 0 and below 1.
    """
    _check_share(limit)
    return log_e_worse([Split(limit, _real(count), _real(total) - count)])


def log_e_share_below(count: Any, total: Any, limit: float) -> Reals:
    """Against the null that something happens with a probability of `limit` or more; arguments as `log_e_share_above`."""
    _check_share(limit)
    return log_e_within([Split(limit, _real(count), _real(total) - count)], 1.0)


def log_e_shares_above(values: Sequence[float] | Reals, counts: Any, limit: float) -> Reals:
    """Against the null that shares, such as of a request's rows, have a mean of at most `limit`.

    As `log_e_share_above`, which it is where all shares are 0 or 1: what is bet on a ratio r grows by (1 + x (r - 1)) /
    (1 + limit (r - 1)), which is linear in the share x and so is 1 on average under the null, whatever its distribution
    (Waudby-Smith and Ramdas, JRSS B 2024).

    Args:
        values: the shares, [values]; of cells the **lower** ends.
        counts: how often each was, [..., values].
        limit: above 0 and below 1.
    """
    _check_share(limit)
    return _log_sum(_log_share_ratios(values, counts, limit, np.log(_WORSE)) + np.log(_BELIEF / _BELIEF.sum()))


def log_e_shares_below(values: Sequence[float] | Reals, counts: Any, limit: float) -> Reals:
    """Against the null that shares have a mean of `limit` or more; of cells the **upper** ends, the rest alike."""
    _check_share(limit)
    return _log_mean(_log_share_ratios(values, counts, limit, -_BELOW))


def _log_share_ratios(values: Sequence[float] | Reals, counts: Any, limit: float, log_ratios: Reals) -> Reals:
    """The log of what is won by a bet on each ratio, [..., ratios]."""
    gains = np.expm1(log_ratios)
    won = np.log1p(np.multiply.outer(np.asarray(values, np.float64), gains)) - np.log1p(limit * gains)
    return _real(_real(counts) @ won)


def share_interval(count: float, total: float, alpha: float) -> Interval:
    """The probability by which something happens, at every look: the uniform mixture over it (Robbins 1970)."""
    level = float(_beta_mixture(count, total - count, 1.0)) - threshold(alpha)

    def likelihood(at: float) -> float:
        return count * log(max(at, _TINY)) + (total - count) * log(max(1 - at, _TINY))

    best = count / total if total else _HALF
    low = _root(lambda at: level - likelihood(at), 0.0, best) if count else 0.0
    high = _root(lambda at: likelihood(at) - level, best, 1.0) if total > count else 1.0
    return Interval(low, high)


def log_e_mean_above(
    values: Sequence[float] | Reals, counts: Any, limit: float, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Reals:
    """Against the null that a bounded quantity has a mean of at most `limit`, from how often it had each value.

    A gambler whom the null gives no advantage bets the same share b of what is at stake on each value x: his capital is the
    product of 1 + b ((x - low) / (limit - low) - 1), which totals determine; the e-value is its mean over 40 shares
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024). No distribution is
    assumed.

    Args:
        values: what the quantity is, [values]; of the bins of a histogram the **lower** ends, which errs on the safe side.
        counts: how often, [..., values].
        limit: within the bounds.
        bounds: the least and the most that the quantity can be.
    """
    low, high = bounds
    if not low < limit < high:
        raise InvalidInputError(f"the limit is {limit:g}, expected one between {low:g} and {high:g}")
    each = np.asarray(values, np.float64)
    if not ((each >= low) & (each <= high)).all():
        raise InvalidInputError(f"values from {each.min():g} to {each.max():g}, expected all from {low:g} to {high:g}")
    gains = (each - low) / (limit - low) - 1
    logs = np.log1p(np.multiply.outer(_BETS, gains))
    return _log_mean(_real(counts) @ logs.T)


def log_e_mean_below(
    values: Sequence[float] | Reals, counts: Any, limit: float, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Reals:
    """Against the null that a bounded quantity has a mean of `limit` or more; of bins the **upper** ends, the rest alike."""
    return log_e_mean_above(-np.asarray(values, np.float64), counts, -limit, bounds=(-bounds[1], -bounds[0]))


def mean_interval(
    values: Sequence[float] | Reals,
    counts: Any,
    alpha: float,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    upper: Sequence[float] | Reals | None = None,
) -> Interval:
    """The mean of a bounded quantity, at every look: all that neither bet rejects, each at half of alpha.

    Args:
        values: what the quantity is, or the lower ends of a histogram's bins.
        counts: how often, [values].
        alpha: the chance that it is ever outside.
        bounds: the least and the most that the quantity can be.
        upper: the upper ends of the bins; by default the values.
    """
    level, inside = threshold(alpha / 2), 1e-9 * (bounds[1] - bounds[0])
    least, most = bounds[0] + inside, bounds[1] - inside
    tops = values if upper is None else upper

    def above(limit: float) -> float:
        return level - float(log_e_mean_above(values, counts, limit, bounds=bounds))

    def below(limit: float) -> float:
        return float(log_e_mean_below(tops, counts, limit, bounds=bounds)) - level

    # What rejects a limit rejects all that are farther from the values.
    low = bounds[0] if above(least) > 0 else _root(lambda at: -above(at), least, most)
    high = bounds[1] if below(most) < 0 else _root(lambda at: -below(at), least, most)
    return Interval(low, high)


def difference_interval(
    canary: Moments, champion: Moments, alpha: float, *, tuned_for: float = 10_000.0, fewest: int = 100
) -> Interval:
    """The mean of the canary's values less the champion's, such as revenue per request, without bounds on them.

    Asymptotic: for values of finite variance and many of them, the two bounds hold at every look (Waudby-Smith, Arbour,
    Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
    Statistics 2024).

    Args:
        canary: its values.
        champion: its values.
        alpha: the chance that the truth is ever outside.
        tuned_for: how many values of both the interval is narrowest for; it holds for all.
        fewest: with fewer values of either, everything is possible.
    """
    threshold(alpha)
    if min(canary.size, champion.size) < fewest:
        return Interval(-inf, inf)
    both = canary.size + champion.size
    variance = _variance_of_mean(canary) + _variance_of_mean(champion)
    squared = (-2 * log(alpha) + log(1 - 2 * log(alpha))) / tuned_for * both
    radius = sqrt(variance * (squared + 1) / squared * 2 * log(sqrt(squared + 1) / alpha))
    middle = canary.total / canary.size - champion.total / champion.size
    return Interval(middle - radius, middle + radius)


def cdf_radius(count: float, alpha: float, *, begins: float = 1.0) -> float:
    """How far, at most, the shares of so many values below any limit are from the truth, for all limits and at every look.

    0.85 sqrt((ln(1 + ln(n / m)) + 0.8 ln(1612 / alpha)) / n) from n = m on, and 1 before (Howard and Ramdas, "Sequential
    estimation of quantiles with applications to A/B testing and best-arm identification", Bernoulli 2022, theorem 2 and
    its closed form).
    """
    threshold(alpha)
    if count < max(begins, 1.0):
        return 1.0
    return min(1.0, 0.85 * sqrt((log(1 + log(count / begins)) + 0.8 * log(1612 / alpha)) / count))


def quantile_interval(counts: Any, edges: Sequence[float], quantile: float, alpha: float) -> Interval:
    """The limits that a quantile is between, at every look, from the counts of a histogram.

    Args:
        counts: [edges + 1], values up to each edge and above the one before; the last are those above all.
        edges: the upper ends of the bins, increasing.
        quantile: 0.5 for the median.
        alpha: the chance that it is ever outside, for all quantiles together.
    """
    below, radius = _shares_below(counts), cdf_radius(float(np.sum(counts)), alpha)
    from_edges = [-inf, *edges]
    low = from_edges[int(np.searchsorted(below + radius, quantile, side="right").clip(0, len(edges)))]
    reached = np.flatnonzero(below - radius >= quantile)
    return Interval(low, float(edges[reached[0]]) if len(reached) else inf)


def slower_by(canary: Any, champion: Any, alpha: float) -> float:
    """By how much the canary's latencies are surely longer: the share of requests, at the limit where it is largest.

    The two bands of the distribution functions, each at half of alpha, are apart by so much; 0 while they touch. For slow
    tails `log_e_worse` over exceedances is far more sensitive: bands say that **some** quantile is worse, and need no
    limit.

    Args:
        canary: [bins] counts of a histogram.
        champion: the same bins.
        alpha: the chance that a canary with the champion's latencies, or shorter ones, is ever said to be slower.
    """
    radius = sum(cdf_radius(float(np.sum(each)), alpha / 2) for each in (canary, champion))
    apart = float(np.max(_shares_below(champion) - _shares_below(canary), initial=0.0)) - radius
    return max(0.0, apart)


def exceedance_edge(counts: Any, quantile: float) -> int | None:
    """The edge of a histogram that stands for a quantile, such as the champion's p99 before a rollout.

    Latencies above it are events for `log_e_worse`. It must stay the same for the whole rollout. It is the edge above which
    the odds of values are nearest to those of the quantile. Where that is more than fourfold, as where all values lie in one
    bin, it is the first edge that so many are below: then what is slower than ever before is an event. None where that is in
    the last bin, which has no upper end, or where there are no values.
    """
    if not np.sum(counts):
        return None
    below = _shares_below(counts)[:-1]
    away = np.abs(np.log(np.maximum(1 - below, _TINY) / np.maximum(below, _TINY)) - log((1 - quantile) / quantile))
    nearest = int(np.argmin(away))
    if away[nearest] <= log(4):
        return nearest
    reached = np.flatnonzero(below >= quantile)
    return int(reached[0]) if len(reached) else None


def log_e_average(log_e: Sequence[Any], weights: Sequence[float] | None = None) -> Reals:
    """One e-value of several, however they depend on each other: their mean (Vovk and Wang, Annals of Statistics 2021).

    It is at least a metric's own by the logarithm of its weight, so a threshold for the average is alpha times the weight
    for each, and less where several speak.

    Args:
        log_e: of several metrics.
        weights: above 0; the same for all by default.
    """
    if not len(log_e):
        raise InvalidInputError("no e-values, expected one or more to average")
    shares = np.ones(len(log_e)) if weights is None else np.asarray(weights, np.float64)
    if len(shares) != len(log_e) or not (shares > 0).all():
        raise InvalidInputError(f"weights {shares.tolist()} for {len(log_e)} e-values, expected one above 0 for each")
    stacked = np.stack([_real(each) for each in log_e], axis=-1)
    return _log_sum(stacked + np.log(shares / shares.sum()))


def e_bh(log_e: Sequence[float], alpha: float) -> tuple[int, ...]:
    """Which of several nulls to reject so that at most a share alpha of the rejected is true, on average.

    Benjamini and Hochberg's procedure for e-values, whatever their dependence (Wang and Ramdas, JRSS B 2022): the k
    largest, for the largest k of which all are 1 / alpha times their number by k or more. For many canaries a year.
    """
    order = sorted(range(len(log_e)), key=lambda at: -log_e[at])
    needed = threshold(alpha) + log(len(order)) if order else 0.0
    passed = [k for k, at in enumerate(order, 1) if log_e[at] >= needed - log(k)]
    return tuple(sorted(order[: max(passed, default=0)]))


def log_e_mismatch(periods: Iterable[tuple[Sequence[float], Sequence[float]]]) -> Reals:
    """Against the null that the router kept its weights: evidence of a sample ratio mismatch, which voids a comparison.

    The Dirichlet mixture over all shares by the likelihood of the designed ones (Lindon and Malek, NeurIPS 2022); periods
    multiply. Versions that lose requests before they are counted, or retries that change version, look like this. Plain
    counts only.

    Args:
        periods: for each set of weights that was in force the weights, above 0, and the units that each version got. With
            sticky keys these are keys, not requests.
    """
    total = 0.0
    for weights, counts in periods:
        if len(weights) != len(counts) or not all(weight > 0 for weight in weights):
            raise InvalidInputError(f"weights {list(weights)} and {len(counts)} counts, expected one above 0 for each")
        shares = [weight / sum(weights) for weight in weights]
        total += lgamma(_MISMATCH_PRIOR) - lgamma(_MISMATCH_PRIOR + sum(counts))
        for share, count in zip(shares, counts, strict=True):
            prior = _MISMATCH_PRIOR * share
            total += lgamma(prior + count) - lgamma(prior) - count * log(share)
    return _real(total)


def dispersion_over_time(events: Any) -> Reals:
    """How much more often events come together than independent ones do, 1 or more, from counts of many intervals.

    The differences of neighbours, squared, by their sum, which is 1 on average for independent events and k where they
    come k at a time, as a failed request does that is sent again and again. Neighbours share what moves slowly, and the
    quarter with the largest differences is left out, so that an incident now and then does not count. Sparse intervals are
    joined; with fewer than ten of ten events each nothing is known, and 1 is said. So it is where nothing is told from 1,
    which is below 1.5.

    Take the champion's events of the hour before the rollout, and keep the number for the rollout. **Keys that fail over
    and over, at any time, are not seen**: `dispersion_over_keys` sees them.

    Args:
        events: [..., intervals], such as minutes; one test each.
    """
    e = _real(events)
    width = max(1, int(np.ceil(_FEWEST / max(float(e.mean()) if e.size else 0.0, 1e-9))))
    intervals = e.shape[-1] // width
    if intervals < _FEWEST:
        return _real(np.ones(e.shape[:-1]))
    joined = e[..., : intervals * width].reshape(*e.shape[:-1], intervals, width).sum(axis=-1)
    before, after = joined[..., :-1], joined[..., 1:]
    usual = np.sort(_ratio((after - before) ** 2, after + before), axis=-1)[..., : round(_USUAL * (intervals - 1))]
    found = usual.mean(axis=-1) / _MEAN_OF_USUAL
    return _real(np.where(found < _TOLD_APART, 1.0, found))


def dispersion_over_keys(events: Any) -> Reals:
    """How much more events vary over groups of keys than independent ones would, 1 or more: variance by mean.

    Keys that fail over and over are seen, in whichever interval. For events m_i of key i it is near sum m_i^2 / sum m_i.

    Args:
        events: [..., groups] of both versions together, by a hash of the key that has nothing to do with where the router
        sends
            it; 64 groups know the dispersion to a fifth.
    """
    e = _real(events)
    return _real(np.maximum(1.0, _ratio(e.var(axis=-1, ddof=1), e.mean(axis=-1))))


def _log_ratios(splits: Iterable[Split], log_ratios: Reals, null: float, dispersion: Any) -> Reals:
    """The log likelihoods of the ratios less that of the null's, [..., ratios]."""
    if not np.all(np.asarray(dispersion) >= 1):
        raise InvalidInputError(f"the dispersion is {dispersion}, expected 1 or more")
    gained = np.zeros(len(log_ratios))
    for split in splits:
        if _informs(split):
            canary, champion = _real(split.canary)[..., None], _real(split.champion)[..., None]
            lost = np.logaddexp(log(1 - split.share), log(split.share) + log_ratios)
            lost_null = np.logaddexp(log(1 - split.share), log(split.share) + null)
            gained = gained + canary * (log_ratios - null) - (canary + champion) * (lost - lost_null)
    return _real(gained / _real(dispersion)[..., None])


def _informs(split: Split) -> bool:
    """Whether there was a choice: without one, whose an event is says nothing."""
    if not 0 <= split.share <= 1:
        raise InvalidInputError(f"a split's share is {split.share:g}, expected a probability from 0 to 1")
    return 0 < split.share < 1


def _outcomes(pairs: Pairs) -> tuple[Reals, Reals]:
    """The values of pairs, and how often each was: [..., 3]."""
    worse, better = _real(pairs.champion_right), _real(pairs.shadow_right)
    alike = _real(pairs.total) - worse - better
    if not np.all(alike >= 0):
        raise InvalidInputError(
            f"{pairs.total} pairs, of which {worse} and {better} have one right answer, expected as many or more"
        )
    return np.array([-1.0, 0.0, 1.0]), np.stack([worse, alike, better], axis=-1)


def _points(margin: float) -> float:
    if not 0 <= margin < 1:
        raise InvalidInputError(f"the margin is a difference of accuracies of {margin:g}, expected 0 to below 1")
    return margin


def _check_share(limit: float) -> None:
    if not 0 < limit < 1:
        raise InvalidInputError(f"the limit is a share of {limit:g}, expected one above 0 and below 1")


def _shares_below(counts: Any) -> Reals:
    """The share of values up to each edge, [edges]; 0 where there are no values."""
    c = _real(counts)
    return _real(np.cumsum(c)[:-1] / max(c.sum(), 1.0))


def _variance_of_mean(values: Moments) -> float:
    mean = values.total / values.size
    return max(values.squares / values.size - mean * mean, 0.0) / (values.size - 1)


def _beta_mixture(first: Any, second: Any, prior: float) -> Reals:
    """The logarithm of B(prior + first, prior + second) / B(prior, prior)."""
    each = np.vectorize(
        lambda a, b: lgamma(prior + a) + lgamma(prior + b) - lgamma(2 * prior + a + b), otypes=[np.float64]
    )
    return _real(each(first, second) - 2 * lgamma(prior) + lgamma(2 * prior))


def _log_mean(logs: Reals) -> Reals:
    return _real(_log_sum(logs) - log(logs.shape[-1]))


def _log_sum(logs: Reals) -> Reals:
    """The logarithm of a sum over the last axis, given the logarithms of what is summed."""
    most = logs.max(axis=-1, keepdims=True)
    return _real(most[..., 0] + np.log(np.exp(logs - most).sum(axis=-1)))


def _ratio(above: Any, below: Any) -> Reals:
    """0 where there is nothing below."""
    found: Reals = np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=np.asarray(below) > 0)
    return found


def _root(falling: Any, low: float, high: float) -> float:
    """Where a function that falls from above 0 to below it is 0, by bisection."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _real(values: Any) -> Reals:
    return np.asarray(values, np.float64)[()]
