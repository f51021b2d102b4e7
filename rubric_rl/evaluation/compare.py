"""Two evaluations or meta-evaluations on the same prompts: paired difference and interval."""

import argparse
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.evaluation.agreement import change
from rubric_rl.evaluation.judge import judge_lines, judge_of_folder, two_judges
from rubric_rl.evaluation.meta_evaluate import META_RESULTS, read_results
from rubric_rl.evaluation.read_run import Run, print_notes
from rubric_rl.evaluation.scoring_rule import add_rule_flags, rule_from
from rubric_rl.evaluation.summary import Summary
from rubric_rl.evaluation.tables import change_lines, comparison_lines


def main() -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = CommandParser("python -m rubric_rl.compare", __doc__)
    add = parser.add_argument
    add("before", help="an evaluation's --out, or a folder of verdict records")
    add("after", help="the other one; differences are after - before")
    add("--split", default="", help="only the train or the eval records of a training run")
    add(
        "--weights",
        nargs=2,
        default=("", ""),
        metavar=("BEFORE", "AFTER"),
        help="weight versions of training runs (default: those that wrote last)",
    )
    add_rule_flags(parser)
    return exit_status(lambda: _run(parser.parse_args()))


def _run(args: argparse.Namespace) -> int:
    if (Path(args.before) / META_RESULTS).exists():
        lines = _meta_evaluations(args)
    else:
        lines = _answers(args)
    print(*lines, sep="\n")
    return 0


def _meta_evaluations(args: argparse.Namespace) -> list[str]:
    judges = []
    agreements = []
    for name in (args.before, args.after):
        folder = Path(name)
        agreement = read_results(folder)
        agreements.append(agreement)
        judges.append(judge_of_folder(folder, agreement.graders))
    return [*judge_lines(judges), *change_lines(change(*agreements))]


def _answers(args: argparse.Namespace) -> list[str]:
    rule = rule_from(args)
    weights_before, weights_after = args.weights
    before = Run(args.before, args.split, weights_before)
    after = Run(args.after, args.split, weights_after)
    print_notes(before, after)
    first = Summary(before, rule)
    second = Summary(after, rule)
    judges = two_judges(before, first, after, second)
    heading = f"before: {before.name}   after: {after.name}   rule: {rule}"
    return [heading, *judges, *comparison_lines(first, second)]
