"""The arithmetic of evaluation: HealthBench's statistics, and intervals by prompt beside them (stage 6, evaluation)."""

import math
from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 1000  # of the reference's bootstrap
LEVEL, RESAMPLES = 0.95, 2000  # of every interval
FREE_CHARACTERS, CHARACTERS_PER_PENALTY = 2000, 500  # of the length adjustment
PENALTIES = {
    "full": 0.0299,
    "hard": 0.0392,
    "consensus": 0.0020,
}  # per 500 characters (OpenAI, 2026)
_AT_ONCE = 2_000_000  # random numbers held in memory at a time


def clipped_mean(values: Sequence[float]) -> float:
    """The reference's headline: the mean of unclipped scores, clipped to [0, 1]."""
    return float(np.clip(np.mean(values), 0, 1))


def bootstrap_std(values: Sequence[float]) -> float:
    """The reference's error of that mean: the standard deviation of 1,000 bootstrap means, each clipped to [0, 1].

    The draws are those of simple-evals after `np.random.seed(0)`.
    """
    values = np.asarray(values, float)
    random, count = np.random.RandomState(0), len(values)
    means = [
        values[random.randint(0, count, (rows, count))].mean(axis=1)
        for rows in _chunks(DRAWS, count)
    ]
    return float(np.std(np.clip(np.concatenate(means), 0, 1)))


def worst_of(values: Sequence[float], k: int) -> float:
    """The mean over all k-subsets of their minimum, in one pass over the sorted values (HealthBench, worst-at-k)."""
    count = len(values)
    subsets = math.comb(count, k)
    return math.fsum(
        v * (math.comb(count - 1 - i, k - 1) / subsets) for i, v in enumerate(sorted(values))
    )


def worst_at_k(groups: Sequence[Sequence[float]], k: int) -> float | None:
    """`worst_of` each prompt's scores, averaged over the prompts that have k of them, clipped; None when none has."""
    values = [worst_of(group, k) for group in groups if len(group) >= k]
    return clipped_mean(values) if values else None


def length_adjusted(score: float, characters: int, penalty: float) -> float:
    """score - penalty x (characters - 2000) / 500, for one answer (OpenAI, 2026; `PENALTIES`)."""
    return score - penalty * (characters - FREE_CHARACTERS) / CHARACTERS_PER_PENALTY


def interval(
    parts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float] | None:
    """The 95% percentile interval of a statistic, bootstrapped by prompt (all answers to a prompt are drawn together).

    `parts` holds one row of sums per prompt; `statistic` takes summed rows of shape (draws, columns) and returns one
    value per draw. None with fewer than two prompts, or where no draw has a value.
    """
    parts, random = np.asarray(parts, float), np.random.default_rng(0)
    count = len(parts)
    if count < 2:
        return None
    drawn = [_times_drawn(random, count, rows) @ parts for rows in _chunks(RESAMPLES, count)]
    values = statistic(np.concatenate(drawn))
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _times_drawn(random: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """How often each of `count` prompts is drawn, in each of `rows` draws of `count`."""
    drawn = random.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(float)


def ratio(sums: np.ndarray) -> np.ndarray:
    """A mean as a statistic for `interval`: first column / second column."""
    return _divide(sums[..., 0], sums[..., 1])


def f1(sums: np.ndarray) -> np.ndarray:
    """F1 of the columns (true positive, false positive, false negative).

    NaN when the class was never predicted or never labelled, as in the reference.
    """
    hit, false, missed = (sums[..., i] for i in range(3))
    value = _divide(2 * hit, 2 * hit + false + missed)
    return np.where((hit + false == 0) | (hit + missed == 0), np.nan, value)


def balanced_f1(sums: np.ndarray) -> np.ndarray:
    """The mean of the F1 of met and of not met; columns as for `kappa`."""
    return (f1(sums[..., [0, 1, 2]]) + f1(sums[..., [3, 2, 1]])) / 2


def kappa(sums: np.ndarray) -> np.ndarray:
    """Cohen's kappa of the columns (both met, only the grader says met, only the label says met, neither)."""
    both, grader, label, neither = (sums[..., i] for i in range(4))
    total = both + grader + label + neither
    agreed = _divide(both + neither, total)
    chance = _divide(
        (both + grader) * (both + label) + (label + neither) * (grader + neither), total**2
    )
    return _divide(agreed - chance, 1 - chance)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    below = np.asarray(below, float)
    return np.where(below == 0, np.nan, above / np.where(below == 0, 1, below))


def _chunks(draws: int, width: int) -> list[int]:
    """`draws` in pieces that keep the random numbers in memory few."""
    step = max(1, _AT_ONCE // max(width, 1))
    return [min(step, draws - done) for done in range(0, draws, step)]
