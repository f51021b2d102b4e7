"""The actor of rollouts: what the hooks find on its args."""

from doubles.trainer import Words, make_args

from rubric_rl import ROOT
from rubric_rl.cpu.rollout_manager import RolloutManager
from rubric_rl.grading.graders import Graders

MODEL = str(ROOT / "rubric_rl/tiny/model")


def test_hooks_find_the_policys_router_and_that_of_each_other_model(tmp_path):
    (tmp_path / "grader.yaml").write_text("grader_engine: grader\n")
    models = str(ROOT / "configs/frozen_grader.yaml")
    grader = ["--custom-config-path", str(tmp_path / "grader.yaml"), "--hf-checkpoint", MODEL]
    args = make_args("--sglang-config", models, "--rollout-num-gpus", "2", *grader)
    manager = RolloutManager(args)
    manager.tokenizer = Words()
    routers = {"policy": ("127.0.0.1", 21), "grader": ("127.0.0.1", 22)}
    manager.connect(["http://127.0.0.1:11"], routers)
    assert (args.sglang_router_ip, args.sglang_router_port) == ("127.0.0.1", 21)
    assert args.sglang_model_routers == routers
    grader = Graders(args, lambda: False).choose("p0", training=True)
    assert (grader.name, grader.by_policy) == ("grader", False)
    assert grader.client._url == "http://127.0.0.1:22/generate"
