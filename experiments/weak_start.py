"""A start that grades badly: the shipped checkpoint with noise on its weights.

python experiments/weak_start.py --out DIR        and says nothing if DIR is there
"""

import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rubric_rl import ROOT
from rubric_rl.common.command_line import CommandParser, exit_status

MODEL = ROOT / "rubric_rl" / "tiny" / "model"
NOISE = 0.43  # of each matrix's own standard deviation
SEED = 0


def make_weak_start(out: Path, noise: float = NOISE) -> None:
    """Writes the checkpoint into `out`, whole or not at all; one that is there is kept.

    Every matrix gets Gaussian noise of `noise` times its standard deviation; vectors (the norms)
    stay. The same noise always gives the same weights.
    """
    if out.is_dir():
        return
    # Here, so that the commands that need no model start fast.
    from safetensors.numpy import load_file, save_file

    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(MODEL, unfinished)
    (unfinished / "making.json").unlink()  # it tells of the shipped one
    weights = load_file(MODEL / "model.safetensors")
    random = np.random.default_rng(SEED)
    for name in sorted(weights):
        matrix = weights[name]
        if matrix.ndim > 1:
            size = noise * matrix.std()
            drawn = random.standard_normal(matrix.shape)
            weights[name] = (matrix + size * drawn).astype(matrix.dtype)
    save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
    unfinished.rename(out)


def main() -> int:
    """Exit status: 0 done, 2 something to fix."""
    parser = CommandParser("python experiments/weak_start.py", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--noise", type=float, default=NOISE)
    args = parser.parse_args()
    return exit_status(lambda: make_weak_start(args.out, args.noise) or 0)


if __name__ == "__main__":
    sys.exit(main())
