"""The arithmetic of evaluation: HealthBench's statistics, and intervals by prompt beside them."""

import math
from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 1000  # of the reference's bootstrap
LEVEL, RESAMPLES = 0.95, 2000  # of every interval
FREE_CHARACTERS, CHARACTERS_PER_PENALTY = 2000, 500  # of the length adjustment
# per 500 characters (OpenAI, 2026)
PENALTIES = {"full": 0.0299, "hard": 0.0392, "consensus": 0.0020}
_AT_ONCE = 2_000_000  # random numbers held in memory at a time
Values = Sequence[float]


def clipped_mean(values: Values) -> float:
    """The reference's headline: the mean of unclipped scores, clipped to [0, 1]."""
    return float(np.clip(np.mean(values), 0, 1))


def bootstrap_std(values: Values) -> float:
    """The reference's error of that mean.

    The standard deviation of 1,000 bootstrap means, each clipped to [0, 1]. The draws are those of
    simple-evals after `np.random.seed(0)`.
    """
    array = np.asarray(values, float)
    random = np.random.RandomState(0)
    count = len(array)

    def means(rows: int) -> np.ndarray:
        drawn = random.randint(0, count, (rows, count))
        return array[drawn].mean(axis=1)

    all_means = np.concatenate([means(rows) for rows in _chunks(DRAWS, count)])
    return float(np.std(np.clip(all_means, 0, 1)))


def worst_of(values: Values, k: int) -> float:
    """The mean over all k-subsets of their minimum (HealthBench, worst-at-k).

    In one pass: the i-th smallest value is the minimum of the subsets that hold it and k - 1 of
    the larger ones.
    """
    count = len(values)
    subsets = math.comb(count, k)
    terms = []
    for place, value in enumerate(sorted(values)):
        as_minimum = math.comb(count - 1 - place, k - 1)
        terms.append(value * (as_minimum / subsets))
    return math.fsum(terms)


def worst_at_k(groups: Sequence[Values], k: int) -> float | None:
    """`worst_of` each prompt's scores, averaged over the prompts that have k of them, clipped.

    None when no prompt has k.
    """
    values = [worst_of(group, k) for group in groups if len(group) >= k]
    return clipped_mean(values) if values else None


def length_adjusted(score: float, characters: int, penalty: float) -> float:
    """score - penalty x (characters - 2000) / 500, for one answer (OpenAI, 2026)."""
    excess = characters - FREE_CHARACTERS
    return score - penalty * excess / CHARACTERS_PER_PENALTY


def interval(
    parts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float] | None:
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
        drawn.append(_times_drawn(random, count, rows) @ parts)
    values = statistic(np.concatenate(drawn))
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)


def _times_drawn(random: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """How often each of `count` prompts is drawn, in each of `rows` draws of `count`."""
    drawn = random.integers(0, count, (rows, count))
    shifted = drawn + count * np.arange(rows)[:, None]  # each draw counts in bins of its own
    times = np.bincount(shifted.ravel(), minlength=rows * count)
    return times.reshape(rows, count).astype(float)


def ratio(sums: np.ndarray) -> np.ndarray:
    """A mean as a statistic for `interval`: first column / second column."""
    return _divide(sums[..., 0], sums[..., 1])


def f1(sums: np.ndarray) -> np.ndarray:
    """F1 of the columns (true positive, false positive, false negative).

    NaN when the class was never predicted or never labelled, as in the reference.
    """
    hit = sums[..., 0]
    false = sums[..., 1]
    missed = sums[..., 2]
    value = _divide(2 * hit, 2 * hit + false + missed)
    never_predicted = hit + false == 0
    never_labelled = hit + missed == 0
    absent = never_predicted | never_labelled
    return np.where(absent, np.nan, value)


def balanced_f1(sums: np.ndarray) -> np.ndarray:
    """The mean of the F1 of met and of not met; columns as for `kappa`."""
    met = f1(sums[..., [0, 1, 2]])
    not_met = f1(sums[..., [3, 2, 1]])
    return (met + not_met) / 2


def kappa(sums: np.ndarray) -> np.ndarray:
    """Cohen's kappa.

    Columns: both met, only the grader says met, only the label says met, neither.
    """
    both, grader, label, neither = (sums[..., column] for column in range(4))
    total = both + grader + label + neither
    agreed = _divide(both + neither, total)
    by_chance_met = (both + grader) * (both + label)
    by_chance_not = (label + neither) * (grader + neither)
    chance = _divide(by_chance_met + by_chance_not, total**2)
    return _divide(agreed - chance, 1 - chance)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the divisor is 0."""
    below = np.asarray(below, float)
    is_zero = below == 0
    return np.where(is_zero, np.nan, above / np.where(is_zero, 1, below))


def _chunks(draws: int, width: int) -> list[int]:
    """`draws` in pieces that keep the random numbers in memory few."""
    step = max(1, _AT_ONCE // max(width, 1))
    return [min(step, draws - done) for done in range(0, draws, step)]
