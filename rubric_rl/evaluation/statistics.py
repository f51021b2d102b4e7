"""The arithmetic of evaluation: HealthBench's statistics, and intervals by prompt beside them."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import ceil, comb, fsum, sqrt
from statistics import NormalDist

import numpy as np

DRAWS = 1000  # of the reference's bootstrap
# of every interval
LEVEL = 0.95
POWER = 0.8  # the chance to tell a difference that is there
RESAMPLES = 2000
# of the length adjustment (OpenAI, 2026)
FREE_CHARACTERS = 2000
CHARACTERS_PER_PENALTY = 500
PENALTIES = {
    "full": 0.0299,
    "hard": 0.0392,
    "consensus": 0.0020,
}
_AT_ONCE = 2_000_000  # random numbers held in memory at a time
Values = Sequence[float]
Sums = np.ndarray  # the last axis holds the columns
Statistic = Callable[[Sums], np.ndarray]
Bounds = tuple[float, float] | None  # of an interval


def clipped_mean(values: Values) -> float:
    """The reference's headline: the mean of unclipped scores, clipped to [0, 1]."""
    mean = np.mean(values)
    return float(np.clip(mean, 0, 1))


def bootstrap_std(values: Values) -> float:
    """The reference's error of that mean.

    The standard deviation of 1,000 bootstrap means, each clipped to [0, 1]. The draws are those of
    simple-evals after `np.random.seed(0)`.
    """
    array = np.asarray(values, float)
    random = np.random.RandomState(0)
    count = len(array)
    means = []
    for rows in _chunks(DRAWS, count):
        places = random.randint(0, count, (rows, count))
        drawn = array[places]
        means.append(drawn.mean(axis=1))
    all_means = np.concatenate(means)
    clipped = np.clip(all_means, 0, 1)
    return float(np.std(clipped))


def separation(met: Values, not_met: Values) -> float | None:
    """The area under the ROC curve: how often a value of `met` lies above one of `not_met`.

    Equal ones count as half. It asks what a grader knows and not where its threshold lies: 1 where
    some threshold tells all apart, 0.5 where the values say nothing. None where either is empty.
    """
    if not len(met) or not len(not_met):
        return None
    others = np.sort(not_met)
    below = np.searchsorted(others, met, "left")
    not_above = np.searchsorted(others, met, "right")
    return float(np.mean(below + not_above) / 2 / len(others))


def worst_of(values: Values, k: int) -> float:
    """The mean over all k-subsets of their minimum (HealthBench, worst-at-k).

    In one pass: the i-th smallest value is the minimum of the subsets that hold it and k - 1 of
    the larger ones.
    """
    count = len(values)
    subsets = comb(count, k)
    terms = []
    larger = count
    for value in sorted(values):
        larger -= 1
        as_minimum = comb(larger, k - 1)
        share = as_minimum / subsets
        terms.append(value * share)
    return fsum(terms)


def worst_at_k(groups: Sequence[Values], k: int) -> float | None:
    """`worst_of` each prompt's scores, averaged over the prompts that have k of them, clipped.

    None when no prompt has k.
    """
    values = []
    for group in groups:
        if len(group) >= k:
            values.append(worst_of(group, k))
    if not values:
        return None
    return clipped_mean(values)


def length_adjusted(score: float, characters: int, penalty: float) -> float:
    """score - penalty x (characters - 2000) / 500, for one answer (OpenAI, 2026)."""
    excess = characters - FREE_CHARACTERS
    reduction = penalty * excess / CHARACTERS_PER_PENALTY
    return score - reduction


def interval(parts: Sums, statistic: Statistic) -> Bounds:
    """The 95% percentile interval of a statistic, bootstrapped by prompt.

    All answers to a prompt are drawn together. `parts` holds one row of sums per prompt;
    `statistic` takes summed rows of shape (draws, columns) and returns one value per draw. None
    with fewer than two prompts, or where no draw has a value.
    """
    parts = np.asarray(parts, float)
    random = np.random.default_rng(0)
    count = len(parts)
    if count < 2:
        return None
    drawn = []
    for rows in _chunks(RESAMPLES, count):
        times = _times_drawn(random, count, rows)
        drawn.append(times @ parts)
    sums = np.concatenate(drawn)
    values = statistic(sums)
    has_value = ~np.isnan(values)
    values = values[has_value]
    if not len(values):
        return None
    outside = (1 - LEVEL) / 2
    levels = [outside, 1 - outside]
    low, high = np.quantile(values, levels).tolist()
    return low, high


