"""Computes scores again from stored verdicts, under the same or another rule, without a model."""

import argparse
import math
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.schema import Record
from rubric_rl.evaluation.read_run import Run, print_notes, version_order
from rubric_rl.evaluation.scoring_rule import PLAIN_RULE, ScoringRule, add_rule_flags, rule_from
from rubric_rl.evaluation.statistics import PENALTIES
from rubric_rl.evaluation.summary import Summary
from rubric_rl.evaluation.tables import summary_lines


def rescore(records: Iterable[Record], rule: ScoringRule = PLAIN_RULE) -> Iterator[dict]:
    """Per record: the answer's key and status, its stored score, and its score under the rule.

    A score is None where there is none.
    """
    for record in records:
        yield {
            "split": record.split,
            "index": record.index,
            "weight_version": record.weight_version,
            "run": record.run,
            "rollout": record.rollout,
            "prompt_id": record.prompt_id,
            "status": record.status,
            "score": _json_number(record.score),
            "rescored": _json_number(rule.score(record)),
        }


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else value


_Part = tuple[str, int, str]


class ScoreTable:
    """One line per split and weights: answers, and means of stored and new scores.

    Each run counts its weights anew. Where several have the same version, each gets its line.
    """

    LINE = "{split:>6} {weights:>{width}} {answers:>8} {without:>9} {stored:>8} {rescored:>9}"

    def __init__(self, runs: Sequence[str] = ("",)):
        """`runs` are those of the records, in the order in which they began."""
        self.runs = list(runs)
        # (split, number of the run, weight version) -> (stored, new score) of each answer
        self.parts: dict[_Part, list[tuple]] = defaultdict(list)
        self.differ = 0  # answers whose new score is another than the stored one
        self.unpaid = 0  # verdicts without the probability that the rule asks for

    def add(self, row: Mapping) -> None:
        stored = row["score"]
        rescored = row["rescored"]
        run = self.runs.index(row["run"])
        part = row["split"], run, row["weight_version"]
        scores = self.parts[part]
        scores.append((stored, rescored))
        if stored != rescored:
            self.differ += 1

    def __str__(self) -> str:
        times = Counter((split, version) for split, _, version in self.parts)
        labels = {}
        for part in sorted(self.parts, key=_place):
            split, run, version = part
            labels[part] = version
            if times[split, version] > 1:
                labels[part] = f"{version}, run {run + 1}"
        widths = [len(label) for label in labels.values()]
        width = max(8, *widths)
        head = self.LINE.format(
            split="split",
            weights="weights",
            width=width,
            answers="answers",
            without="no score",
            stored="stored",
            rescored="rescored",
        )
        lines = [head]
        for part, label in labels.items():
            split, _, _ = part
            scores = self.parts[part]
            scored = _with_new_score(scores)
            line = self.LINE.format(
                split=split,
                weights=label,
                width=width,
                answers=len(scores),
                without=len(scores) - len(scored),
                stored=_mean([stored for stored, _ in scored]),
                rescored=_mean([rescored for _, rescored in scored]),
            )
            lines.append(line)
        return "\n".join(lines)

    @property
    def any_score(self) -> bool:
        """Whether an answer has a score under the rule."""
        return any(_with_new_score(scores) for scores in self.parts.values())


def _place(part: _Part) -> tuple:
    split, run, version = part
    return split, run, version_order(version)


def _with_new_score(scores: list[tuple]) -> list[tuple]:
    return [pair for pair in scores if pair[1] is not None]


def _mean(values: list[float]) -> str:
    mean = math.nan
    if values:
        mean = statistics.fmean(values)
    return f"{mean:.4f}"


def main() -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = CommandParser("python -m rubric_rl.rescore", __doc__)
    add = parser.add_argument
    add("records", help="an evaluation's --out, a folder of verdict records, or one file of them")
    add("--out", help="also write one JSON line per answer to this file")
    add("--summary", action="store_true", help="also the full table of the weights that wrote last")
    add("--split", default="", help="only the train or the eval records of a training run")
    add_rule_flags(parser)
    return exit_status(lambda: _run(parser.parse_args()))


def _run(args: argparse.Namespace) -> int:
    rule = rule_from(args)
    records = Run(args.records, args.split, every=True)
    if args.out and Path(args.out).resolve() in map(Path.resolve, records.paths):
        raise UserError(f"--out {args.out}: holds the records themselves; name another file")
    table = ScoreTable(records.runs)
    rows = _counted(rescore(_watched(records, rule, table), rule), table)
    if args.out:
        count = write_jsonl(args.out, rows)
    else:
        count = sum(1 for _ in rows)
    if not table.any_score:
        what = f"{args.records}: no answer was graded and has a score by the rule ({rule})"
        raise UserError(f"{what}; choose other tags or another --split")
    print(f"rule: {rule}\n{table}")
    print(f"{count} answers, {table.differ} of them with another score than stored")
    shown = records
    if args.summary:
        penalty = rule.penalty or PENALTIES["hard"]
        shown = Run(args.records, args.split)
        summary = Summary(shown, rule, penalty)
        print(f"{shown.name}: {len(shown)} answers")
        print(*summary_lines(summary.result()), sep="\n")
    if table.unpaid:
        what = f"{table.unpaid} verdicts have no probability, and earn nothing by this rule"
        print(f"note: {what}; grader_verdict probability brings them", file=sys.stderr)
    print_notes(shown)
    return 0


def _watched(records: Iterable[Record], rule: ScoringRule, table: ScoreTable) -> Iterator[Record]:
    for record in records:
        table.unpaid += rule.unpaid(record)
        yield record


def _counted(rows: Iterable[dict], table: ScoreTable) -> Iterator[dict]:
    for row in rows:
        table.add(row)
        yield row
