"""Computes scores again from stored verdicts, under the same or another rule, without a model."""

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rubric_rl.data.schema import Record
from rubric_rl.errors import UserError, exit_status
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule, add_rule_flags, rule_from
from rubric_rl.evaluation.statistics import PENALTIES
from rubric_rl.evaluation.summary import Summary
from rubric_rl.evaluation.tables import summary_lines
from rubric_rl.jsonl import write_jsonl

TRAINING_RULE = ScoringRule()


def rescore(records: Iterable[Record], rule: ScoringRule = TRAINING_RULE) -> Iterator[dict]:
    """Per record: the answer's key and status, its stored score, and its score under the rule.

    A score is None where there is none.
    """
    for record in records:
        yield {
            "split": record.split,
            "index": record.index,
            "weight_version": record.weight_version,
            "prompt_id": record.prompt_id,
            "status": record.status,
            "score": _json_number(record.score),
            "rescored": _json_number(rule.score(record)),
        }


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else value


class ScoreTable:
    """One line per split and weight version: answers, and means of stored and new scores."""

    def __init__(self):
        self.parts: dict[tuple[str, str], list[tuple]] = defaultdict(list)
        self.differ = 0  # answers whose new score is another than the stored one

    def add(self, row: Mapping) -> None:
        self.differ += row["rescored"] != row["score"]
        part = row["split"], row["weight_version"]
        self.parts[part].append((row["score"], row["rescored"]))

    def __str__(self) -> str:
        width = max(8, *(len(version) for _, version in self.parts))
        head = f"{'split':>6} {'weights':>{width}} {'answers':>8} {'no score':>9}"
        lines = [f"{head} {'stored':>8} {'rescored':>9}"]
        # Versions are numbers written as text: shorter ones come first.
        in_order = sorted(self.parts, key=lambda part: (part[0], len(part[1]), part[1]))
        for split, version in in_order:
            rows = self.parts[split, version]
            scored = [row for row in rows if row[1] is not None]
            stored = statistics.fmean(row[0] for row in scored) if scored else math.nan
            rescored = statistics.fmean(row[1] for row in scored) if scored else math.nan
            counts = f"{len(rows):>8} {len(rows) - len(scored):>9}"
            lines.append(f"{split:>6} {version:>{width}} {counts} {stored:>8.4f} {rescored:>9.4f}")
        return "\n".join(lines)

    @property
    def any_score(self) -> bool:
        """Whether an answer has a score under the rule."""
        return any(row[1] is not None for rows in self.parts.values() for row in rows)


def main() -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = argparse.ArgumentParser(
        prog="python -m rubric_rl.rescore", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("records", help="an evaluation's --out, a folder of verdict records, or one file of them")
    add("--out", help="also write one JSON line per answer to this file")
    add("--summary", action="store_true", help="also the full table of the last weight version")
    add("--split", default="", help="only the train or the eval records of a training run")
    add_rule_flags(parser)
    return exit_status(lambda: _run(parser.parse_args()))


def _run(args: argparse.Namespace) -> int:
    rule, table = rule_from(args), ScoreTable()
    rows = _counted(rescore(Run(args.records, args.split, every=True), rule), table)
    count = write_jsonl(args.out, rows) if args.out else sum(1 for _ in rows)
    if not table.any_score:
        what = f"{args.records}: no answer was graded and has a score by the rule ({rule})"
        raise UserError(f"{what}; choose other tags or another --split")
    print(f"rule: {rule}\n{table}")
    print(f"{count} answers, {table.differ} of them with another score than stored")
    if args.summary:
        penalty = rule.penalty or PENALTIES["hard"]
        summary = Summary(Run(args.records, args.split), rule, penalty)
        print("\n".join(summary_lines(summary.result())))
    return 0


def _counted(rows: Iterable[dict], table: ScoreTable) -> Iterator[dict]:
    for row in rows:
        table.add(row)
        yield row


if __name__ == "__main__":
    sys.exit(main())
