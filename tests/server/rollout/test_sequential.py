from itertools import product
from math import comb, exp, factorial, inf, isinf, log, sqrt
from typing import Any

import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.rollout import sequential
from penstock_server.rollout.sequential import Interval, Moments, Pairs, Split

shares = st.sampled_from([0.01, 0.05, 0.25, 0.5, 0.9])
events = st.integers(0, 500)
splits = st.lists(st.builds(Split, shares, events, events), max_size=4)
alphas = st.sampled_from([0.001, 0.01, 0.05, 0.2])


def e_value(log_e: Any) -> float:
    return float(np.exp(log_e))


def binomial(n: int, p: float, k: int) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)


def probability(share: float, ratio: float) -> float:
    """That an event is the canary's."""
    return share * ratio / (1 - share + share * ratio)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ([], 1.0),
        ([Split(0.05, 12, 150)], 0.526900),
        ([Split(0.05, 12, 150), Split(0.25, 70, 160)], 1.301520),
        ([Split(0.05, 12, 150), Split(0.0, 0, 9), Split(1.0, 9, 0)], 0.526900),
    ],
)
def test_evidence_that_a_canary_is_worse(splits: list[Split], expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same belief in each ratio, which others have computed."""
    monkeypatch.setattr(sequential, "_BELIEF", np.ones(40))
    assert e_value(sequential.log_e_worse(splits)) == pytest.approx(expected, abs=5e-7)


def test_mcnemar_evidence() -> None:
    assert e_value(sequential.log_e_mcnemar(Pairs(60, 40, 100))) == pytest.approx(1.865655, abs=5e-7)


@given(splits, st.randoms())
def test_evidence_is_of_totals(splits: list[Split], random: Any) -> None:
    """The order does not matter, nor whether replicas' counts are added before or after."""
    shuffled = random.sample(splits, len(splits))
    merged: dict[float, Split] = {}
    for split in splits:
        before = merged.get(split.share, Split(split.share, 0, 0))
        merged[split.share] = Split(split.share, before.canary + split.canary, before.champion + split.champion)
    for test in (sequential.log_e_worse, lambda some: sequential.log_e_within(some, 1.5)):
        once = float(test(splits))
        assert float(test(shuffled)) == pytest.approx(once, rel=1e-9, abs=1e-9)
        assert float(test(list(merged.values()))) == pytest.approx(once, rel=1e-9, abs=1e-9)


@given(shares, events, events)
def test_a_canarys_event_speaks_against_it_and_a_champions_for_it(share: float, canary: int, champion: int) -> None:
    def both(canary: int, champion: int) -> tuple[float, float]:
        split = [Split(share, canary, champion)]
        return float(sequential.log_e_worse(split)), float(sequential.log_e_within(split, 1.5))

    worse, within = both(canary, champion)
    assert both(canary + 1, champion)[0] > worse
    assert both(canary + 1, champion)[1] < within
    assert both(canary, champion + 1)[0] < worse
    assert both(canary, champion + 1)[1] > within


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("ratio", [0.2, 0.8, 1.0, 1.5, 1.7, 4.0])
def test_e_values_are_at_most_one_on_average(share: float, ratio: float) -> None:
    """Over all outcomes of 30 events, for each truth in the null; more outside it."""
    n, p = 30, probability(share, ratio)
    weights = [binomial(n, p, k) for k in range(n + 1)]
    worse, within = (
        sum(w * e_value(test([Split(share, k, n - k)])) for k, w in enumerate(weights))
        for test in (sequential.log_e_worse, lambda some: sequential.log_e_within(some, 1.5))
    )
    assert worse == pytest.approx(1, abs=1e-9) if ratio == 1 else (worse > 1) == (ratio > 1)
    assert within == pytest.approx(1, abs=1e-9) if ratio == 1.5 else (within > 1) == (ratio < 1.5)


@pytest.mark.parametrize(
    ("better", "worse", "margin"), [(0.1, 0.1, 0.0), (0.05, 0.05, 0.0), (0.1, 0.2, 0.1), (0.0, 0.05, 0.05)]
)
def test_paired_e_values_are_one_on_average_at_their_margin(better: float, worse: float, margin: float) -> None:
    n, found = 12, [0.0, 0.0]
    for s, w in product(range(n + 1), repeat=2):
        if s + w <= n:
            ways = factorial(n) / factorial(s) / factorial(w) / factorial(n - s - w)
            chance = ways * better**s * worse**w * (1 - better - worse) ** (n - s - w)
            pairs = Pairs(s, w, n)
            found[0] += chance * e_value(sequential.log_e_paired_worse(pairs, margin))
            found[1] += chance * e_value(sequential.log_e_paired_within(pairs, margin))
    assert found == pytest.approx([1, 1], abs=1e-9)


@given(st.floats(0.01, 0.99), st.lists(st.floats(0, 1), min_size=2, max_size=4), st.integers(1, 2**31))
def test_bets_on_a_mean_are_one_on_average_at_its_limit(limit: float, values: list[float], seed: int) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(values)))
    mean = float(weights @ values)
    if not 0.001 < mean < 0.999:
        return
    for test in (sequential.log_e_mean_above, sequential.log_e_mean_below):
        each = [e_value(test(values, counts, mean)) for counts in np.eye(len(values))]
        assert float(weights @ each) == pytest.approx(1, abs=1e-9)


