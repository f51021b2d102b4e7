"""Reports one run, or two side by side, as an HTML page and as Markdown (stage 6, evaluation).

For example:
    python -m rubric_rl.report runs/eval                                 writes runs/eval/report.html and report.md
    python -m rubric_rl.report runs/after --against runs/before --out report
    python -m rubric_rl.report runs/tiny/verdicts --split eval --out report     verdict records of a training run
"""

import argparse
import sys
from pathlib import Path

from rubric_rl.errors import UserError
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule, add_rule_flags, rule_from
from rubric_rl.evaluation.statistics import PENALTIES
from rubric_rl.report.html_page import page
from rubric_rl.report.markdown import markdown
from rubric_rl.report.run_view import RunView


def write_report(
    runs: list[Run],
    rule: ScoringRule,
    out: Path,
    title: str = "",
    shown: list[str] = (),
    examples: int = 5,
) -> list[Path]:
    """Writes OUT.html and OUT.md for one run, or for two (before, after); returns the two paths.

    The Markdown shows the answers to the prompts `shown`, by default to the `examples` prompts with the lowest score.
    Raises UserError for a prompt_id that no run has.
    """
    sides = [RunView(run, rule, rule.penalty or PENALTIES["hard"]) for run in runs]
    results = [side.summary.result() for side in sides]
    names = [run.name for run in runs]
    known = dict.fromkeys(prompt_id for side in sides for prompt_id in side.listed)
    if missing := [prompt_id for prompt_id in shown if prompt_id not in known]:
        raise UserError(
            f"no answer to prompt_id {missing[0]}; the first one is {next(iter(known))}"
        )
    scores = {prompt_id: sides[-1].score(prompt_id) for prompt_id in known}
    lowest = sorted((value, prompt_id) for prompt_id, value in scores.items() if value is not None)[
        :examples
    ]
    title = title or "HealthBench report: " + " → ".join(names)
    out.parent.mkdir(parents=True, exist_ok=True)
    pieces = {
        ".html": page(title, names, sides, results),
        ".md": markdown(
            title, names, sides, results, list(shown) or [prompt_id for _, prompt_id in lowest]
        ),
    }
    paths = []
    for ending, parts in pieces.items():
        paths.append(out.with_name(out.name + ending))
        with paths[-1].open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.writelines(parts)
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rubric_rl.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", help="an evaluation's --out, or a folder of verdict records")
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
        default=5,
        help="else this many prompts with the lowest score (default: 5)",
    )
    add("--split", default="", help="only the train or the eval records of a training run")
    add("--weights", default="", help="weight version of a training run (default: the last)")
    add("--against-weights", default="", help="the same for --against")
    add_rule_flags(parser)
    args = parser.parse_args()
    try:
        runs = [Run(args.against, args.split, args.against_weights)] if args.against else []
        runs.append(Run(args.run, args.split, args.weights))
        folder = Path(args.run) if Path(args.run).is_dir() else Path(args.run).parent
        out = args.out or folder / "report"
        paths = write_report(runs, rule_from(args), out, args.title, args.prompt_id, args.examples)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("wrote " + " and ".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
