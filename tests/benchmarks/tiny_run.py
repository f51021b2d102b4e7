"""Measures whole tiny runs: rise of the held-out true score, minutes, memory, cached share.

    python tests/benchmarks/tiny_run.py --out DIR              the default seed and two others
    python tests/benchmarks/tiny_run.py --out DIR --fresh --seeds default
                                                               in a new clone, with installation
    python tests/benchmarks/tiny_run.py --out DIR -- --lr 1e-3
                                                               what follows -- goes to each run

Runs that are finished in DIR are not made again. Nothing else should be at work on the machine.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rubric_rl import ROOT
from rubric_rl.cpu.metric_rows import find_eval_metric, read_evaluations, read_metrics

HEADING = (
    "seed",
    "rollouts",
    "true before",
    "true after",
    "rise",
    "self after",
    "acc before",
    "acc after",
    "cached",
    "GB",
    "minutes",
)


def run(seed: str, out: Path, fresh: bool, flags: list[str]) -> None:
    """One run into out/seed-N, its wall seconds into out/seed-N.seconds; none if it is finished.

    Raises:
        subprocess.CalledProcessError: when the run fails; its own last line says why.
    """
    timing = out / f"seed-{seed}.seconds"
    if timing.exists():
        return
    begin = time.monotonic()
    where = ROOT
    if fresh:
        where = out / f"clone-{seed}"
        subprocess.run(["git", "clone", "--quiet", ROOT, where], check=True)
    seeds = [] if seed == "default" else ["--rollout-seed", seed, "--seed", seed]
    command = ["bash", "run_qwen3_tiny.sh", *seeds, *flags]
    env = os.environ | {"SAVE_PATH": str(out / f"seed-{seed}")}
    subprocess.run(command, cwd=where, env=env, check=True)
    seconds = time.monotonic() - begin
    timing.write_text(f"{seconds:.0f}\n")


def figures(rollouts: list[dict], evaluations: list[dict]) -> list[float]:
    """The columns of the table between "rollouts" and "minutes"."""
    before, after = evaluations[0], evaluations[-1]
    true_before = find_eval_metric(before, "held_out", "true_score")
    true_after = find_eval_metric(after, "held_out", "true_score")
    return [
        true_before,
        true_after,
        true_after - true_before,
        after["eval/held_out"],
        find_eval_metric(before, "held_out", "grader_accuracy"),
        find_eval_metric(after, "held_out", "grader_accuracy"),
        min(row["grading/cached_share_after_first"] for row in rollouts),
        max(row["perf/memory_gb"] for row in rollouts),
    ]


def report(seeds: list[str], out: Path) -> list[str]:
    """A Markdown table, a row per seed."""
    rows = [list(HEADING), ["---"] * len(HEADING)]
    for seed in seeds:
        rollouts = read_metrics(out / f"seed-{seed}")
        evaluations = read_evaluations(out / f"seed-{seed}")
        seconds = int((out / f"seed-{seed}.seconds").read_text())
        cells = [f"{value:.3f}" for value in figures(rollouts, evaluations)]
        rows.append([seed, str(len(rollouts)), *cells, f"{seconds / 60:.1f}"])
    return ["| " + " | ".join(row) + " |" for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument(
        "--seeds", nargs="+", default=["default", "1", "2"], help="--rollout-seed and --seed"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="each run in a clone of its own, with its own installation",
    )
    parser.add_argument("flags", nargs="*", help="after --: flags of the run, which win")
    args = parser.parse_args()
    # as Ctrl-C: the run ends with this process
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        for seed in args.seeds:
            run(seed, out, args.fresh, args.flags)
    except subprocess.CalledProcessError as error:
        print(f"error: {error}; a second call goes on with the same run", file=sys.stderr)
        return 1
    print("\n".join(report(args.seeds, out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