@given(events, events, st.integers(0, 1000), st.floats(0, 0.2))
def test_pairs_turned_round(better: int, worse: int, alike: int, margin: float) -> None:
    one = Pairs(better, worse, better + worse + alike)
    other = Pairs(worse, better, one.total)
    assert float(sequential.log_e_paired_within(one, 0.0)) == pytest.approx(
        float(sequential.log_e_paired_worse(other, 0.0)), abs=1e-9
    )
    # What is worse by more than a margin is also worse, and the margin makes it harder to say so and easier to accept.
    assert sequential.log_e_paired_worse(one, margin) <= sequential.log_e_paired_worse(one) + 1e-9
    assert sequential.log_e_paired_within(one, margin) >= sequential.log_e_paired_within(one, 0.0) - 1e-9


@given(splits, alphas)
def test_the_interval_of_a_ratio_is_narrower_for_a_larger_alpha_and_holds_the_likeliest(
    splits: list[Split], alpha: float
) -> None:
    wide, narrow = (sequential.ratio_interval(splits, each) for each in (alpha / 10, alpha))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    if not sum(split.canary for split in splits):
        assert wide.low == 0
    if not sum(split.champion for split in splits):
        assert isinf(wide.high)
    if len(splits) == 1 and splits[0].canary and splits[0].champion:
        (share, canary, champion) = splits[0]
        assert narrow.low < canary / champion * (1 - share) / share < narrow.high


def test_an_interval_of_many_events_is_narrow() -> None:
    low, high = sequential.ratio_interval([Split(0.25, 250_000, 750_000)], 0.05)
    assert 0.985 < low < 1 < high < 1.015


@given(st.integers(0, 300), st.integers(0, 300), alphas)
def test_the_interval_of_a_share_is_villes(count: int, others: int, alpha: float) -> None:
    stream = np.repeat([1, 0], [count, others])
    if not len(stream):
        assert sequential.share_interval(0, 0, alpha) == Interval(0.0, 1.0)
        return
    oracle = ville.BernoulliCS(alpha, prior=(1.0, 1.0), intersect=False).fit(stream)
    found = sequential.share_interval(count, count + others, alpha)
    assert found == pytest.approx((oracle.lower_[-1], oracle.upper_[-1]), abs=1e-9)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_evidence_is_villes(better: int, worse: int) -> None:
    if better + worse:
        oracle = ville.BernoulliTest(0.5, prior=(5.0, 5.0)).fit(np.repeat([1, 0], [better, worse]))
        found = float(sequential.log_e_mcnemar(Pairs(better, worse, 1000)))
        assert found == pytest.approx(oracle.log_e_values_[-1], abs=1e-8)


@given(st.lists(st.floats(-3, 12), min_size=1, max_size=12), alphas)
def test_several_e_values_are_combined_as_ville_does(log_e: list[float], alpha: float) -> None:
    assert e_value(sequential.log_e_average(log_e)) == pytest.approx(float(ville.evalues.combine(np.exp(log_e))))
    oracle = np.flatnonzero(ville.evalues.ebh(np.exp(log_e), alpha))
    assert list(sequential.e_bh(log_e, alpha)) == oracle.tolist()


