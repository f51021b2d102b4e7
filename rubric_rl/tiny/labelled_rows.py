"""Meta-evaluation rows of the tiny world, labelled by its oracle instead of physicians (stage 6, evaluation).

    python -m rubric_rl.tiny.labelled_rows --out META.jsonl   the world's own answers, held-out patients
    python -m rubric_rl.tiny.labelled_rows --out META.jsonl --records VERDICTS   what a run graded

Then `python -m rubric_rl.meta_eval --rows META.jsonl` before and after training.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rubric_rl.data.schema import Record, Row
from rubric_rl.errors import UserError
from rubric_rl.evaluation.read_run import Run
from rubric_rl.jsonl import write_jsonl
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.oracle import asked, statements
from rubric_rl.tiny.world import messages, pair_of, rows


def meta_rows(row: Row, answer: str) -> Iterator[dict]:
    """One row per criterion in HealthBench's meta-evaluation schema; the grader sees the `points`, as in training."""
    stated = set(statements(answer))
    for criterion in row.rubric:
        yield {
            "prompt_id": row.prompt_id,
            "prompt": list(row.messages),
            "completion": answer,
            "rubric": criterion.text,
            "points": criterion.points,
            "category": f"axis:{criterion.tag('axis')}",
            "binary_labels": [asked(criterion.text) in stated],
            "anonymized_physician_ids": ["oracle"],
        }


def of_world(seed: int) -> Iterator[dict]:
    """Two answers to each held-out patient: an ordinary one, and one spliced, cut, repeated or contradictory."""
    rng = random.Random(seed)
    for row in rows(held_out=True):
        for make in (mediocre_answer, graded_answer):
            yield from meta_rows(row, make(rng, pair_of(row)))


def of_records(records: Iterable[Record]) -> Iterator[dict]:
    """The answers that a run graded; raises UserError for a record that is not of the tiny world."""
    for record in records:
        if record.status == "graded":
            row = Row(record.prompt_id, (), record.rubric)
            turns = messages(pair_of(row), int(row.prompt_id.rpartition("-")[2]))
            yield from meta_rows(Row(row.prompt_id, tuple(turns), row.rubric), record.answer or "")


def main(argv: list[str] | None = None) -> int:
    """Writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    args = parser.parse_args(argv)
    try:
        made = (
            of_records(Run(args.records, args.split, args.weights))
            if args.records
            else of_world(args.seed)
        )
        count = write_jsonl(args.out, made)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {count} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