def _times_drawn(random: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """How often each of `count` prompts is drawn, in each of `rows` draws of `count`."""
    shape = (rows, count)
    drawn = random.integers(0, count, shape)
    first_bins = count * np.arange(rows)  # each draw counts in bins of its own
    bins = drawn + first_bins[:, None]
    times = np.bincount(bins.ravel(), minlength=bins.size)
    return times.reshape(shape).astype(float)


def ratio(sums: Sums) -> np.ndarray:
    """A mean as a statistic for `interval`: first column / second column."""
    above, below = _columns(sums, 2)
    return _divide(above, below)


def f1(sums: Sums) -> np.ndarray:
    """F1 of the columns (true positive, false positive, false negative).

    NaN when the class was never predicted or never labelled, as in the reference.
    """
    hit, false, missed = _columns(sums, 3)
    predicted = hit + false
    labelled = hit + missed
    total = predicted + labelled
    value = _divide(2 * hit, total)
    never_predicted = predicted == 0
    never_labelled = labelled == 0
    absent = never_predicted | never_labelled
    return np.where(absent, np.nan, value)


_NOT_MET = [3, 2, 1]  # `kappa`'s columns in the order of `f1`, the sides exchanged


def balanced_f1(sums: Sums) -> np.ndarray:
    """The mean of the F1 of met and of not met; columns as for `kappa`."""
    met = f1(sums)
    not_met = f1(sums[..., _NOT_MET])
    return (met + not_met) / 2


def kappa(sums: Sums) -> np.ndarray:
    """Cohen's kappa.

    Columns: both met, only the grader says met, only the label says met, neither.
    """
    both, grader, label, neither = _columns(sums, 4)
    grader_met = both + grader
    label_met = both + label
    grader_not = label + neither
    label_not = grader + neither
    total = grader_met + grader_not
    same = both + neither
    agreed = _divide(same, total)
    by_chance = grader_met * label_met + grader_not * label_not
    chance = _divide(by_chance, total**2)
    beyond_chance = agreed - chance
    return _divide(beyond_chance, 1 - chance)


def _columns(sums: Sums, count: int) -> np.ndarray:
    """The first so many columns, to be unpacked."""
    columns = np.moveaxis(sums, -1, 0)
    return columns[:count]


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the divisor is 0."""
    is_zero = below == 0
    divisor = np.where(is_zero, 1, below)
    return np.where(is_zero, np.nan, above / divisor)


def _chunks(draws: int, width: int) -> Iterator[int]:
    """`draws` in pieces that keep the random numbers in memory few."""
    most = max(1, _AT_ONCE // width)
    while draws > 0:
        piece = min(most, draws)
        yield piece
        draws -= piece


# ---- over runs that differ in their seed


def mean_interval(values: Values) -> Bounds:
    """The 95% interval of a mean by Student's t, for few values; None for fewer than two.

    For the differences of two arms, a value per seed, it is the paired interval.
    """
    count = len(values)
    if count < 2:
        return None
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / sqrt(count)
    reach = error * t_quantile((1 + LEVEL) / 2, count - 1)
    return mean - reach, mean + reach


@lru_cache(maxsize=1000)
def t_quantile(level: float, freedom: int) -> float:
    """The quantile of Student's t with so many degrees of freedom, for a level in (0.5, 1].

    With t = sqrt(freedom) tan(u) the density of u is proportional to cos(u)^(freedom - 1), which is
    summed up here, in the lower tail, where small sums are exact. At a level of 1 it is huge.
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    heights = np.cos(angles).clip(min=0) ** (freedom - 1)
    middles = (heights[1:] + heights[:-1]) / 2
    below = np.concatenate([[0.0], np.cumsum(middles)])
    angle = -np.interp(1 - level, below / below[-1], angles)
    return sqrt(freedom) * float(np.tan(angle))


def pooled_deviation(groups: Sequence[Values]) -> float | None:
    """The standard deviation within the groups, each about its own mean; None without a pair."""
    squares = []
    freedom = 0
    for group in groups:
        array = np.asarray(group, float)
        squares.append(((array - array.mean()) ** 2).sum())
        freedom += len(group) - 1
    return sqrt(fsum(squares) / freedom) if freedom > 0 else None


def seeds_needed(deviation: float, difference: float) -> int:
    """How many paired seeds tell `difference` in 80% of the cases, at a level of 5%.

    A paired t-test's sample size in Guenther's approximation: the normal one and half the square
    of its quantile. `deviation` is that of the paired differences.
    """
    two_sided = NormalDist().inv_cdf((1 + LEVEL) / 2)
    power = NormalDist().inv_cdf(POWER)
    normal = ((two_sided + power) * deviation / difference) ** 2
    return max(2, ceil(normal + two_sided**2 / 2))
