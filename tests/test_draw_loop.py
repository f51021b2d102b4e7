"""The picture of the loop in the README is the one that its command draws."""

import subprocess
import sys

import pytest

from rubric_rl import ROOT


def test_the_shipped_picture_is_what_the_command_draws(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.testing.compare import compare_images

    drawn = tmp_path / "loop.png"
    subprocess.run([sys.executable, "scripts/draw_loop.py", "--out", drawn], cwd=ROOT, check=True)
    # not byte for byte: another processor may round a pixel otherwise
    assert compare_images(str(ROOT / "asset" / "loop.png"), str(drawn), tol=1) is None
