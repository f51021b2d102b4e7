"""Sums up a run's records: the figures of simple-evals, and our own apart from them."""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from rubric_rl.data.schema import AT_ZERO, Record, TokenCounts
from rubric_rl.evaluation.endpoint_flags import Price
from rubric_rl.evaluation.scoring_rule import PLAIN_RULE, ScoringRule, tag_scores
from rubric_rl.evaluation.statistics import (
    PENALTIES,
    Bounds,
    bootstrap_std,
    clipped_mean,
    interval,
    length_adjusted,
    ratio,
    worst_at_k,
)

OVERALL = "overall_score"
ADJUSTED = "length_adjusted_score"
_OF_ANSWERS = (
    "all",
    "graded",
    *AT_ZERO,
    "ungraded",
    "without_score",
)
_OF_CRITERIA = (
    "all",
    "met",
    "not_met",
    "unreadable",
    *AT_ZERO,
    "ungraded",
)
TOKENS = ("prompt", "cached", "completion")
Mean = tuple[float, Bounds]  # with its interval
_SAME = 1e-9  # means that differ by no more are equal


class Metric:
    """A value per answer, and the index of the answer's prompt."""

    def __init__(self):
        self.prompts = array("l")
        self.values = array("d")

    def add(self, prompt: int, value: float) -> None:
        self.prompts.append(prompt)
        self.values.append(value)

    def parts(self) -> np.ndarray:
        """One row per prompt: (sum of its values, number of values)."""
        _, places = np.unique(self.prompts, return_inverse=True)
        sums = np.bincount(places, self.values)
        counts = np.bincount(places)
        return np.stack([sums, counts], axis=1)

    def means(self) -> dict[int, float]:
        """Index of a prompt -> mean over its answers."""
        prompts = np.unique(self.prompts)
        means = ratio(self.parts())
        pairs = zip(prompts.tolist(), means.tolist(), strict=True)
        return dict(pairs)


