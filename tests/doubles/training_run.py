"""The SAVE_PATH of a training run with two evaluations; the grader turns lenient."""

from pathlib import Path

from doubles.judged import HONEST, LENIENT, records
from doubles.records import made
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.record_file import append_record
from rubric_rl.data.training_settings import PLAIN, RewardRule, Trust
from rubric_rl.grading.score import apply_rule
from rubric_rl.trust.evaluations import evaluation_of, store

GROUP = 12  # answers of a rollout


def write_training_run(
    save: Path,
    hostile: str = "An answer.",
    rollouts: int = 3,
    rule: RewardRule = PLAIN,
    trust: Trust | None = None,
) -> Path:
    """A run that was rewarded by the rule, and had these limits; None: as in older runs."""
    for rollout in range(rollouts):
        for number in range(GROUP):
            record = made("p", (1, -1), (True, False), answer=hostile, split="train")
            record.index, record.rollout = rollout * GROUP + number, rollout
            record.weight_version, record.run = str(rollout), "r"
            apply_rule(record, rule)
            append_record(save / "verdicts", record)
    for rollout, weights, mets in ((0, "0", HONEST), (2, "3", LENIENT)):
        judged = records(mets, weights)
        for record in judged["held"]:
            record.rollout, record.run = rollout, "r"
            append_record(save / "verdicts", record)
        store(save, evaluation_of(rollout, judged, {"q": [3, 4]}, trust))
    row = {"rollout_id": 1, "perf/step_time": 9.0, "tiny/true_score": 0.25}
    write_jsonl(save / "metrics.jsonl", [row])
    return save
