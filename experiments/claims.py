"""The paper's claims in small: runs of many arms and seeds, and what they say together.

    python experiments/claims.py --list          the arms and what each is to tell
    python experiments/claims.py --out DIR       makes whatever run is missing, by weight
    python experiments/claims.py --out DIR --arms self oracle --seeds 1 2
    python experiments/claims.py --report        docs/experiments.md's tables, and the figures

One run at a time takes both cores. Killed at any moment, the same command goes on. A finished run
leaves a few kilobytes in experiments/results, which the report is made from.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import figures, results, runs, tables
from experiments.arms import ARMS
from experiments.runs import Run
from rubric_rl import ROOT
from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_text

ROLLOUTS = 36
SEEDS = (1, 2, 3)
PAGE = ROOT / "docs" / "experiments.md"
BEGIN = "<!-- tables: python experiments/claims.py --report -->"
END = "<!-- end of tables -->"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to fix, 130 stopped."""
    parser = CommandParser("python experiments/claims.py", __doc__)
    add = parser.add_argument
    add("--out", type=Path, help="where the runs go")
    add("--arms", nargs="+", default=list(ARMS), metavar="ARM", help="(default: all)")
    add("--seeds", nargs="+", type=int, default=SEEDS, help="(default: %(default)s)")
    add("--rollouts", type=int, default=ROLLOUTS, help="of every run (default: %(default)s)")
    add("--results", type=Path, default=results.RESULTS, help="of finished runs")
    add("--list", action="store_true", help="names the arms")
    add("--report", action="store_true", help="writes docs/experiments.md's tables and figures")
    args = parser.parse_args(argv)
    # As Ctrl-C: the run in progress is stopped with its processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return exit_status(lambda: _run(args))
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    unknown = [name for name in args.arms if name not in ARMS]
    if unknown:
        raise UserError(f"no arm {unknown[0]}; the arms are {', '.join(ARMS)}")
    if args.list:
        for name, arm in ARMS.items():
            print(f"{name:22} {arm.question}")
    elif args.report:
        report(args.results)
    elif args.out is None:
        raise UserError("--out is missing: where the runs go")
    else:
        make_all(args)
        print(*lines(_read_all(args.results), results.read_lenient(args.results)), sep="\n")
    return 0


def planned(out: Path, arms: list[str], seeds: list[int], rollouts: int) -> list[Run]:
    """The runs in their order: every arm with all its seeds before the next one.

    Raises:
        UserError: where a finished run in `out` was made otherwise than it would be now.
    """
    found = []
    for name in arms:
        for seed in seeds:
            run = Run(name, ARMS[name], seed, out.resolve(), rollouts)
            if run.is_done:
                made = json.loads(run.record.read_text(encoding="utf-8"))
                if made["rollouts"] != rollouts:
                    was = f"{run.folder} has {made['rollouts']} rollouts, not {rollouts}"
                    raise UserError(f"{was}; give --rollouts {made['rollouts']}, or another --out")
                asked = runs.asked(run)
                if any(made[name] != value for name, value in asked.items()):
                    was = f"{run.folder} was made when the arm had other settings"
                    raise UserError(f"{was}; remove it, or give another --out")
            found.append(run)
    return found


def make_all(args: argparse.Namespace) -> None:
    """Makes what is missing, a line for each run; a run that fails does not stop the others."""
    plan = planned(args.out, args.arms, args.seeds, args.rollouts)
    missing = [run for run in plan if not run.is_done]
    for run in plan:
        if run.is_done and not results.holds(run, args.results):
            results.collect(run, args.results)
    print(f"{len(plan)} runs, {len(missing)} of them to be made", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    port = runs.port_for_oracle(args.out)
    taken: list[float] = []
    failed = []
    for number, run in enumerate(missing, 1):
        begin = time.monotonic()
        try:
            runs.make(run, port)
        except UserError as error:
            failed.append(run.label())
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        taken.append(time.monotonic() - begin)
        results.collect(run, args.results)
        result = results.read(run.name, args.results)[run.seed]
        print(progress_line(run, result, number, len(missing), taken), flush=True)
    if failed:
        raise UserError(f"failed: {'; '.join(failed)}; the same command tries again")


def progress_line(
    run: Run, result: results.Result, number: int, total: int, taken: list[float]
) -> str:
    """What a run found, and the minutes that the others will take at the mean of those made."""
    left = sum(taken) / len(taken) * (total - number) / 60
    score = f"true {result.start('true'):.3f} -> {result.final('true'):.3f}"
    accuracy = result.final("accuracy")
    grader = "" if accuracy is None else f", grader accuracy {accuracy:.3f}"
    minutes = f"{taken[-1] / 60:.1f} minutes, about {left:.0f} left for {total - number} runs"
    return f"{run.label()}: {score}{grader}; {minutes}"


def _read_all(folder: Path) -> tables.Results:
    """The results of all arms. Raises UserError where some are of runs of another length."""
    found = {}
    lengths = {}
    for name in ARMS:
        of_arm = results.read(name, folder)
        if of_arm:
            found[name] = of_arm
        for seed, result in of_arm.items():
            lengths.setdefault(result.run["rollouts"], results.path_of(name, seed, folder))
    if len(lengths) > 1:
        shown = ", ".join(f"{path}: {count}" for count, path in lengths.items())
        raise UserError(f"results of runs of several lengths ({shown}); remove those of trials")
    return found


def lines(found: tables.Results, lenient: results.Rows) -> list[str]:
    """All tables."""
    parts = (
        tables.arm_lines,
        tables.comparison_lines,
        tables.update_lines,
        tables.warning_lines,
        tables.alarm_lines,
        tables.watched_lines,
    )
    made = ["\n".join(part(found)) for part in parts]
    made.append("\n".join(tables.lenient_lines(lenient)))
    return "\n\n".join(made).split("\n")


def report(folder: Path) -> None:
    """Puts the tables between the two marks of the page, and draws its figures.

    Raises:
        UserError: without the page or its marks.
    """
    found = _read_all(folder)
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{PAGE}: the lines {BEGIN} and {END} are missing; put them back")
    body = "\n".join(lines(found, results.read_lenient(folder)))
    write_text(PAGE, f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
    drawn = figures.draw(found, ROOT / "asset")
    print(f"{PAGE}; figures in asset/: {', '.join(drawn) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
