"""Sums up a run's records: the figures of simple-evals, and our own apart from them (stage 6, evaluation)."""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from rubric_rl.evaluation.scoring_rule import Rule, tag_scores
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


class Values:
    """One metric: a value per answer, and the index of the answer's prompt."""

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
        return dict(
            zip(np.unique(self.prompts).tolist(), ratio(self.parts()).tolist(), strict=True)
        )


class Summary:
    """Adds up records one by one; keeps a few numbers per answer and no text."""

    def __init__(
        self,
        records: Iterable[Mapping] = (),
        rule: Rule = Rule(),
        penalty: float = PENALTIES["hard"],
    ):
        """`rule` scores the verdicts; `penalty` is that of the length-adjusted figure beside the headline."""
        self.rule, self.penalty = rule, penalty
        self.metrics: dict[str, Values] = {}
        self.prompts: dict[str, int] = {}  # prompt_id -> index
        self.answers, self.criteria, self.tokens = Counter(), Counter(), Counter()
        self.characters, self.seconds, self.calls = array("l"), 0.0, 0
        self._means: dict[
            str, tuple
        ] = {}  # cached: an interval is slow to compute, and each page shows it
        for record in records:
            self.add(record)

    def add(self, record: Mapping) -> None:
        """Counts one record."""
        status = record["status"]
        self.answers[status] += 1
        self._count_criteria(record)
        self.seconds += record["seconds"]
        self.calls += record["calls"]
        for who, parts in (
            ("grader", ("first_tokens", "rest_tokens")),
            ("policy", ("policy_tokens",)),
        ):
            for kind in TOKENS:
                self.tokens[f"{who}_{kind}"] += sum(
                    (record.get(part) or {}).get(kind, 0) for part in parts
                )
        if math.isnan(value := self.rule.score(record)):
            self.answers["without_score"] += (
                status != "ungraded"
            )  # the rule leaves no positive points
            return
        prompt = self.prompts.setdefault(record["prompt_id"], len(self.prompts))
        characters = len(record["answer"]) if status == "graded" else None
        self.characters.append(characters or 0)
        adjusted = value if characters is None else length_adjusted(value, characters, self.penalty)
        scores = dict.fromkeys(record["example_tags"], value) | tag_scores(self.rule.judged(record))
        for name, one in (scores | {OVERALL: value, ADJUSTED: adjusted}).items():
            self.metrics.setdefault(name, Values()).add(prompt, one)

    def metric(self, name: str) -> Values:
        """The values of a metric, none where no answer has it."""
        return self.metrics.get(name) or Values()

    def _count_criteria(self, record: Mapping) -> None:
        count = len(record["rubrics"])
        self.criteria["all"] += count
        if record["status"] != "graded":
            self.criteria[record["status"]] += count
            return
        for verdict in record["verdicts"]:
            self.criteria["unreadable" if verdict is None else "met" if verdict else "not_met"] += 1

    def reference(self) -> dict[str, float]:
        """The figures of simple-evals, under its names: clipped mean, bootstrap std and number of every metric."""
        figures = {}
        for name, metric in self.metrics.items():
            if name != ADJUSTED:
                figures[name] = clipped_mean(metric.values)
                figures[f"{name}:n_samples"] = len(metric.values)
                figures[f"{name}:bootstrap_std"] = bootstrap_std(metric.values)
        return figures

    def worst(self) -> dict[str, float]:
        """worst-at-k for every k up to the largest number of answers to a prompt."""
        groups = defaultdict(list)
        metric = self.metric(OVERALL)
        for prompt, value in zip(metric.prompts, metric.values, strict=True):
            groups[prompt].append(value)
        most = max(map(len, groups.values()), default=0)
        return {str(k): worst_at_k(list(groups.values()), k) for k in range(1, most + 1)}

    def mean(self, name: str) -> tuple[float, tuple[float, float] | None]:
        """The unclipped mean of a metric and its 95% interval by prompt."""
        values = self.metric(name).values
        if len(values) != self._means.get(name, (0,))[0]:
            self._means[name] = (
                len(values),
                float(np.mean(values)),
                interval(self.metric(name).parts(), ratio),
            )
        return self._means[name][1:]

    def tags(self, kind: str) -> list[str]:
        """The tags of one kind (theme, axis, level) that have a score, in order."""
        return sorted(name for name in self.metrics if name.startswith(kind + ":"))

    def result(self, prices: Mapping[str, tuple[float, float, float]] | None = None) -> dict:
        """Everything as JSON; only what stands under `reference` is comparable with simple-evals."""
        counts = self._counts(prices or {})
        if OVERALL not in self.metrics:
            return {"reference": {}, "worst_at_k": {}, "beside": {}} | counts
        mean, by_prompt = self.mean(OVERALL)
        adjusted, adjusted_by_prompt = self.mean(ADJUSTED)
        beside = {
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
        return {
            "reference": self.reference(),
            "worst_at_k": self.worst(),
            "beside": beside,
        } | counts

    def _counts(self, prices: Mapping) -> dict:
        names = ("all", "met", "not_met", "unreadable", *NO_CALL, "ungraded")
        statuses = ("graded", *NO_CALL, "ungraded")
        answers = {"all": sum(self.answers[status] for status in statuses)}
        answers |= {status: self.answers[status] for status in (*statuses, "without_score")}
        return {
            "answers": answers,
            "criteria": {name: self.criteria[name] for name in names},
            "tokens": dict(self.tokens),
            "calls": self.calls,
            "grading_seconds": round(self.seconds, 2),
            "cost": {who: self._cost(who, *price) for who, price in prices.items()},
        }

    def _cost(
        self, who: str, prompt_price: float, cached_price: float, completion_price: float
    ) -> float:
        """What the tokens cost, at prices per million."""
        prompt, cached, completion = (self.tokens[f"{who}_{kind}"] for kind in TOKENS)
        cost = (
            (prompt - cached) * prompt_price + cached * cached_price + completion * completion_price
        )
        return round(cost / 1e6, 4)


def _by_prompt_id(summary: Summary, name: str) -> dict[str, float]:
    means = summary.metric(name).means()
    return {
        prompt_id: means[index] for prompt_id, index in summary.prompts.items() if index in means
    }


def paired(before: Summary, after: Summary, name: str = OVERALL) -> dict | None:
    """after - before on the prompts with a value in both, each prompt's answers averaged first; None without any."""
    if name not in before.metrics or name not in after.metrics:
        return None
    one, other = (_by_prompt_id(summary, name) for summary in (before, after))
    common = one.keys() & other.keys()
    if not common:
        return None
    gains = np.array(
        sorted(other[p] - one[p] for p in common)
    )  # sorted: the interval must not depend on a set's order
    return {
        "prompts": len(common),
        "before": float(np.mean([one[p] for p in common])),
        "after": float(np.mean([other[p] for p in common])),
        "difference": float(gains.mean()),
        "interval_by_prompt": interval(np.stack([gains, np.ones(len(gains))], axis=1), ratio),
        "better": int((gains > 1e-9).sum()),
        "equal": int((abs(gains) <= 1e-9).sum()),
        "worse": int((gains < -1e-9).sum()),
    }
