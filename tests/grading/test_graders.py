"""Who grades which prompt: the policy, a model beside it, an endpoint, a teacher for a share."""

import subprocess
import sys
from argparse import Namespace

import pytest
from doubles.engine import grader_settings

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.hash_share import share_of
from rubric_rl.grading.graders import Graders, grader_name, load_other
from rubric_rl.serving.served_models import served

TINY = str(ROOT / "rubric_rl" / "tiny" / "model")


def slime_args(**more) -> Namespace:
    known = {"sglang_router_ip": "127.0.0.1", "sglang_router_port": 1, "hf_checkpoint": TINY}
    return Namespace(**known | more)


def test_the_teachers_share_is_even_and_depends_on_the_prompt_alone():
    shares = [share_of(f"prompt-{number}", "teacher") for number in range(2000)]
    assert 0.27 < sum(share < 0.3 for share in shares) / 2000 < 0.33
    assert shares[7] == share_of("prompt-7", "teacher")


class TestName:
    """Evaluation is named after its grader."""

    @pytest.mark.parametrize(
        "settings, name",
        [
            ({}, "policy"),
            ({"engine": "frozen"}, "frozen"),
            ({"url": "http://host:1/v1", "api": "openai", "model": "org/judge"}, "org-judge"),
            ({"url": "http://host:1/v1"}, "host:1"),
        ],
    )
    def test_is_that_of_the_grader(self, settings, name):
        assert grader_name(grader_settings(**settings)) == name

    def test_is_printed_for_a_settings_file(self):
        command = [sys.executable, "-m", "rubric_rl.launch.eval_name"]
        file = str(ROOT / "configs" / "grader.yaml")
        done = subprocess.run([*command, file], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hard_by_policy\n", "")
        done = subprocess.run([*command, "none.yaml"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("error: none.yaml: cannot be read")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"grader_engine": "frozen"}, "no such model in --sglang-config"),
        ({"grader_engine": "a", "grader_url": "http://b"}, "grader_url stays empty"),
        ({"grader_teacher_share": 0.5}, "grader_teacher"),
        (
            {"grader_teacher_share": 0.5, "grader_teacher": "configs/grader_tiny.yaml"},
            "a teacher needs grader_url",
        ),
    ],
)
def test_a_grader_that_is_nowhere_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Graders(slime_args(**settings), lambda: False)


def test_a_model_of_sglang_config_is_asked_at_its_own_router(tmp_path):
    config = tmp_path / "engines.yaml"
    config.write_text("sglang:\n- name: policy\n- name: frozen\n  model_path: /models/frozen\n")
    args = slime_args(
        sglang_router_ip="h",
        hf_checkpoint="/models/policy",
        sglang_config=str(config),
        sglang_model_routers={"policy": ("h", 1), "frozen": ("h", 2)},
    )
    assert served(args, "frozen") == ("http://h:2", "/models/frozen")
    assert served(args, "") == ("http://h:1", "/models/policy")


@pytest.mark.parametrize(
    "settings, by_policy",
    [
        ({}, True),
        ({"grader_url": "http://127.0.0.1:1/v1"}, True),
        ({"grader_url": "http://LOCALHOST:1"}, True),
        ({"grader_url": "http://127.0.0.1:2"}, False),
        ({"grader_engine": "policy"}, True),
        ({"grader_engine": "frozen"}, False),
    ],
)
def test_the_policy_is_known_by_whatever_name(tmp_path, settings, by_policy):
    config = tmp_path / "engines.yaml"
    config.write_text("sglang:\n- name: policy\n- name: frozen\n")
    routers = {"policy": ("127.0.0.1", 1), "frozen": ("127.0.0.1", 2)}
    args = slime_args(sglang_config=str(config), sglang_model_routers=routers, **settings)
    assert Graders(args, lambda: False).choose("p", training=True).by_policy is by_policy


class TestTeacher:
    @pytest.mark.parametrize(
        "more", ["grader_engine: a", "grader_teacher: other.yaml\ngrader_teacher_share: 0.5"]
    )
    def test_has_no_grader_of_its_own(self, tmp_path, more):
        file = tmp_path / "t.yaml"
        url = "" if "engine" in more else "grader_url: http://h\n"
        file.write_text(url + more + "\n")
        with pytest.raises(UserError, match=r"t.yaml: a teacher"):
            load_other(str(file), "teacher")

    def test_grades_its_share_of_the_training_prompts_and_no_evaluation(self, tmp_path):
        file = tmp_path / "t.yaml"
        file.write_text("grader_api: openai\ngrader_url: http://h\ngrader_model: m\n")
        more = {"grader_teacher": str(file), "grader_teacher_share": 0.5}
        graders = Graders(slime_args(**more), lambda: False)
        for prompt_id in (f"p{number}" for number in range(20)):
            name = "teacher" if share_of(prompt_id, "teacher") < 0.5 else "policy"
            assert graders.choose(prompt_id, training=True).name == name
            assert graders.choose(prompt_id, training=False).name == "policy"
