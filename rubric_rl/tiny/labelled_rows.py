"""Meta-evaluation rows of the tiny world, labelled by its oracle instead of physicians.

    python -m rubric_rl.tiny.labelled_rows --out META.jsonl
        answers made up by the world, to the held-out patients
    python -m rubric_rl.tiny.labelled_rows --out META.jsonl --records VERDICTS
        the answers that a run graded

Then `python -m rubric_rl.meta_eval --rows META.jsonl`, before and after training.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.schema import Record, Row
from rubric_rl.evaluation.read_run import Run
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.world import messages, pair_of, patient_of, rows


def meta_rows(row: Row, answer: str) -> Iterator[dict]:
    """One row per criterion, in HealthBench's meta-evaluation schema.

    The grader sees the `points`, as in training.
    """
    for criterion, is_met in zip(row.rubric, truth(row.rubric, answer), strict=True):
        yield {
            "prompt_id": row.prompt_id,
            "prompt": list(row.messages),
            "completion": answer,
            "rubric": criterion.text,
            "points": criterion.points,
            "category": f"axis:{criterion.tag('axis')}",
            "binary_labels": [is_met],
            "anonymized_physician_ids": ["oracle"],
        }


def of_world(seed: int) -> Iterator[dict]:
    """Two answers to each held-out patient: an ordinary one and a hostile one."""
    rng = random.Random(seed)
    for row in rows(held_out=True):
        pair = pair_of(row)
        yield from meta_rows(row, mediocre_answer(rng, pair))
        yield from meta_rows(row, graded_answer(rng, pair))


def of_records(records: Iterable[Record]) -> Iterator[dict]:
    """The answers that a run graded.

    Raises:
        UserError: for a record that is not of the tiny world.
    """
    for record in records:
        if record.status == "graded":
            yield from meta_rows(_row_of(record), record.answer or "")


def _row_of(record: Record) -> Row:
    """The record's row; its conversation comes from the prompt_id, for old records hold none."""
    pair, patient = patient_of(record.prompt_id)
    return Row(record.prompt_id, tuple(messages(pair, patient)), record.rubric)


def main(argv: list[str] | None = None) -> int:
    """Writes the rows."""
    parser = CommandParser("python -m rubric_rl.tiny.labelled_rows", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="file for the rows")
    parser.add_argument(
        "--records", help="verdict records of a tiny run; without it the world makes the answers"
    )
    parser.add_argument(
        "--split", default="eval", help="of the records: eval or train (default: %(default)s)"
    )
    parser.add_argument(
        "--weights", default="", help="of the records: which weight version (default: the last)"
    )
    parser.add_argument("--seed", type=int, default=0)
    return exit_status(lambda: _write(parser.parse_args(argv)))


def _write(args: argparse.Namespace) -> int:
    if args.records:
        made = of_records(Run(args.records, args.split, args.weights))
    else:
        made = of_world(args.seed)
    count = write_jsonl(args.out, made)
    print(f"{args.out}: {count} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