def test_weights_of_an_average() -> None:
    assert e_value(sequential.log_e_average([log(2), log(8)], [3, 1])) == pytest.approx(3.5)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_the_interval_of_a_difference_is_villes_boundary(alpha: float) -> None:
    rng = np.random.default_rng(0)
    canary, champion = rng.normal(1, 2, 1000), rng.normal(1, 2, 3000)
    moments = [Moments(len(x), float(x.sum()), float((x * x).sum())) for x in (canary, champion)]
    low, high = sequential.difference_interval(*moments, alpha)
    middle, variance = canary.mean() - champion.mean(), canary.var(ddof=1) / 1000 + champion.var(ddof=1) / 3000
    rho = 10_000 / (-2 * log(alpha) + log(1 - 2 * log(alpha)))
    radius = float(ville.normal_mixture(4000.0, alpha, rho)) * sqrt(variance / 4000)
    assert (low, high) == pytest.approx((middle - radius, middle + radius), rel=1e-9)
    few = Moments(99, 1.0, 1.0)
    assert sequential.difference_interval(few, moments[1], alpha) == Interval(-inf, inf)


def test_the_radius_of_a_distribution_function() -> None:
    """The closed form is a little above the best constant, which gives 0.08204769."""
    assert 0.08204769 < sequential.cdf_radius(1000, 0.05, begins=100) < 0.083
    assert sequential.cdf_radius(99, 0.05, begins=100) == sequential.cdf_radius(0, 0.05) == 1


EDGES = [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("counts", "quantile", "expected"),
    [
        ([0, 0, 0, 0, 0], 0.5, (-inf, inf)),
        ([0, 10_000, 0, 0, 0], 0.5, (1.0, 2.0)),
        ([3000, 3000, 3000, 3000, 3000], 0.5, (2.0, 4.0)),
        ([6000, 6000, 6000, 0, 0], 2 / 3, (1.0, 4.0)),
        ([0, 0, 0, 0, 10_000], 0.5, (8.0, inf)),
    ],
)
def test_limits_of_a_quantile(counts: list[int], quantile: float, expected: tuple[float, float]) -> None:
    assert sequential.quantile_interval(counts, EDGES, quantile, 0.05) == expected


def test_slower_only_when_the_bands_are_apart() -> None:
    fast, slow = [500, 4000, 500, 0, 0], [0, 500, 4000, 500, 0]
    assert sequential.slower_by(slow, fast, 0.05) > 0.5
    assert sequential.slower_by(fast, slow, 0.05) == 0
    assert sequential.slower_by([each // 500 for each in slow], fast, 0.05) == 0


@pytest.mark.parametrize(
    ("counts", "quantile", "expected"),
    [
        ([90, 9, 1, 0], 0.9, 0),
        ([90, 9, 1, 0], 0.95, 0),  # 10 % are nearer to 5 % than 1 % is
        ([90, 9, 0, 1], 0.995, 1),
        ([990, 1, 9, 0], 0.99, 0),  # though 0.99 is not reached below it
        ([0, 100, 0, 0], 0.99, 1),  # all in one bin: what is slower than that
        ([0, 0, 0, 100], 0.5, None),
        ([0, 0, 0, 0], 0.5, None),
    ],
)
def test_the_edge_to_exceed(counts: list[int], quantile: float, expected: int | None) -> None:
    assert sequential.exceedance_edge(counts, quantile) == expected


def test_a_share_against_a_limit() -> None:
    assert sequential.log_e_share_above(60, 1000, 0.03) > 6
    assert sequential.log_e_share_below(10, 1000, 0.03) > 6
    assert sequential.log_e_share_above(30, 1000, 0.03) < 0.5
    assert sequential.log_e_share_below(30, 1000, 0.03) < 0.5


@given(st.lists(st.integers(0, 400), min_size=3, max_size=3), alphas)
def test_the_interval_of_a_mean_holds_the_mean(counts: list[int], alpha: float) -> None:
    lower, upper = np.array([0.0, 0.1, 0.4]), np.array([0.1, 0.4, 1.0])
    low, high = sequential.mean_interval(lower, counts, alpha, upper=upper)
    assert 0 <= low < high <= 1
    if sum(counts):
        exact = sequential.mean_interval(lower, counts, alpha)
        assert exact.low == low
        assert exact.high <= high
        assert exact.low - 1e-6 <= float(lower @ counts) / sum(counts) <= exact.high


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=2))
def test_kept_weights_are_no_mismatch_on_average(counts: list[int]) -> None:
    """A mismatch of all units speaks; and the e-value is 1 on average over outcomes."""
    n = 20
    average = sum(
        binomial(n, 0.25, k) * e_value(sequential.log_e_mismatch([((1, 3), (k, n - k))])) for k in range(n + 1)
    )
    assert average == pytest.approx(1, abs=1e-9)
    one, other = (float(sequential.log_e_mismatch([((1, 3), (c, c))])) for c in counts)
    both = float(sequential.log_e_mismatch([((1, 3), (c, c)) for c in counts]))
    assert both == pytest.approx(one + other, abs=1e-6)


