"""Reports one run, or two side by side, as an HTML page and as Markdown.

For example:
    python -m rubric_rl.report runs/eval              writes runs/eval/report.html and report.md
    python -m rubric_rl.report runs/after --against runs/before --out report
    python -m rubric_rl.report runs/tiny              the page of a training run: curves, answers
    python -m rubric_rl.report runs/tiny/verdicts --out report    its last weights alone
"""

import argparse
import sys
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.evaluation.read_run import Run, print_notes
from rubric_rl.evaluation.scoring_rule import add_rule_flags, rule_from
from rubric_rl.report.training_view import is_training_run
from rubric_rl.report.write_report import write_report, write_training_report

EXAMPLES = 5  # shown in the Markdown by default


def main() -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = CommandParser("python -m rubric_rl.report", __doc__)
    add = parser.add_argument
    add("run", help="an evaluation's --out, a SAVE_PATH, or a folder of verdict records")
    add("--against", help="an earlier run, shown beside it")
    add("--out", type=Path, help="path of the two files without their ending (default: RUN/report)")
    add("--title", default="", help="heading of the report")
    add(
        "--prompt-id",
        action="append",
        default=[],
        help="show this prompt in the Markdown (repeatable)",
    )
    add(
        "--examples",
        type=int,
        help=f"else this many prompts with the lowest score (default: {EXAMPLES})",
    )
    add("--split", default="", help="only the train or the eval records of a training run")
    add(
        "--weights",
        default="",
        help="weight version of a training run (default: that which wrote last)",
    )
    add("--against-weights", default="", help="the same for --against")
    add_rule_flags(parser)
    return exit_status(lambda: _run(parser.parse_args()))


def _run(args: argparse.Namespace) -> int:
    rule = rule_from(args)
    save = Path(args.run)
    choices = (args.against, args.split, args.weights, args.prompt_id)
    if is_training_run(save) and not any(choices):
        _refuse_in_vain(args)
        path = write_training_report(save, rule, args.out or save / "report", args.title)
        print(f"wrote {path}")
        return 0
    runs = []
    if args.against:
        runs.append(Run(args.against, args.split, args.against_weights))
    runs.append(Run(args.run, args.split, args.weights))
    print_notes(*runs)
    source = Path(args.run)
    folder = source if source.is_dir() else source.parent
    out = args.out or folder / "report"
    examples = EXAMPLES if args.examples is None else args.examples
    paths = write_report(runs, rule, out, args.title, args.prompt_id, examples)
    print("wrote " + " and ".join(str(path) for path in paths))
    return 0


def _refuse_in_vain(args: argparse.Namespace) -> None:
    """Raises UserError for a flag that says nothing of the page of a training run."""
    flags = {"--examples": args.examples is not None, "--against-weights": args.against_weights}
    for flag, is_given in flags.items():
        if is_given:
            hint = "leave it out, or choose records with --weights or --split"
            raise UserError(f"{flag} changes nothing on the page of a training run; {hint}")


if __name__ == "__main__":
    sys.exit(main())
