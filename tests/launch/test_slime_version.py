"""Which slime is installed, and what is said of flags that came and went between versions."""

from pathlib import Path

import pytest

from rubric_rl.launch import slime_version
from rubric_rl.launch.slime_flags import dropped_words, why_dropped
from rubric_rl.launch.slime_version import (
    NEW_IN_0_4,
    REMOVED_IN_0_4,
    in_words,
    missing_flags,
    read_version,
)

OLD, NEW = "slime/rollout/data_source.py", "slime/data/batch_builder.py"


def checkout(folder: Path, files: dict[str, str]) -> Path:
    """A folder with these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files, version",
    [
        ({"setup.py": 'python_version = f"cp3"\nsetup(\n    version="0.3.1",\n)'}, (0, 3, 1)),
        ({"setup.py": "setup(version='0.4.0')", NEW: ""}, (0, 4, 0)),
        ({"setup.py": "setup()", "pyproject.toml": '[project]\nversion = "0.4.1"'}, (0, 4, 1)),
        ({"pyproject.toml": "[project", "slime/__init__.py": '__version__ = "0.5.0"'}, (0, 5, 0)),
        ({"setup.py": "setup(version=read())", NEW: ""}, (0, 4)),
        ({OLD: ""}, (0, 3, 1)),
        # between the releases: its number says one thing, its modules another
        ({"setup.py": 'setup(version="0.3.1")', NEW: ""}, ()),
        ({"setup.py": 'setup(version="")'}, ()),
        ({}, ()),
    ],
)
def test_a_checkout_tells_its_version_or_its_modules_do(tmp_path, files, version):
    assert read_version(checkout(tmp_path, files)) == version


def test_each_version_lacks_what_it_dropped_or_does_not_have_yet():
    flags = ["lr", *REMOVED_IN_0_4, *NEW_IN_0_4]
    assert missing_flags(flags, (0, 3, 1)) == list(NEW_IN_0_4)
    assert missing_flags(flags, (0, 4, 0)) == missing_flags(flags, (1, 0)) == list(REMOVED_IN_0_4)
    assert missing_flags(flags, ()) == []


@pytest.mark.parametrize("name", sorted(REMOVED_IN_0_4))
def test_a_flag_that_0_4_removed_is_refused_there_with_what_to_do_instead(name):
    known = {"--lr": 1, f"--{name}": 1}
    assert dropped_words([f"--{name}"], known) == []  # 0.3.1 takes it
    del known[f"--{name}"]
    (word,) = dropped_words([f"--{name}"], known)
    line = why_dropped(word, known)
    assert line.startswith(f"--{name} was removed in slime 0.4, which would ignore it; ")
    assert line.endswith(REMOVED_IN_0_4[name])


def test_a_flag_that_is_new_in_0_4_is_refused_before_and_taken_there():
    known = {"--rollout-session-id": 1}
    assert dropped_words(["--rollout-session-id", "a"], known) == []
    (word,) = dropped_words(["--rollout-session-id", "a"], {"--lr": 1})
    assert why_dropped(word, ["--lr"]) == (
        "--rollout-session-id is new in slime 0.4, and the slime in SLIME_DIR would ignore it; "
        "take slime 0.4, or leave the flag out"
    )


def test_the_command_prints_the_version(tmp_path, monkeypatch, capsys):
    checkout(tmp_path, {NEW: ""})
    monkeypatch.setattr(slime_version.sys, "argv", ["slime_version", str(tmp_path)])
    assert slime_version.main() == 0
    assert capsys.readouterr().out == "0.4\n"
    assert in_words(()) == "unknown"
