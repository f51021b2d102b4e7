"""Who grades which prompt: the policy, a model beside it, an endpoint, a teacher for a share (stage 3)."""

from argparse import Namespace

import pytest

from rubric_rl import ROOT
from rubric_rl.errors import UserError
from rubric_rl.grading import graders as placement
from rubric_rl.grading.settings import load_settings


def test_the_teachers_share_is_even_and_depends_on_the_prompt_alone():
    shares = [placement.share_of(f"prompt-{number}") for number in range(2000)]
    assert 0.27 < sum(share < 0.3 for share in shares) / 2000 < 0.33 and shares[
        7
    ] == placement.share_of("prompt-7")


def test_evaluation_is_named_after_its_grader(tmp_path):
    assert placement.grader_name(load_settings({})) == "policy"
    assert placement.grader_name(load_settings({"grader_engine": "frozen"})) == "frozen"
    url = {"grader_url": "http://host:1/v1", "grader_api": "openai", "grader_model": "org/judge"}
    assert placement.grader_name(load_settings(url)) == "org-judge"


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
    args = Namespace(
        sglang_router_ip="127.0.0.1",
        sglang_router_port=1,
        hf_checkpoint=str(ROOT / "rubric_rl/tiny/model"),
        **settings,
    )
    with pytest.raises(UserError, match=message):
        placement.Graders(args, lambda: False)


def test_a_model_of_sglang_config_is_asked_at_its_own_router(tmp_path):
    (tmp_path / "engines.yaml").write_text(
        "sglang:\n- name: policy\n- name: frozen\n  model_path: /models/frozen\n"
    )
    args = Namespace(sglang_router_ip="h", sglang_router_port=1, hf_checkpoint="/models/policy",
                     sglang_config=str(tmp_path / "engines.yaml"),
                     sglang_model_routers={"policy": ("h", 1), "frozen": ("h", 2)})  # fmt: skip
    assert placement._served(args, load_settings({"grader_engine": "frozen"})) == (
        "http://h:2",
        "/models/frozen",
    )
    assert placement._served(args, load_settings({})) == ("http://h:1", "/models/policy")


def test_a_teacher_has_no_teacher(tmp_path):
    for more in (
        "grader_engine: a",
        f"grader_teacher: {tmp_path}/t.yaml\ngrader_teacher_share: 0.5",
    ):
        url = "" if "engine" in more else "grader_url: http://h\n"
        (tmp_path / "t.yaml").write_text(url + more + "\n")
        settings = load_settings(
            {"grader_teacher": str(tmp_path / "t.yaml"), "grader_teacher_share": 0.5}
        )
        with pytest.raises(UserError, match="t.yaml: a teacher"):
            placement.load_teacher(settings)
