"""Grader settings: groups with a field each, every impossible value refused in one line."""

import pydantic
import pytest
import yaml
from doubles.engine import grader_settings

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.data.training_settings import TrainingGraders
from rubric_rl.grading.settings import (
    GROUPS,
    NAMES,
    GraderSettings,
    Grading,
    Scoring,
    check_together,
    read_settings,
)
from rubric_rl.serving.endpoint import GRADER, Endpoint

IN_REPLY = {"criterion_in_reply": True, "mode": "direct"}
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
GRADER_CONFIGS = [path for path in CONFIGS if "grader_" in path.read_text(encoding="utf-8")]


class TestGroups:
    def test_a_field_belongs_to_exactly_one(self):
        names = [name for group in GROUPS for name in group.model_fields]
        assert len(names) == len(set(names))
        assert sorted(NAMES) == sorted(GRADER + name for name in names)

    def test_a_field_explains_itself_on_command_lines(self):
        for group in GROUPS:
            for name, field in group.model_fields.items():
                assert field.description, name

    def test_are_filled_from_one_source(self):
        settings = grader_settings(url="http://h", mode="direct", truncated="grade", records="r")
        assert settings.endpoint == Endpoint(url="http://h")
        assert settings.grading == Grading(mode="direct")
        assert settings.scoring == Scoring(truncated="grade")
        assert settings.training == TrainingGraders(records="r")

    @pytest.mark.parametrize("group", GROUPS)
    def test_know_only_their_own_fields(self, group):
        with pytest.raises(pydantic.ValidationError, match="not permitted"):
            group(nothing=1)

    def test_are_frozen(self):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            Grading().votes = 2


class TestShippedFiles:
    @pytest.mark.parametrize("path", GRADER_CONFIGS, ids=lambda path: path.name)
    def test_hold_only_known_keys(self, path):
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        keys = {key for key in written if key.startswith(GRADER)}
        assert keys <= set(NAMES)

    @pytest.mark.parametrize("path", GRADER_CONFIGS, ids=lambda path: path.name)
    def test_explain_no_key_that_there_is_not(self, path):
        """Also those that stand in a comment, to be switched on."""
        lines = path.read_text(encoding="utf-8").splitlines()
        words = (line.removeprefix("#").split(":")[0].strip() for line in lines)
        assert {word for word in words if word.startswith(GRADER)} <= set(NAMES)

    @pytest.mark.parametrize(
        "name", ["grader.yaml", "grader_tiny.yaml", "grader_tiny_skill.yaml", "teacher.yaml"]
    )
    def test_are_valid_settings(self, name):
        path = ROOT / "configs" / name
        assert GraderSettings.load(path) == GraderSettings.load(str(path))

    def test_keep_the_skill_in_the_tiny_run_and_change_nothing_else(self):
        plain, skilled = (
            read_settings(str(ROOT / "configs" / name))
            for name in ("grader_tiny.yaml", "grader_tiny_skill.yaml")
        )
        assert skilled == plain | {"skill_coef": 0.1, "skill_share": 1.0}


class TestIdentity:
    """What a reply depends on."""

    def test_leaves_out_how_fast_and_with_which_key_is_asked(self):
        transport = {"retries": 9, "timeout": 1, "concurrency": 3, "api_key_env": "KEY"}
        assert Endpoint(**transport).identity() == Endpoint().identity()
        assert Grading(warm_prefix=False).identity() == Grading().identity()

    @pytest.mark.parametrize("group", [Endpoint, Grading, Scoring])
    def test_holds_every_other_setting(self, group):
        transport = {"retries", "timeout", "silence", "concurrency", "api_key_env"}
        transport |= {"warm_prefix", "most_unreadable", "most_ungraded"}
        later = {"template", "system", "json_schema", "cascade_low", "cascade_high", "verdict"}
        later |= {"criterion_in_reply"}
        assert group().identity().keys() == group.model_fields.keys() - transport - later

    def test_names_what_older_evaluations_do_not_know_only_where_it_is_chosen(self):
        chosen = {"system": "x", "verdict": "probability", "cascade_low": 0.2}
        assert Grading(**chosen).identity() == Grading().identity() | chosen

    def test_changes_with_the_setting(self):
        assert Endpoint(seed=1).identity() != Endpoint().identity()


