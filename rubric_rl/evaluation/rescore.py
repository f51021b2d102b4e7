"""Computes scores again from stored verdicts, under the same or another rule, without a model (stage 4, reward)."""

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rubric_rl.errors import UserError
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import Rule, add_rule_flags, rule_from
from rubric_rl.evaluation.statistics import PENALTIES
from rubric_rl.evaluation.summary import Summary
from rubric_rl.evaluation.tables import summary_lines
from rubric_rl.grading.record import ANSWER_KEY
from rubric_rl.jsonl import write_jsonl


def rescore(records: Iterable[Mapping], rule: Rule = Rule()) -> Iterator[dict]:
    """Per record: the answer's key and status, its stored score, and its score under the rule (None: it has none)."""
    for record in records:
        value = rule.score(record)
        kept = {key: record[key] for key in (*ANSWER_KEY, "status", "score")}
        yield kept | {"rescored": None if math.isnan(value) else value}


class ScoreTable:
    """One line per split and weight version: answers, those without a score, mean of the stored and the new scores."""

    def __init__(self):
        self.parts, self.differ = defaultdict(list), 0

    def add(self, row: Mapping) -> None:
        self.differ += row["rescored"] != row["score"]
        self.parts[row["split"], row["weight_version"]].append((row["score"], row["rescored"]))

    def __str__(self) -> str:
        width = max(8, *(len(version) for _, version in self.parts))
        lines = [
            f"{'split':>6} {'weights':>{width}} {'answers':>8} {'no score':>9} {'stored':>8} {'rescored':>9}"
        ]
        for split, version in sorted(self.parts, key=lambda key: (key[0], len(key[1]), key[1])):
            part = self.parts[split, version]
            scored = [pair for pair in part if pair[1] is not None]
            means = [statistics.fmean(values) for values in zip(*scored)] or [math.nan] * 2
            counts = f"{len(part):>8} {len(part) - len(scored):>9}"
            lines.append(
                f"{split:>6} {version:>{width}} {counts} {means[0]:>8.4f} {means[1]:>9.4f}"
            )
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rubric_rl.rescore", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "records",
        help="an evaluation's --out, a folder of verdict records, e.g. runs/tiny/verdicts, or one file",
    )
    add("--out", help="also write one JSON line per answer to this file")
    add(
        "--summary",
        action="store_true",
        help="also print the full evaluation table of the last weight version",
    )
    add("--split", default="", help="only the train or the eval records of a training run")
    add_rule_flags(parser)
    args = parser.parse_args()
    table = ScoreTable()
    try:
        rule = rule_from(args)
        rows = _counted(rescore(Run(args.records, args.split, every=True), rule), table)
        count = write_jsonl(args.out, rows) if args.out else sum(1 for _ in rows)
        if not any(score is not None for part in table.parts.values() for _, score in part):
            hint = "choose other tags or another --split"
            raise UserError(
                f"{args.records}: no answer was graded and has a score by the rule ({rule}); {hint}"
            )
        penalty = rule.penalty or PENALTIES["hard"]
        lines = (
            summary_lines(Summary(Run(args.records, args.split), rule, penalty).result())
            if args.summary
            else []
        )
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"rule: {rule}\n{table}")
    print(
        "\n".join(
            [f"{count} answers, {table.differ} of them with another score than stored", *lines]
        )
    )
    return 0


def _counted(rows: Iterable[dict], table: ScoreTable) -> Iterator[dict]:
    for row in rows:
        table.add(row)
        yield row


if __name__ == "__main__":
    sys.exit(main())
