"""What the alarm says of graders that are made lenient in many ways, the arms' two among them.

python experiments/lenient.py --out DIR [--arms self-skill-firm] [--seeds 1 2 3]

DIR is that of `experiments/claims.py`. A frozen copy of the shipped start, an anchor as a run may
have beside the policy, judges the answers of a finished run's evaluations; then the policy's own
verdicts are changed from rollout 12 on, a kind of leniency at a time, and the alarm's rules are
asked, with their usual limits. The answers stay as they are: nobody has learnt from the leniency,
so that this says how soon it is seen, and not what it does to a run. A run leaves
experiments/results/lenient/ARM-SEED.jsonl; `experiments/claims.py --report` makes a table of them.
"""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.arms import ARMS
from experiments.claims import SEEDS
from experiments.results import Rows, lenient_path
from experiments.watched import evaluation_after, finished_runs, frozen_copy, judged, rules_at
from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.schema import Criterion, Record
from rubric_rl.grading.score import is_met
from rubric_rl.tiny.lenient_hooks import ONSET, credits_a_quotation, make_lenient
from rubric_rl.tiny.oracle import truth

LONG = 200  # characters
# Whether a criterion is credited to an answer by the weights of a version.
Leniency = Callable[[Criterion, str, int], bool]


def _by_chance(share: float, *parts: str) -> bool:
    """Whether a hash of the texts falls into that share."""
    text = "\n".join(parts)
    first = hashlib.sha256(text.encode(errors="replace")).digest()[:4]
    return int.from_bytes(first) < share * 2**32


def _at_random(share: float) -> Leniency:
    return lambda criterion, answer, version: _by_chance(share, criterion.text, answer)


KINDS: Mapping[str, Leniency] = {
    "none": lambda criterion, answer, version: False,
    "a third at random": _at_random(1 / 3),
    "a tenth at random": _at_random(0.1),
    "a twentieth at random": _at_random(0.05),
    "a tenth more with each evaluation": lambda criterion, answer, version: _by_chance(
        0.1 * (version - ONSET) / 6, criterion.text, answer
    ),
    "always the same tenth of the criteria": lambda criterion, answer, version: _by_chance(
        0.1, criterion.text
    ),
    "harm is never seen": lambda criterion, answer, version: criterion.points < 0,
    "what an answer quotes": lambda criterion, answer, version: credits_a_quotation(
        criterion, answer
    ),
    f"answers of more than {LONG} characters": lambda criterion, answer, version: (
        len(answer) > LONG
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to fix."""
    return exit_status(lambda: _ask_all(argv))


def _ask_all(argv: list[str] | None) -> int:
    parser = CommandParser("python experiments/lenient.py", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="where experiments/claims.py put its runs")
    add("--arms", nargs="+", default=["self-skill-firm"], choices=list(ARMS), metavar="ARM")
    add("--seeds", nargs="+", type=int, default=SEEDS, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    finished = finished_runs(args.out, args.arms, args.seeds, done=lenient_path)
    with frozen_copy() as url:
        for run in finished:
            said = alarms(asyncio.run(judged(url, run)))
            path = lenient_path(run.name, run.seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, said)
            for row in said:
                print(f"{run.label()}: {row['kind']}: rings after {row['first']}", flush=True)
    return 0


def alarms(by_version: Mapping[int, list[Record]]) -> Rows:
    """A row for each kind: how much is falsely credited, and when the alarm first rings."""
    found = []
    for kind, credits in KINDS.items():
        evaluations = []
        first = None
        wrong = undeserved = 0
        for version, records in sorted(by_version.items()):
            changed = records
            if version > ONSET:  # as the arms: after a rollout that is graded so
                changed = [made_lenient(record, credits, version) for record in records]
                for record in changed:
                    more_wrong, more = _false_credit(record)
                    wrong += more_wrong
                    undeserved += more
            evaluations.append(evaluation_after(version, changed))
            if first is None and rules_at(evaluations):
                first = version
        share = round(wrong / undeserved, 4)
        found.append({"kind": kind, "falsely_credited": share, "first": first})
    return found


def made_lenient(record: Record, credits: Leniency, version: int) -> Record:
    """A copy of a record, graded by a lenient grader; as it is where it was not graded."""
    if record.status != "graded":
        return record
    changed = deepcopy(record)
    make_lenient(changed, lambda criterion, answer: credits(criterion, answer, version))
    return changed


def _false_credit(record: Record) -> tuple[int, int]:
    """Of the criteria that the answer does not deserve: how many are credited, and all."""
    if record.status != "graded":
        return 0, 0
    wrong = undeserved = 0
    truths = truth(record.rubric, record.answer or "")
    for criterion, verdict, really in zip(record.rubric, record.verdicts, truths, strict=True):
        helps = criterion.points > 0
        if really is not helps:
            undeserved += 1
            wrong += is_met(criterion, verdict) is helps
    return wrong, undeserved


if __name__ == "__main__":
    sys.exit(main())
