"""What `pip install` brings: the library with its templates and the tiny model, and no tests."""

import shutil
import subprocess
import sys
from zipfile import ZipFile

import pytest

from rubric_rl import ROOT

SOURCES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "data_preprocess.py",
    "self_reward_rm.py",
)
FOLDERS = ("rubric_rl", "scripts", "tests")
# without isolation pip needs no index: setuptools is among the pins
BUILD = "-m pip wheel --no-deps --no-build-isolation --quiet --wheel-dir out ."

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> ZipFile:
    """The wheel, built in a copy of the tree: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    no_caches = shutil.ignore_patterns("__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=no_caches)
    command = [sys.executable, *BUILD.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "out").glob("*.whl")
    return ZipFile(path)


@pytest.fixture
def inside(wheel) -> set[str]:
    """The wheel's files without the description of the package."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_a_wheel_holds_every_file_of_the_library(inside):
    library = set()
    for path in (ROOT / "rubric_rl").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            library.add(str(path.relative_to(ROOT)))
    assert library <= inside


def test_beside_the_library_it_holds_the_two_programs_and_nothing_else(inside):
    beside = {name for name in inside if not name.startswith("rubric_rl/")}
    assert beside == {"data_preprocess.py", "self_reward_rm.py"}


def test_it_carries_its_license(wheel):
    licenses = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    assert len(licenses) == 1


@pytest.mark.parametrize(
    "extra, file",
    [
        ("cpu", "requirements.txt"),
        ("dev", "dev.txt"),
    ],
)
def test_an_extra_is_what_its_file_pins(wheel, extra, file):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = wheel.read(name).decode()
    pins = (ROOT / "scripts" / "cpu" / file).read_text()
    for line in pins.splitlines():
        if not line.startswith("#"):
            assert f'Requires-Dist: {line}; extra == "{extra}"' in metadata
