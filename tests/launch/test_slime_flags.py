"""Flags held against slime's own parser, which drops what it does not know without a word."""

import argparse
from dataclasses import replace

import pytest
from doubles.launch_world import NO_TORCH, planned_run

from rubric_rl.launch import check_run
from rubric_rl.launch.check_run import PlannedRun
from rubric_rl.launch.slime_flags import dropped_words, values_per_flag, why_dropped


def run_with_parser(path, module: str) -> PlannedRun:
    """A run with a slime whose argument module has this text."""
    (path / "slime" / "utils").mkdir(parents=True)
    (path / "slime" / "utils" / "arguments.py").write_text(module)
    (path / "torch.py").write_text(NO_TORCH)
    (path / "train.py").touch()
    return planned_run(slime_dir=path, megatron_dir=path, command=["--lr", "1"])


@pytest.mark.parametrize(
    "module, said",
    [
        (
            "import nowhere",
            "slime's parser does not run here: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("def parse_args(): assert False, 'no'", "slime refuses the command: AssertionError: no"),
    ],
)
def test_a_parser_that_ends_early_calls_no_flag_unknown(tmp_path, module, said):
    """Nothing is known of the flags when slime, or what it needs, is not installed here."""
    (line,) = check_run.check_flags(run_with_parser(tmp_path, module))
    assert line.startswith(said)


def test_a_parser_that_dies_is_one_line(tmp_path):
    module = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (line,) = check_run.check_flags(run_with_parser(tmp_path, module))
    assert line == "slime's parser does not run here: signal 9 ended it; use slime's image"


@pytest.mark.parametrize(
    "version, named",
    [("0.3.1", ["--flush-cache-interval"]), ("0.4.0", ["--keep-old-actor"]), ("", [])],
)
def test_where_the_parser_cannot_run_the_version_tells_which_flags_there_are(
    tmp_path, version, named
):
    run = run_with_parser(tmp_path, "import nowhere")
    (tmp_path / "setup.py").write_text(f'setup(version="{version}")')
    command = ["--lr", "1", "--keep-old-actor", "--flush-cache-interval", "1"]
    absent, *lines = check_run.check_flags(replace(run, command=command))
    assert absent.startswith("slime's parser does not run here")
    assert [line.split()[0] for line in lines] == named


def test_a_defect_in_the_program_that_asks_slime_is_no_mistake_of_the_users(tmp_path, monkeypatch):
    """Here its answer cannot be written, because JSON has gone."""
    module = "import json; del json.dumps\ndef parse_args(): pass"
    with pytest.raises(RuntimeError, match=r"(?s)slime_flags check failed.*AttributeError"):
        list(check_run.check_flags(run_with_parser(tmp_path, module)))


def test_unknown_abbreviated_and_removed_flags_are_named():
    known = {"--lr": 1, "--global-batch-size": 1, "--global-batch-tokens": 1}
    command = "--lr -1 --global-batch 3 --slime-router-port=1 --lrr --use-slime-router --xyz"
    dropped = dropped_words(command.split(), known)
    named = ["--global-batch", "--slime-router-port", "--lrr", "--use-slime-router", "--xyz"]
    assert dropped == named
    lines = [why_dropped(word, known) for word in dropped]
    assert [line.split()[0] for line in lines] == named
    assert "an abbreviation; write --global-batch-size or --global-batch-tokens" in lines[0]
    assert "removed from slime" in lines[1] and "removed from slime" in lines[3]
    assert lines[2].endswith("did you mean --lr?") and lines[4].endswith("leave it out")


def test_a_word_that_belongs_to_no_flag_is_named():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--two", nargs=2)
    known = values_per_flag(parser)
    right = "--lr -1 --sets a b c --two 1 2 --bf16 --lr=3"
    assert dropped_words(right.split(), known) == []
    for wrong in ("--lr 1 2", "--lr=1 2", "--bf16 2", "-lr --lr 2", "--two 1 3 2"):
        (word,) = dropped_words(wrong.split(), known)
        assert word in ("2", "-lr")
        assert why_dropped(word, known) == f"{word!r} belongs to no flag; flags begin with --"
