"""Two evaluations or meta-evaluations on the same prompts: paired difference and interval (stage 6, evaluation)."""

import argparse
import sys
from pathlib import Path

from rubric_rl.agreement import change
from rubric_rl.meta_eval import RESULTS, read_results
from rubric_rl.meta_table import change_lines
from rubric_rl.rules import add_rule_flags, rule_from
from rubric_rl.runs import Run
from rubric_rl.schema import UserError
from rubric_rl.summary import Summary
from rubric_rl.table import comparison_lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rubric_rl.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("before", help="an evaluation's --out, or a folder of verdict records")
    parser.add_argument("after", help="the other one; differences are after - before")
    parser.add_argument("--split", default="", help="only the train or the eval records of a training run")
    parser.add_argument(
        "--weights",
        nargs=2,
        default=("", ""),
        metavar=("BEFORE", "AFTER"),
        help="weight versions of training runs (default: the last)",
    )
    add_rule_flags(parser)
    args = parser.parse_args()
    try:
        lines = _graders(args) if (Path(args.before) / RESULTS).exists() else _answers(args)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def _graders(args: argparse.Namespace) -> list[str]:
    return change_lines(change(read_results(args.before), read_results(args.after)))


def _answers(args: argparse.Namespace) -> list[str]:
    rule = rule_from(args)
    runs = [
        Run(folder, args.split, weights)
        for folder, weights in zip((args.before, args.after), args.weights, strict=True)
    ]
    before, after = (Summary(run, rule) for run in runs)
    return [f"before: {runs[0].name}   after: {runs[1].name}   rule: {rule}", *comparison_lines(before, after)]


if __name__ == "__main__":
    sys.exit(main())
