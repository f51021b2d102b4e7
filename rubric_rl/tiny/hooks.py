"""The log hooks of the tiny run: self_reward_rm's, plus the oracle's judgement of the grading (stages 4 and 6).

The oracle's figures are shown, never trained on. `tiny/...`: true_score, self_score (of the same answers),
grader_accuracy, false_positive_rate (of the criteria not met), false_negative_rate (of those met).
"""

import self_reward_rm
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Verdict
from rubric_rl.grading.prompt import graded_text
from rubric_rl.grading.score import score
from rubric_rl.tiny.oracle import truth


def log_rollout(rollout_id, args, samples, extra_metrics, rollout_time) -> bool:
    """Adds `tiny/...` to what self_reward_rm.log_rollout adds; False keeps the default log."""
    extra_metrics.update({f"tiny/{name}": value for name, value in oracle_metrics(samples).items()})
    return self_reward_rm.log_rollout(rollout_id, args, samples, extra_metrics, rollout_time)


def log_eval(rollout_id, args, data, extra_metrics) -> bool:
    """The same for each evaluation set, as `eval/<set>/tiny/...`; slime passes no metrics, so they go in as sets."""
    for name, result in list(data.items()):
        for key, value in oracle_metrics(result.get("samples") or []).items():
            if extra_metrics is None:
                data[f"{name}/tiny/{key}"] = {"rewards": [value]}
            else:
                extra_metrics[f"eval/{name}/tiny/{key}"] = value
    return self_reward_rm.log_eval(rollout_id, args, data, extra_metrics)


def oracle_metrics(samples) -> dict[str, float]:
    """The figures over all samples with a grade; a figure without a single case is left out.

    An answer that scores 0 without a call (empty, or cut off) has a true score of 0 and no verdicts. An unreadable
    verdict counts as wrong.
    """
    true_scores, self_scores, pairs = [], [], []
    for sample in samples:
        item = sample.metadata.get("grading")
        if not item or item["status"] == "ungraded":
            continue
        record = record_from_json(item)
        true: list[bool] = []
        if record.status == "graded":
            true = truth(record.rubric, graded_text(sample.response, sample.prompt) or "")
            pairs += zip(record.mets, true, strict=True)
        true_scores.append(score(record.rubric, [Verdict(met) for met in true]) if true else 0.0)
        self_scores.append(record.score)
    cases = {
        "true_score": true_scores,
        "self_score": self_scores,
        "grader_accuracy": [said is met for said, met in pairs],
        "false_positive_rate": [said is True for said, met in pairs if not met],
        "false_negative_rate": [said is not True for said, met in pairs if met],
    }
    return {name: sum(values) / len(values) for name, values in cases.items() if values}
