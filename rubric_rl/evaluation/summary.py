"""Sums up a run's records: the figures of simple-evals, and our own apart from them."""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from rubric_rl.data.schema import Record, TokenCounts
from rubric_rl.evaluation.scoring_rule import ScoringRule, tag_scores
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
Price = tuple[float, float, float]  # per million prompt, cached and completion tokens
TRAINING_RULE = ScoringRule()


class Metric:
    """A value per answer, and the index of the answer's prompt."""

    def __init__(self):
        self.prompts, self.values = array("l"), array("d")

    def add(self, prompt: int, value: float) -> None:
        self.prompts.append(prompt)
        self.values.append(value)

    def parts(self) -> np.ndarray:
        """One row per prompt: (sum of its values, number of values)."""
        prompts = np.unique(self.prompts, return_inverse=True)[1]
        return np.stack([np.bincount(prompts, self.values), np.bincount(prompts)], axis=1)

    def means(self) -> dict[int, float]:
        """Index of a prompt -> mean over its answers."""
        prompts = np.unique(self.prompts).tolist()
        return dict(zip(prompts, ratio(self.parts()).tolist(), strict=True))


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
        self.tokens = {"grader": TokenCounts(), "policy": TokenCounts()}
        self.characters, self.seconds, self.calls = array("l"), 0.0, 0
        # Intervals are slow to compute, and each page shows them:
        # name -> number of values they are of, mean, interval
        self._means: dict[str, tuple[int, float, tuple[float, float] | None]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts one record."""
        self.answers[record.status] += 1
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
        most = max(map(len, groups), default=0)
        return {str(k): worst_at_k(groups, k) for k in range(1, most + 1)}

    def mean(self, name: str) -> tuple[float, tuple[float, float] | None]:
        """The unclipped mean of a metric and its 95% interval by prompt."""
        metric = self.metric(name)
        count = len(metric.values)
        if name not in self._means or self._means[name][0] != count:
            mean = float(np.mean(metric.values))
            self._means[name] = (count, mean, interval(metric.parts(), ratio))
        return self._means[name][1:]

    def tags(self, kind: str) -> list[str]:
        """The tags of one kind (theme, axis, level) that have a score, in order."""
        return sorted(name for name in self.metrics if name.startswith(kind + ":"))

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
        tokens = {
            f"{who}_{kind}": getattr(counts, kind)
            for who, counts in self.tokens.items()
            for kind in TOKENS
        }
        return {
            "answers": answers,
            "criteria": {name: self.criteria[name] for name in names},
            "tokens": tokens,
            "calls": self.calls,
            "grading_seconds": round(self.seconds, 2),
            "cost": {who: _cost(self.tokens[who], price) for who, price in prices.items()},
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
    gains = np.array(sorted(other[prompt] - one[prompt] for prompt in common))
    parts = np.stack([gains, np.ones(len(gains))], axis=1)
    return {
        "prompts": len(common),
        "before": float(np.mean([one[prompt] for prompt in common])),
        "after": float(np.mean([other[prompt] for prompt in common])),
        "difference": float(gains.mean()),
        "interval_by_prompt": interval(parts, ratio),
        "better": int((gains > 1e-9).sum()),
        "equal": int((abs(gains) <= 1e-9).sum()),
        "worse": int((gains < -1e-9).sum()),
    }
