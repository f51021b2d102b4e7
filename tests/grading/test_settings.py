"""Grader settings: one frozen set, every unknown or impossible value refused in one line (stage 3)."""

import dataclasses

import pytest

from rubric_rl import ROOT
from rubric_rl.errors import UserError
from rubric_rl.grading.settings import GraderSettings, load_settings

CONFIGS = sorted((ROOT / "configs").glob("grader*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_shipped_files_hold_valid_settings(path):
    assert load_settings(path) == load_settings(str(path))


def test_settings_come_from_args_without_its_other_entries_and_overrides_win():
    args = {"grader_votes": 3, "lr": 1e-6, "grader_temperature": 1, "rollout_batch_size": 32}
    settings = load_settings(args | {"grader_votes": 5})
    assert (settings.votes, settings.temperature, settings.mode) == (5, 1, "explain")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.votes = 1


@pytest.mark.parametrize(
    "key, close", [("grader_vote", "grader_votes"), ("grader_temprature", "grader_temperature")]
)
def test_an_unknown_key_is_refused_with_the_closest_known_one(key, close):
    with pytest.raises(UserError, match=f"unknown grader setting {key}; did you mean {close}"):
        load_settings({key: 1})


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "vote"}, {"mode": None}, {"api": "vllm"}, {"truncated": 0},
        {"votes": 0}, {"votes": 1.0}, {"votes": True}, {"votes": "3"},
        {"concurrency": 0}, {"max_tokens": 0}, {"rereads": -1}, {"retries": -1},
        {"timeout": 0}, {"timeout": "60"}, {"timeout": float("inf")},
        {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": True},
        {"top_p": 0}, {"top_p": 1.1}, {"top_k": 0}, {"top_k": -2},
        {"thinking": 1}, {"thinking": "false"}, {"url": None}, {"extra_body": []},
        {"mode": "direct", "thinking": True}, {"mode": "direct", "votes": 3}, {"temperature": 0, "votes": 3},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_values_are_refused_by_their_key(values):
    with pytest.raises(UserError, match=f"grader_.*{next(iter(values))}") as error:
        GraderSettings(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"grader_mode: [", "broken YAML"),
        (b"- grader_mode", "key: value"),
        (b"lr: 1", "unknown key lr"),
        (b"1: 2", "unknown key 1"),
        (b"grader_mode: \xff", "broken YAML"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "grader.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        load_settings(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named_and_an_empty_one_means_the_defaults(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_settings(tmp_path / "empty.yaml") == GraderSettings()
