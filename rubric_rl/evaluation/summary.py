"""Sums up a run's records: the figures of simple-evals, and our own apart from them."""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from rubric_rl.data.schema import Record, TokenCounts
from rubric_rl.evaluation.endpoint_flags import Price
from rubric_rl.evaluation.scoring_rule import TRAINING_RULE, ScoringRule, tag_scores
from rubric_rl.evaluation.statistics import (
    PENALTIES,
    bootstrap_std,
    clipped_mean,
    interval,
    length_adjusted,
    ratio,
    worst_at_k,
)

OVERALL, ADJUSTED = "overall_score", "length_adjusted_score"
NO_CALL = ("no_answer", "truncated")  # score 0 without a call
TOKENS = ("prompt", "cached", "completion")
Bounds = tuple[float, float] | None  # of an interval


class Metric:
    """A value per answer, and the index of the answer's prompt."""

    def __init__(self):
        self.prompts, self.values = array("l"), array("d")

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
        return dict(zip(prompts.tolist(), means.tolist(), strict=True))


class Summary:
    """Adds up records one by one; keeps a few numbers per answer and no text."""

    def __init__(
        self,
        records: Iterable[Record] = (),
        rule: ScoringRule = TRAINING_RULE,
        penalty: float = PENALTIES["hard"],
    ):
        """`rule` scores the verdicts; `penalty` is that of the length-adjusted figure."""
        self.rule, self.penalty = rule, penalty
        self.metrics: dict[str, Metric] = {}
        self.prompts: dict[str, int] = {}  # prompt_id -> index
        self.answers: Counter[str] = Counter()
        self.criteria: Counter[str] = Counter()
        self.graders: Counter[str] = Counter()  # answers by the name of who graded
        self.tokens = {"grader": TokenCounts(), "policy": TokenCounts()}
        self.characters = array("l")
        self.seconds = 0.0
        self.calls = 0
        # Intervals are slow to compute, and each page shows them:
        # name -> number of values they are of, mean, interval
        self._means: dict[str, tuple[int, float, Bounds]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts one record."""
        self.answers[record.status] += 1
        self.graders[record.grader] += 1
        self._count_criteria(record)
        self.seconds += record.seconds
        self.calls += record.calls
        self.tokens["grader"] += record.first_tokens + record.rest_tokens
        if record.policy_tokens:
            self.tokens["policy"] += record.policy_tokens
        value = self.rule.score(record)
        if math.isnan(value):
            if record.status != "ungraded":  # the rule leaves no positive points
                self.answers["without_score"] += 1
            return
        self._add_scores(record, value)

    def _add_scores(self, record: Record, value: float) -> None:
        prompt = self.prompts.setdefault(record.prompt_id, len(self.prompts))
        adjusted, characters = value, 0
        if record.status == "graded":
            characters = len(record.answer or "")
            adjusted = length_adjusted(value, characters, self.penalty)
        self.characters.append(characters)
        scores = dict.fromkeys(record.example_tags, value)
        scores |= tag_scores(self.rule.judged(record))
        scores |= {OVERALL: value, ADJUSTED: adjusted}
        for name, one in scores.items():
            self.metrics.setdefault(name, Metric()).add(prompt, one)

    def _count_criteria(self, record: Record) -> None:
        count = len(record.rubric)
        self.criteria["all"] += count
        if record.status != "graded":
            self.criteria[record.status] += count
            return
        names = {True: "met", False: "not_met", None: "unreadable"}
        for verdict in record.verdicts:
            self.criteria[names[verdict.met]] += 1

    def metric(self, name: str) -> Metric:
        """The values of a metric, none where no answer has it."""
        return self.metrics.get(name) or Metric()

    def reference(self) -> dict[str, float]:
        """The figures of simple-evals, under its names.

        Clipped mean, bootstrap std and number of values of every metric.
        """
        figures: dict[str, float] = {}
        for name, metric in self.metrics.items():
            if name != ADJUSTED:
                figures[name] = clipped_mean(metric.values)
                figures[f"{name}:n_samples"] = len(metric.values)
                figures[f"{name}:bootstrap_std"] = bootstrap_std(metric.values)
        return figures

    def worst(self) -> dict[str, float | None]:
        """worst-at-k for every k up to the largest number of answers to a prompt."""
        by_prompt: dict[int, list[float]] = defaultdict(list)
        metric = self.metric(OVERALL)
        for prompt, value in zip(metric.prompts, metric.values, strict=True):
            by_prompt[prompt].append(value)
        groups = list(by_prompt.values())
        most = max((len(group) for group in groups), default=0)
        worst = {}
        for k in range(1, most + 1):
            worst[str(k)] = worst_at_k(groups, k)
        return worst

    def mean(self, name: str) -> tuple[float, Bounds]:
        """The unclipped mean of a metric and its 95% interval by prompt."""
        metric = self.metric(name)
        count = len(metric.values)
        known = self._means.get(name)
        if known is None or known[0] != count:
            mean = float(np.mean(metric.values))
            bounds = interval(metric.parts(), ratio)
            known = (count, mean, bounds)
            self._means[name] = known
        return known[1:]

    def tags(self, kind: str) -> list[str]:
        """The tags of one kind (theme, axis, level) that have a score, in order."""
        start = kind + ":"
        return sorted(name for name in self.metrics if name.startswith(start))

    def result(self, prices: Mapping[str, Price] | None = None) -> dict:
        """Everything as JSON; only what stands under `reference` compares with simple-evals."""
        if OVERALL not in self.metrics:
            figures: dict = {"reference": {}, "worst_at_k": {}, "beside": {}}
        else:
            figures = {
                "reference": self.reference(),
                "worst_at_k": self.worst(),
                "beside": self._beside(),
            }
        return figures | self._account(prices or {})

    def _beside(self) -> dict:
        mean, by_prompt = self.mean(OVERALL)
        adjusted, adjusted_by_prompt = self.mean(ADJUSTED)
        return {
            "prompts": len(self.prompts),
            "mean_unclipped": mean,
            "interval_by_prompt": by_prompt,
            "length_adjusted": {
                "penalty_per_500_characters": self.penalty,
                "mean_unclipped": adjusted,
                "mean_clipped": clipped_mean(self.metric(ADJUSTED).values),
                "interval_by_prompt": adjusted_by_prompt,
            },
            "characters_per_answer": float(np.mean(self.characters)),
            "rule": str(self.rule),
        }

    def _account(self, prices: Mapping[str, Price]) -> dict:
        """What became of every answer and criterion, and what it cost."""
        statuses = ("graded", *NO_CALL, "ungraded")
        answers = {"all": sum(self.answers[status] for status in statuses)}
        for status in (*statuses, "without_score"):
            answers[status] = self.answers[status]
        names = ("all", "met", "not_met", "unreadable", *NO_CALL, "ungraded")
        tokens = {}
        for who, counts in self.tokens.items():
            for kind in TOKENS:
                tokens[f"{who}_{kind}"] = getattr(counts, kind)
        cost = {}
        for who, price in prices.items():
            cost[who] = _cost(self.tokens[who], price)
        return {
            "answers": answers,
            "criteria": {name: self.criteria[name] for name in names},
            "tokens": tokens,
            "calls": self.calls,
            "grading_seconds": round(self.seconds, 2),
            "cost": cost,
        }


def _cost(tokens: TokenCounts, price: Price) -> float:
    """What the tokens cost, at prices per million."""
    prompt_price, cached_price, completion_price = price
    uncached = (tokens.prompt - tokens.cached) * prompt_price
    cached = tokens.cached * cached_price
    completion = tokens.completion * completion_price
    return round((uncached + cached + completion) / 1e6, 4)


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
    if name not in before.metrics or name not in after.metrics:
        return None
    one, other = _by_prompt_id(before, name), _by_prompt_id(after, name)
    common = one.keys() & other.keys()
    if not common:
        return None
    # Sorted: the interval must not depend on the order of a set.
    differences = sorted(other[prompt] - one[prompt] for prompt in common)
    gains = np.array(differences)
    counts = np.ones(len(gains))
    parts = np.stack([gains, counts], axis=1)
    mean_before = np.mean([one[prompt] for prompt in common])
    mean_after = np.mean([other[prompt] for prompt in common])
    return {
        "prompts": len(common),
        "before": float(mean_before),
        "after": float(mean_after),
        "difference": float(gains.mean()),
        "interval_by_prompt": interval(parts, ratio),
        "better": int((gains > 1e-9).sum()),
        "equal": int((abs(gains) <= 1e-9).sum()),
        "worse": int((gains < -1e-9).sum()),
    }
