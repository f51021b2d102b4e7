"""Which models are served by how many engines, whatever numbers of GPUs --sglang-config holds."""

import pytest
from doubles.trainer import make_args

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.cpu.engine_plan import ModelEngines, engine_plan, plan_line

FROZEN = str(ROOT / "configs/frozen_grader.yaml")


def args_of(engines: int, file: str | None = FROZEN):
    more = ["--sglang-config", file] if file else []
    return make_args("--rollout-num-gpus", str(engines), *more)


def test_without_the_flag_all_engines_are_the_policys():
    args = args_of(3, file=None)
    assert engine_plan(args) == [ModelEngines("default", "model", 3)]
    assert plan_line(args) == ""


def test_a_frozen_model_has_one_engine_and_the_policy_the_others():
    args = args_of(3)
    plan = [ModelEngines("policy", "model", 2), ModelEngines("grader", "model", 1)]
    assert engine_plan(args) == plan
    assert "engines of policy 2, grader 1 (its numbers of GPUs are for GPU nodes)" in (
        plan_line(args)
    )


def test_another_model_is_served_from_its_own_folder(tmp_path):
    file = tmp_path / "models.yaml"
    file.write_text("sglang: [{name: a}, {name: b, model_path: /other}]")
    _, other = engine_plan(args_of(2, str(file)))
    assert other == ModelEngines("b", "/other", 1)


def test_fewer_engines_than_models_are_refused():
    with pytest.raises(UserError, match=r"--rollout-num-gpus 1: .* serves 2 models, .* give 2 or"):
        engine_plan(args_of(1))
