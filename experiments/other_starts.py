"""Starts beside the shipped checkpoint: graders that practised less, or not at all, or are bad.

python experiments/other_starts.py --start weak --out DIR        and says nothing if DIR is there
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rubric_rl import ROOT
from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError

MODEL = ROOT / "rubric_rl" / "tiny" / "model"
PRACTISED = ROOT / "experiments" / "starts" / "practised"  # its weights, and how it was made
NOISE = 0.43  # of each matrix's own standard deviation
SEED = 0


def start_path(start: str, out: Path) -> Path:
    """Where a start of STARTS lies among the runs of `out`."""
    return out / f"{start}_start"


def make_weak_start(out: Path) -> None:
    """Writes the checkpoint into `out`, whole or not at all; one that is there is kept.

    Every matrix of the practised start gets Gaussian noise of NOISE times its standard deviation;
    vectors (the norms) stay. It always gives the same weights.
    """
    if out.is_dir():
        return
    # Here, so that the commands that need no model start fast.
    from safetensors.numpy import load_file, save_file

    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(MODEL, unfinished)
    (unfinished / "making.json").unlink()  # it tells of the shipped one
    weights = load_file(PRACTISED / "model.safetensors")
    random = np.random.default_rng(SEED)
    for name in sorted(weights):
        matrix = weights[name]
        if matrix.ndim > 1:
            size = NOISE * matrix.std()
            drawn = random.standard_normal(matrix.shape)
            weights[name] = (matrix + size * drawn).astype(matrix.dtype)
    save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
    unfinished.rename(out)


def make_practised_start(out: Path) -> None:
    """Copies what `rubric_rl.tiny.contrasts` went on from; a checkpoint that is there is kept."""
    if out.is_dir():
        return
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(MODEL, unfinished)
    shutil.copytree(PRACTISED, unfinished, dirs_exist_ok=True)  # all else is the same
    unfinished.rename(out)


def make_unpractised_start(out: Path) -> None:
    """Makes what `rubric_rl.tiny.practice` went on from; a checkpoint that is there is kept.

    A quarter of an hour.
    """
    if out.is_dir():
        return
    words = [sys.executable, "-m", "rubric_rl.tiny.make_checkpoint", "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise UserError(f"{out}: making the checkpoint ended with status {done.returncode}")


# By the names that arms.py has for them.
STARTS = {
    "practised": make_practised_start,
    "unpractised": make_unpractised_start,
    "weak": make_weak_start,
}


def main() -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = CommandParser("python experiments/other_starts.py", __doc__)
    parser.add_argument("--start", choices=list(STARTS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    args = parser.parse_args()
    return exit_status(lambda: STARTS[args.start](args.out) or 0)


if __name__ == "__main__":
    sys.exit(main())
