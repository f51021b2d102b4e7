"""A probe: labelled rows that the policy judges at every evaluation, its skill as a grader.

The rows never change, so a curve that falls is a grader that decays, and one that rises a grader
that learns. They are meta-evaluation rows, HealthBench's or rubric_rl.tiny.labelled_rows'. Figures,
over pairs of a verdict and a label:

    accuracy              share that agree; an unreadable verdict agrees with no label
    f1, balanced_f1       of met; the mean of met and not met (HealthBench's figure)
    kappa                 Cohen's
    false_positive_rate   share of met among the labels that say not met
    ece, brier            calibration of the probabilities, where they were read
    auc                   how often a met criterion has a higher one than one that is not: where it
                          holds and accuracy falls, only the threshold has moved
    unreadable, ungraded  share of the rows
    accuracy_low, accuracy_high, kappa_low, kappa_high   95% intervals by prompt
    tokens_prefilled, tokens_cached, tokens_decoded      what it cost
"""

from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.data.schema import Record, TokenCounts
from rubric_rl.data.training_settings import Trust
from rubric_rl.evaluation.agreement import (
    BOTH,
    GRADER,
    NEITHER,
    UNREAD_NOT,
    Agreement,
)
from rubric_rl.evaluation.meta_evaluate import LabelledAnswer, LabelledFile
from rubric_rl.evaluation.statistics import interval, ratio
from rubric_rl.grading.grade import Grader, ask_verdicts
from rubric_rl.serving.client import all_or_none, beside
from rubric_rl.serving.question import Aborted


def probe_rows(trust: Trust) -> list[LabelledAnswer]:
    """The rows that grader_probe names, at most grader_probe_rows of them.

    A relative path starts at ROOT. Raises DataError for a file that holds none.
    """
    return list(LabelledFile(str(ROOT / trust.probe), trust.probe_rows))


class Probe:
    """Asks a grader about all rows, once per evaluation. Use it in one event loop only."""

    def __init__(self, grader: Grader, rows: Sequence[LabelledAnswer]):
        self.grader = grader
        self.rows = rows
        self._trained = False
        self._last: tuple = ()

    @asynccontextmanager
    async def beside(self, metadata: dict, rollout: int | None, training: bool):
        """Asks while an answer of this rollout is graded, if it is an evaluation's first.

        The outcome goes to the answer's metadata. Answers of an evaluation may name several
        weight versions, or none, so its rollout tells it; only the two of rollout 0 are told
        apart by the training between them.
        """
        evaluation = rollout, self._trained
        self._trained = self._trained or training
        if training or evaluation == self._last:
            yield
            return
        self._last = evaluation
        async with beside(self._outcome()) as probing:
            yield
            metadata["probe"] = await probing

    async def _outcome(self) -> dict:
        """`figures`, and per prompt the pairs that agree and all pairs: `right` and `pairs`."""
        return outcome(await all_or_none(self._judge(answer) for answer in self.rows))

    async def _judge(self, answer: LabelledAnswer) -> Record:
        record = answer.record()
        record.grader = self.grader.name
        try:
            await ask_verdicts(self.grader, record, f"probe {answer.key}")
        except (Aborted, UserError) as error:  # a probe that fails ends no run
            record.status, record.error = "ungraded", str(error) or "aborted"
        return record


def outcome(records: Iterable[Record]) -> dict:
    """What a probe found, as JSON: its figures, and per prompt [pairs that agree, all pairs]."""
    agreement = Agreement()
    tokens = TokenCounts()
    for record in records:
        agreement.add(record)
        tokens += record.first_tokens + record.rest_tokens
    prompts = {}
    for prompt_id, counts in agreement.by_prompt.items():
        right = counts[BOTH] + counts[NEITHER]
        prompts[prompt_id] = [int(right), int(counts.sum())]
    return {"figures": _figures(agreement, tokens), "prompts": prompts}


def _figures(agreement: Agreement, tokens: TokenCounts) -> dict[str, float]:
    result = agreement.result()
    grader = result["grader"]
    calibration = result["calibration"] or {}
    rows = result["rows"]
    counts = np.array(list(agreement.by_prompt.values())).reshape(-1, 6)
    right = counts[:, BOTH] + counts[:, NEITHER]
    pairs = counts.sum(axis=1)
    labelled_not = counts[:, [GRADER, NEITHER, UNREAD_NOT]].sum()
    figures = {
        "accuracy": _share(right.sum(), pairs.sum()),
        "f1": grader["met"]["f1"],
        "balanced_f1": grader["balanced_f1"],
        "kappa": grader["kappa"],
        "false_positive_rate": _share(counts[:, GRADER].sum(), labelled_not),
        "ece": calibration.get("ece"),
        "brier": calibration.get("brier"),
        "auc": calibration.get("auc"),
        "unreadable": _share(rows["unreadable"], rows["all"]),
        "ungraded": _share(rows["ungraded"], rows["all"]),
        "tokens_prefilled": tokens.prompt - tokens.cached,
        "tokens_cached": tokens.cached,
        "tokens_decoded": tokens.completion,
    }
    intervals = {
        "accuracy": interval(np.stack([right, pairs], axis=1), ratio),
        "kappa": grader["kappa_interval_by_prompt"],
    }
    for name, bounds in intervals.items():
        if bounds:
            figures[f"{name}_low"], figures[f"{name}_high"] = bounds
    return {name: float(value) for name, value in figures.items() if value is not None}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
