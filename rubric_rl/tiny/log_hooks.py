"""The log hooks of the tiny run: those of self_reward_rm, and the oracle's judgement beside them.

`tiny/...` says of the answers whose grade is known

    true_score            their mean score by the oracle
    self_score            their mean score by the policy itself, which is the reward
    grader_accuracy       share of the policy's verdicts that are right
    false_positive_rate   share of "met" among the criteria that are not met
    false_negative_rate   share of anything else among the criteria that are met

The oracle judges by the rubric of the row, an expert's or a generated one. Where that has a vague
criterion, which is met by chance, the answer is left out. These figures are shown and never trained
on.
"""

import self_reward_rm
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Record
from rubric_rl.evaluation.scoring_rule import PLAIN_RULE
from rubric_rl.grading.prompt import graded_text
from rubric_rl.launch.slime_samples import add_metrics
from rubric_rl.tiny.oracle import VerdictCounts, is_vague, true_score


def log_rollout(rollout_id, args, samples, extra_metrics, rollout_time) -> bool:
    """Adds `tiny/...` to what self_reward_rm.log_rollout adds; False keeps the default log."""
    named = {f"tiny/{name}": value for name, value in oracle_metrics(samples).items()}
    add_metrics(rollout_id, args, extra_metrics, named)
    return self_reward_rm.log_rollout(rollout_id, args, samples, extra_metrics, rollout_time)


def log_eval(rollout_id, args, data, extra_metrics) -> bool:
    """The same for each evaluation set, as `eval/<set>/tiny/...`.

    slime passes no metrics here: each figure then goes in as an evaluation set with one reward.
    """
    for set_name, result in list(data.items()):  # before it grows
        for name, value in oracle_metrics(result.get("samples") or []).items():
            figure = f"{set_name}/tiny/{name}"
            if extra_metrics is None:
                data[figure] = {"rewards": [value]}
            else:
                extra_metrics[f"eval/{figure}"] = value
    return self_reward_rm.log_eval(rollout_id, args, data, extra_metrics)


def oracle_metrics(samples) -> dict[str, float]:
    """The figures over all samples with a grade; a figure without a single case is left out.

    An answer that scores 0 without a call (empty, or cut off) has a true score of 0 and no
    verdicts.
    """
    true_scores: list[float] = []
    self_scores: list[float] = []
    verdicts = VerdictCounts()
    for sample in samples:
        record = _record_of(sample)
        if record is None or any(is_vague(criterion.text) for criterion in record.rubric):
            continue
        self_scores.append(PLAIN_RULE.score(record))
        score = 0.0
        if record.status == "graded":
            rubric = record.rubric
            text = graded_text(sample.response, sample.prompt)
            answer = text or ""
            score = true_score(rubric, answer)
            verdicts.add(rubric, answer, record.mets)
        true_scores.append(score)
    graded = len(true_scores)
    shares = {
        "true_score": (sum(true_scores), graded),
        "self_score": (sum(self_scores), graded),
        "grader_accuracy": (verdicts.right, verdicts.total),
        "false_positive_rate": (verdicts.false_positives, verdicts.not_met),
        "false_negative_rate": (verdicts.false_negatives, verdicts.met),
    }
    figures = {}
    for name, (part, whole) in shares.items():
        if whole > 0:
            figures[name] = part / whole
    return figures


def _record_of(sample) -> Record | None:
    """The sample's record; None: it is ungraded."""
    item = sample.metadata.get("grading")
    if not item or item["status"] == "ungraded":
        return None
    return record_from_json(item)
