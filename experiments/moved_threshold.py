"""What a tiny run's grader knows, and what of it reaches the reward, rollout by rollout.

python experiments/moved_threshold.py SAVE_PATH [--every 6]

Of the training answers that the policy graded in `direct` mode, against the oracle:

    accuracy        of the verdicts
    AUC             how often a met criterion has a higher probability than one that is not met
    met             median probability of the met criteria
    by verdict      correlation of the score with the true one within a group, the mean over groups;
                    0 for a group whose answers score alike
    by probability  the same where the probability is the credit (grader_reward: probability)

Where AUC stays and accuracy falls, the grader still tells good answers from bad ones: only its
threshold has moved.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import read_jsonl
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.record_file import FOLDER, OF_TRAINING
from rubric_rl.data.schema import Record
from rubric_rl.data.training_settings import PLAIN, RewardRule
from rubric_rl.evaluation.statistics import separation
from rubric_rl.grading.score import score
from rubric_rl.tiny.oracle import true_score, truth

BY_PROBABILITY = RewardRule(reward="probability")
HEAD = "rollout  accuracy    AUC    met  by verdict  by probability"
ALIKE = 1e-9  # standard deviation of scores below which they are all the same


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    return exit_status(lambda: _print_table(argv))


def _print_table(argv: list[str] | None) -> int:
    parser = CommandParser("python experiments/moved_threshold.py", __doc__)
    parser.add_argument("save_path", type=Path, metavar="SAVE_PATH", help="of a finished tiny run")
    parser.add_argument(
        "--every", type=int, default=6, metavar="N", help="rollouts from one line to the next"
    )
    args = parser.parse_args(argv)
    rollouts = graded_answers(args.save_path / FOLDER)
    print(HEAD)
    for rollout in sorted(rollouts)[:: max(args.every, 1)]:
        accuracy, auc, met, by_verdict, by_probability = figures(rollouts[rollout])
        cells = f"{accuracy:9.3f} {auc:6.3f} {met:6.3f} {by_verdict:11.2f} {by_probability:15.2f}"
        print(f"{rollout:7d} {cells}")
    return 0


def graded_answers(folder: Path) -> dict[int, list[Record]]:
    """The records of graded training answers by rollout; of one made again, the last."""
    records: dict[tuple, Record] = {}
    for path in sorted(folder.glob(OF_TRAINING)):
        for _, item in read_jsonl(path, skip_partial=True):
            record = record_from_json(item)
            known = records.get(record.key)
            if record.split == "train" and (known is None or known.time <= record.time):
                records[record.key] = record
    rollouts = defaultdict(list)
    for record in records.values():
        if record.status == "graded" and record.rollout is not None:
            rollouts[record.rollout].append(record)
    if not rollouts:
        raise DataError(f"{folder}: holds no graded training answers; name a run's SAVE_PATH")
    return rollouts


def figures(records: Sequence[Record]) -> tuple[float, ...]:
    """The figures of a rollout, in the order of the table."""
    probabilities: dict[bool, list[float]] = {True: [], False: []}
    right = total = 0
    groups = defaultdict(list)
    for record in records:
        answer = record.answer or ""
        for met, verdict in zip(truth(record.rubric, answer), record.verdicts, strict=True):
            right += verdict.met is met
            total += 1
            if verdict.probability is not None:
                probabilities[met].append(verdict.probability)
        scores = [true_score(record.rubric, answer)]
        for rule in (PLAIN, BY_PROBABILITY):
            scores.append(score(record.rubric, record.verdicts, rule))
        groups[record.prompt_id].append(scores)
    auc = separation(probabilities[True], probabilities[False])
    met = float(np.median(probabilities[True])) if probabilities[True] else np.nan
    return right / total, np.nan if auc is None else auc, met, *correlations(groups.values())


def correlations(groups: Iterable[Sequence[Sequence[float]]]) -> list[float]:
    """Of the further scores with the first one, over the groups in which that differs."""
    found = []
    for group in groups:
        scores = np.array(group).T
        spread = scores.std(axis=1)
        if spread[0] <= ALIKE:
            continue
        centred = scores - scores.mean(axis=1, keepdims=True)
        common = (centred[1:] * centred[0]).mean(axis=1)
        found.append(common / np.maximum(spread[1:], ALIKE) / spread[0])
    return np.mean(found, axis=0).tolist() if found else [np.nan, np.nan]


if __name__ == "__main__":
    sys.exit(main())
