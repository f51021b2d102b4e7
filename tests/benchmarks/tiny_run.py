"""Measures whole tiny runs against their targets: rise of the held-out true score, minutes, memory, cache (all stages).

    python tests/benchmarks/tiny_run.py --out DIR                            the default seed and two others
    python tests/benchmarks/tiny_run.py --out DIR --fresh --seeds default    in a new clone, installation included
    python tests/benchmarks/tiny_run.py --out DIR -- --lr 1e-3               what follows -- goes to each run

Runs that are finished in DIR are not made again. Nothing else should be at work on the machine.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rubric_rl.cpu.metric_rows import find_eval_metric, read_evaluations, read_metrics

HELD_OUT = "held_out"
COLUMNS = (
    ("true before", lambda steps, evals: find_eval_metric(evals[0], HELD_OUT, "true_score")),
    ("true after", lambda steps, evals: find_eval_metric(evals[-1], HELD_OUT, "true_score")),
    ("rise", lambda steps, evals: COLUMNS[1][1](steps, evals) - COLUMNS[0][1](steps, evals)),
    ("self after", lambda steps, evals: evals[-1][f"eval/{HELD_OUT}"]),
    ("acc before", lambda steps, evals: find_eval_metric(evals[0], HELD_OUT, "grader_accuracy")),
    ("acc after", lambda steps, evals: find_eval_metric(evals[-1], HELD_OUT, "grader_accuracy")),
    ("cached", lambda steps, evals: min(row["grading/cached_share_after_first"] for row in steps)),
    ("GB", lambda steps, evals: max(row["perf/memory_gb"] for row in steps)),
)


def run(seed: str, out: Path, fresh: bool, flags: list[str]) -> None:
    """One run into out/seed-N and its wall seconds into out/seed-N.seconds; a finished one is left as it is.

    Raises:
        subprocess.CalledProcessError: when the run fails; its own last line says why.
    """
    timing = out / f"seed-{seed}.seconds"
    if timing.exists():
        return
    begin, where = time.monotonic(), ROOT
    if fresh:
        where = out / f"clone-{seed}"
        subprocess.run(["git", "clone", "--quiet", ROOT, where], check=True)
    seeds = [] if seed == "default" else ["--rollout-seed", seed, "--seed", seed]
    command = ["bash", "run_qwen3_tiny.sh", *seeds, *flags]
    subprocess.run(
        command, cwd=where, env=os.environ | {"SAVE_PATH": str(out / f"seed-{seed}")}, check=True
    )
    timing.write_text(f"{time.monotonic() - begin:.0f}\n")


def report(seeds: list[str], out: Path) -> list[str]:
    """A Markdown table, a row per seed."""
    heading = ["seed", "steps", *(name for name, _ in COLUMNS), "minutes"]
    rows = [heading, ["---"] * len(heading)]
    for seed in seeds:
        steps = read_metrics(out / f"seed-{seed}")
        evals = read_evaluations(out / f"seed-{seed}")
        minutes = int((out / f"seed-{seed}.seconds").read_text()) / 60
        rows.append(
            [
                seed,
                str(len(steps)),
                *(f"{figure(steps, evals):.3f}" for _, figure in COLUMNS),
                f"{minutes:.1f}",
            ]
        )
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
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C: the run ends with this process
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
