"""What `pip install` brings: the library with its templates and the tiny model, and no tests."""

import shutil
import subprocess
import sys
from zipfile import ZipFile

import pytest

from rubric_rl import ROOT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "data_preprocess.py", "self_reward_rm.py")
FOLDERS = ("rubric_rl", "scripts", "tests")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> ZipFile:
    """The wheel, built in a copy of the tree: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    # without isolation pip needs no index: setuptools is pinned in scripts/cpu/
    flags = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *flags, "--wheel-dir", "out", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "out").glob("*.whl")
    return ZipFile(path)


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_library(wheel):
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rubric_rl").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = {name for name in wheel.namelist() if name.startswith("rubric_rl/")}
    assert here == there


@pytest.mark.slow
def test_a_wheel_holds_the_two_programs_and_nothing_else(wheel):
    outside = {name for name in wheel.namelist() if not name.startswith("rubric_rl/")}
    metadata = {name for name in outside if ".dist-info/" in name}
    assert outside - metadata == {"data_preprocess.py", "self_reward_rm.py"}
    assert any(name.endswith("/LICENSE") for name in metadata)


@pytest.mark.slow
def test_the_extras_are_the_pin_files(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    text = wheel.read(name).decode()
    for extra, file in (("cpu", "requirements.txt"), ("dev", "dev.txt")):
        for line in (ROOT / "scripts" / "cpu" / file).read_text().splitlines():
            if not line.startswith("#"):
                assert f'Requires-Dist: {line}; extra == "{extra}"' in text