class Summary:
    """Adds up records one by one; keeps a few numbers per answer and no text."""

    def __init__(
        self,
        records: Iterable[Record] = (),
        rule: ScoringRule = PLAIN_RULE,
        penalty: float = PENALTIES["hard"],
    ):
        """`rule` scores the verdicts; `penalty` is that of the length-adjusted figure."""
        self.rule = rule
        self.penalty = penalty
        self.metrics: dict[str, Metric] = {}
        self.prompts: dict[str, int] = {}  # prompt_id -> index
        self.answers = Counter[str]()
        self.criteria = Counter[str]()
        self.graders = Counter[str]()  # answers by the name of who graded
        self.templates = Counter[str]()  # answers by the label of the template, "" for our prompt
        self.tokens = {
            "grader": TokenCounts(),
            "policy": TokenCounts(),
        }
        self.characters = array("l")
        self.seconds = 0.0
        self.calls = 0
        # Intervals are slow to compute, and each page shows them:
        # (name of the metric, number of its values) -> its mean
        self._means: dict[tuple[str, int], Mean] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts one record."""
        self.answers["all"] += 1
        self.answers[record.status] += 1
        self.graders[record.grader] += 1
        if record.verdicts:
            self.templates[record.template] += 1
        self._count_criteria(record)
        self.seconds += record.seconds
        self.calls += record.calls
        self.tokens["grader"] += record.first_tokens
        self.tokens["grader"] += record.rest_tokens
        if record.policy_tokens:
            self.tokens["policy"] += record.policy_tokens
        value = self.rule.score(record)
        if math.isnan(value):
            if record.status != "ungraded":  # the rule leaves no positive points
                self.answers["without_score"] += 1
            return
        self._add_scores(record, value)

    def _add_scores(self, record: Record, value: float) -> None:
        following = len(self.prompts)
        prompt = self.prompts.setdefault(record.prompt_id, following)
        characters = 0
        adjusted = value
        if record.status == "graded":
            characters = len(record.answer or "")
            adjusted = length_adjusted(value, characters, self.penalty)
        self.characters.append(characters)
        scores = dict.fromkeys(record.example_tags, value)
        judged = self.rule.judged(record)
        scores |= tag_scores(judged, self.rule.rewarded_by(record))
        scores[OVERALL] = value
        scores[ADJUSTED] = adjusted
        for name, score in scores.items():
            metric = self.metrics.setdefault(name, Metric())
            metric.add(prompt, score)

    def _count_criteria(self, record: Record) -> None:
        count = len(record.rubric)
        self.criteria["all"] += count
        if record.status != "graded":
            self.criteria[record.status] += count
            return
        for verdict in record.verdicts:
            if verdict.met is None:
                self.criteria["unreadable"] += 1
            elif verdict.met:
                self.criteria["met"] += 1
            else:
                self.criteria["not_met"] += 1

    def metric(self, name: str) -> Metric:
        """The values of a metric, none where no answer has it."""
        return self.metrics.get(name) or Metric()

    def reference(self) -> dict[str, float]:
        """The figures of simple-evals, under its names.

        Clipped mean, bootstrap std and number of values of every metric.
        """
        figures = {}
        for name, metric in self.metrics.items():
            if name == ADJUSTED:
                continue
            values = metric.values
            figures[name] = clipped_mean(values)
            figures[f"{name}:n_samples"] = len(values)
            figures[f"{name}:bootstrap_std"] = bootstrap_std(values)
        return figures

    def worst(self) -> dict[str, float | None]:
        """worst-at-k for every k up to the largest number of answers to a prompt."""
        by_prompt = defaultdict(list)
        metric = self.metric(OVERALL)
        pairs = zip(metric.prompts, metric.values, strict=True)
        for prompt, value in pairs:
            by_prompt[prompt].append(value)
        groups = list(by_prompt.values())
        sizes = [len(group) for group in groups]
        most = max(sizes, default=0)
        worst = {}
        for k in range(1, most + 1):
            name = str(k)
            worst[name] = worst_at_k(groups, k)
        return worst

    def mean(self, name: str) -> Mean:
        """The unclipped mean of a metric and its 95% interval by prompt."""
        metric = self.metric(name)
        key = (name, len(metric.values))
        if key not in self._means:
            mean = np.mean(metric.values)
            bounds = interval(metric.parts(), ratio)
            self._means[key] = (float(mean), bounds)
        return self._means[key]

    def tags(self, kind: str) -> list[str]:
        """The tags of one kind (theme, axis, level) that have a score, in order."""
        start = f"{kind}:"
        names = [name for name in self.metrics if name.startswith(start)]
        return sorted(names)

    def result(self, prices: Mapping[str, Price] | None = None) -> dict:
        """Everything as JSON; only what stands under `reference` compares with simple-evals."""
        figures = {
            "reference": self.reference(),
            "worst_at_k": self.worst(),
            "beside": self._beside(),
        }
        account = self._account(prices or {})
        return figures | account

    def _beside(self) -> dict:
        if OVERALL not in self.metrics:
            return {}
        mean, by_prompt = self.mean(OVERALL)
        adjusted, adjusted_by_prompt = self.mean(ADJUSTED)
        adjusted_values = self.metric(ADJUSTED).values
        characters = np.mean(self.characters)
        return {
            "prompts": len(self.prompts),
            "mean_unclipped": mean,
            "interval_by_prompt": by_prompt,
            "length_adjusted": {
                "penalty_per_500_characters": self.penalty,
                "mean_unclipped": adjusted,
                "mean_clipped": clipped_mean(adjusted_values),
                "interval_by_prompt": adjusted_by_prompt,
            },
            "characters_per_answer": float(characters),
            "rule": str(self.rule),
        }

    def _account(self, prices: Mapping[str, Price]) -> dict:
        """What became of every answer and criterion, and what it cost."""
        tokens = {}
        for who, counts in self.tokens.items():
            for kind in TOKENS:
                key = f"{who}_{kind}"
                tokens[key] = getattr(counts, kind)
        cost = {}
        for who, price in prices.items():
            own_tokens = self.tokens[who]
            cost[who] = cost_of(own_tokens, price)
        return {
            "answers": {name: self.answers[name] for name in _OF_ANSWERS},
            "criteria": {name: self.criteria[name] for name in _OF_CRITERIA},
            "tokens": tokens,
            "calls": self.calls,
            "grading_seconds": round(self.seconds, 2),
            "cost": cost,
        }


def cost_of(tokens: TokenCounts, price: Price) -> float:
    """What the tokens cost, at prices per million."""
    prompt_price, cached_price, completion_price = price
    uncached = tokens.prompt - tokens.cached
    cost = uncached * prompt_price
    cost += tokens.cached * cached_price
    cost += tokens.completion * completion_price
    return round(cost / 1e6, 4)


def _by_prompt_id(summary: Summary, name: str) -> dict[str, float]:
    means = summary.metric(name).means()
    by_prompt_id = {}
    for prompt_id, index in summary.prompts.items():
        if index in means:
            by_prompt_id[prompt_id] = means[index]
    return by_prompt_id


def paired(before: Summary, after: Summary, name: str = OVERALL) -> dict | None:
    """after - before on the prompts with a value in both; None without any.

    Each prompt's answers are averaged first.
    """
    means_before = _by_prompt_id(before, name)
    means_after = _by_prompt_id(after, name)
    earlier = []
    later = []
    # Sorted: the figures must not depend on the order of a set.
    common = means_before.keys() & means_after.keys()
    for prompt in sorted(common):
        earlier.append(means_before[prompt])
        later.append(means_after[prompt])
    if not earlier:
        return None
    gains = np.subtract(later, earlier)
    gains.sort()  # whatever the prompts are called
    counts = np.ones_like(gains)
    parts = np.stack([gains, counts], axis=1)
    is_better = gains > _SAME
    is_worse = gains < -_SAME
    better = int(is_better.sum())
    worse = int(is_worse.sum())
    return {
        "prompts": len(gains),
        "before": float(np.mean(earlier)),
        "after": float(np.mean(later)),
        "difference": float(gains.mean()),
        "interval_by_prompt": interval(parts, ratio),
        "better": better,
        "equal": len(gains) - better - worse,
        "worse": worse,
    }