def test_settings_come_from_args_without_its_other_entries():
    args = {"grader_votes": 5, "lr": 1e-6, "grader_temperature": 1, "rollout_batch_size": 32}
    assert read_settings(args) == {"votes": 5, "temperature": 1}
    settings = GraderSettings.load(args)
    assert (settings.grading.votes, settings.endpoint.temperature) == (5, 1)
    assert settings.grading.mode == "explain"


@pytest.mark.parametrize(
    "key, close", [("grader_vote", "grader_votes"), ("grader_temprature", "grader_temperature")]
)
def test_an_unknown_key_is_refused_with_the_closest_known_one(key, close):
    with pytest.raises(UserError, match=f"unknown grader setting {key}; did you mean {close}"):
        GraderSettings.load({key: 1})


@pytest.mark.parametrize(
    "name, values",
    {
        "api": ["vllm"],
        "concurrency": [0],
        "extra_body": [[]],
        "max_tokens": [0],
        "mode": ["vote", None],
        "rereads": [-1],
        "retries": [-1],
        "teacher_share": [-0.1, 1.1],
        "temperature": [-0.1, float("nan"), True],
        "thinking": [1, "false"],
        "timeout": [0, "60", float("inf")],
        "top_k": [0, -2],
        "top_p": [0, 1.1],
        "truncated": [0],
        "url": [None],
        "votes": [0, 1.0, True, "3"],
    }.items(),
)
def test_impossible_values_are_refused_by_their_key(name, values):
    for value in values:
        with pytest.raises(UserError, match=f"^grader_{name} must be ") as error:
            grader_settings(**{name: value})
        assert str(error.value).endswith(f", not {value!r}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"mode": "direct", "thinking": True}, "grader_mode direct .*grader_thinking"),
        ({"mode": "direct", "votes": 3}, "grader_votes above 1"),
        ({"temperature": 0, "votes": 3}, "grader_votes above 1"),
        ({"criterion_in_reply": True}, "grader_criterion_in_reply .*grader_mode direct"),
        ({"criterion_in_reply": True, "mode": "cascade"}, "grader_criterion_in_reply"),
        ({"criterion_in_reply": True, "mode": "checklist"}, "grader_criterion_in_reply"),
        (IN_REPLY | {"api": "openai", "model": "m"}, "use grader_api sglang"),
        (IN_REPLY | {"thinking": True}, "grader_thinking must be false"),
        ({"teacher_share": 0.5}, "goes with grader_teacher"),
        ({"teacher": "t.yaml"}, "goes with grader_teacher"),
        ({"engine": "a", "url": "http://b"}, "grader_url stays empty"),
        ({"engine": "a", "api": "openai"}, "grader_api is sglang"),
    ],
    ids=str,
)
def test_values_that_contradict_each_other_are_refused(values, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        grader_settings(**values)
    assert "\n" not in str(error.value)


def test_an_endpoint_and_a_grading_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match=r"grader_mode direct .*grader_thinking must be false"):
        check_together(Endpoint(thinking=True), Grading(mode="direct"))
    with pytest.raises(UserError, match=r"grader_criterion_in_reply .*no grader_template"):
        check_together(Endpoint(), Grading(**IN_REPLY, template="a.txt"))


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
        GraderSettings.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_and_an_empty_one_means_the_defaults(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        GraderSettings.load(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert GraderSettings.load(tmp_path / "empty.yaml") == GraderSettings()
    assert GraderSettings.load("") == GraderSettings()


def test_what_would_break_each_reply_is_no_field_of_a_request():
    for fields, name in (({"stream": True}, "stream"), ({"n": 2}, "n"), ({"echo": True}, "echo")):
        with pytest.raises(UserError, match=rf"^grader_extra_body .*must not hold {name}\b"):
            grader_settings(extra_body=fields)
    for fields in ({"stream": False, "n": None}, {"stream": None, "n": 1}):
        assert grader_settings(extra_body=fields).endpoint.extra_body == fields