def test_a_mismatch_of_three_versions_is_seen() -> None:
    assert sequential.log_e_mismatch([((90, 5, 5), (9000, 500, 400))]) > 3
    assert sequential.log_e_mismatch([((90, 5, 5), (9000, 500, 500))]) < 0


@pytest.mark.parametrize(("rate", "together", "expected"), [(30, 1, 1), (3, 1, 1), (30, 6, 6), (300, 20, 20)])
def test_dispersion_of_events_that_come_together(rate: float, together: int, expected: float) -> None:
    rng = np.random.default_rng(1)
    found = sequential.dispersion_over_time(together * rng.poisson(rate / together, (500, 600)))
    assert float(found.mean()) == pytest.approx(expected, rel=0.15)
    assert (found >= 1).all()


def test_incidents_and_slow_changes_are_no_dispersion() -> None:
    rng = np.random.default_rng(1)
    moving = rng.poisson(30 * 2 ** np.sin(np.linspace(0, 6, 60)), (500, 60))
    moving[:, [10, 40]] *= 20
    assert float(sequential.dispersion_over_time(moving).mean()) < 1.3
    assert float(sequential.dispersion_over_time([])) == float(sequential.dispersion_over_time([9] * 9)) == 1


def test_dispersion_over_keys() -> None:
    """2,000 keys with one event each and 20 with a hundred: (2000 + 20 * 10000) / 4000."""
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 64, (200, 2020))
    sizes = np.repeat([1, 100], [2000, 20])
    counts = np.array([np.bincount(each, weights=sizes, minlength=64) for each in groups])
    assert float(sequential.dispersion_over_keys(counts).mean()) == pytest.approx(50.5, rel=0.05)
    assert float(sequential.dispersion_over_keys(np.zeros(64))) == 1


@given(splits, st.floats(1, 50))
def test_dispersion_divides_the_counts(splits: list[Split], dispersion: float) -> None:
    fewer = [Split(share, canary / dispersion, champion / dispersion) for share, canary, champion in splits]
    divided = float(sequential.log_e_worse(splits, dispersion=dispersion))
    assert divided == pytest.approx(float(sequential.log_e_worse(fewer)), abs=1e-6)


def test_arrays_are_one_test_each() -> None:
    canary, champion = np.array([[12, 3], [40, 0]]), np.array([[150, 9], [80, 0]])
    together = [Split(0.05, canary, champion), Split(0.25, canary, champion)]
    for at in np.ndindex(2, 2):
        one = [Split(share, canary[at], champion[at]) for share in (0.05, 0.25)]
        assert sequential.log_e_worse(together)[at] == pytest.approx(float(sequential.log_e_worse(one)))
        assert sequential.log_e_within(together, 1.5, dispersion=np.full((2, 2), 2.0))[at] == pytest.approx(
            float(sequential.log_e_within(one, 1.5, dispersion=2.0))
        )
        pairs = Pairs(canary[at], champion[at], 500)
        assert sequential.log_e_paired_worse(Pairs(canary, champion, 500), 0.01)[at] == pytest.approx(
            float(sequential.log_e_paired_worse(pairs, 0.01))
        )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: sequential.threshold(0), "alpha is 0"),
        (lambda: sequential.log_e_worse([Split(1.5, 1, 1)]), "share is 1.5"),
        (lambda: sequential.log_e_worse([Split(0.5, 1, 1)], dispersion=0.5), "dispersion is 0.5"),
        (lambda: sequential.log_e_within([], 0.0), "margin is 0"),
        (lambda: sequential.log_e_paired_within(Pairs(1, 1, 2), -0.1), "difference of accuracies of -0.1"),
        (lambda: sequential.log_e_paired_worse(Pairs(5, 4, 3)), "3 pairs"),
        (lambda: sequential.log_e_share_above(1, 2, 1.0), "limit is a share of 1"),
        (lambda: sequential.log_e_mean_above([0.5], [1], 1.0), "limit is 1"),
        (lambda: sequential.log_e_mean_above([1.5], [1], 0.5), "values from 1.5"),
        (lambda: sequential.log_e_average([]), "no e-values"),
        (lambda: sequential.log_e_average([1.0], [0.0]), "weights"),
        (lambda: sequential.log_e_mismatch([((1, 2), (1,))]), "1 counts"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        wrong()


def test_thresholds() -> None:
    assert exp(-sequential.threshold(0.05)) == pytest.approx(0.05)
