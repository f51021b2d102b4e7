"""The policy's skill as a grader is kept: against transformers, and against itself cut up."""

import json
from argparse import Namespace

import pytest
import torch
from doubles.ranks import actor_args, make_checkpoint, make_rollout, run_ranks
from doubles.records import made, rubric
from safetensors.torch import load_file
from tokenizers import Tokenizer

from rubric_rl import ROOT
from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.cpu.actor import Actor
from rubric_rl.cpu.grader_skill import grading_prompts, skill_batches
from rubric_rl.cpu.samples import Sample

MODEL = str(ROOT / "rubric_rl/tiny/model")


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("other"), seed=7)


def silent_rollout(seed: int = 0, prompts: int = 5) -> dict:
    """Answers of advantage 0, and grading prompts of mixed lengths."""
    rollout = make_rollout(seed)
    rollout["rewards"] = [0.0] * len(rollout["rewards"])
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 30, (prompts,), generator=generator).tolist()
    rollout["grading_prompts"] = [
        torch.randint(0, 101, (length,), generator=generator).tolist() for length in lengths
    ]
    return rollout


def transformers_gradient(hf_dir, start_dir, prompts, coef) -> tuple[float, float, dict]:
    """Mean KL(start || policy) after each prompt, the gradient's norm and the gradient itself."""
    from transformers import Qwen3ForCausalLM

    policy, start = (
        Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (hf_dir, start_dir)
    )
    kls = []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        with torch.no_grad():
            target = torch.distributions.Categorical(logits=start(tokens).logits[0, -1])
        said = torch.distributions.Categorical(logits=policy(tokens).logits[0, -1])
        kls.append(torch.distributions.kl_divergence(target, said))
    kl = torch.stack(kls).mean()
    (coef * kl).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in policy.parameters()])
    return kl.item(), norm.item(), {name: p.grad for name, p in policy.named_parameters()}


def test_the_gradient_is_that_of_transformers(hf_dir, other_dir, make_actor, tmp_path):
    data = silent_rollout()
    # Adam's first step with so large an epsilon is lr / epsilon times the gradient.
    changes = {"entropy_coef": 0.0, "weight_decay": 0.0, "clip_grad": 0.0, "adam_eps": 1e3}
    actor = make_actor(hf_dir, ref_load=other_dir, grader_skill_coef=0.3, lr=1e3, **changes)
    metrics = actor.train(0, data)
    kl, norm, gradient = transformers_gradient(hf_dir, other_dir, data["grading_prompts"], 0.3)
    assert metrics["train/grader_skill_kl"] == pytest.approx(kl, rel=1e-4) and kl > 0.1
    assert metrics["train/loss"] == pytest.approx(0.3 * kl, rel=1e-4)
    assert metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-4)
    actor.export_hf(str(tmp_path / "out"))
    after = load_file(tmp_path / "out" / "model.safetensors")
    before = load_file(f"{hf_dir}/model.safetensors")
    for name, expected in gradient.items():
        moved = before[name] - after[name]
        torch.testing.assert_close(moved, expected, rtol=2e-2, atol=2e-4, msg=name)


def test_it_is_zero_at_the_start_and_pulls_back_to_it(hf_dir, other_dir, make_actor):
    data = silent_rollout()
    at_start = make_actor(hf_dir, grader_skill_coef=1.0).train(0, data)
    assert at_start["train/grader_skill_kl"] == pytest.approx(0, abs=1e-6)
    actor = make_actor(hf_dir, ref_load=other_dir, grader_skill_coef=10.0, lr=1e-3)
    kl = [actor.train(step, data)["train/grader_skill_kl"] for step in range(4)]
    assert kl[0] > kl[1] > kl[2] > kl[3] > 0


def test_without_it_the_step_is_the_old_one(hf_dir, make_actor):
    data = make_rollout()
    plain = make_actor(hf_dir).train(0, data)
    assert make_actor(hf_dir).train(0, data | {"grading_prompts": []}) == plain
    assert not any("skill" in name for name in plain)


def test_the_cut_into_batches_and_steps_does_not_matter(hf_dir, other_dir, make_actor):
    data, found = silent_rollout(), []
    for budget in (1, 40, 10_000):
        changes = {"ref_load": other_dir, "grader_skill_coef": 1.0, "max_tokens_per_gpu": budget}
        found.append(make_actor(hf_dir, **changes).train(0, data)["train/grader_skill_kl"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
    prompts = [[0] * length for length in range(1, 12)]
    args = actor_args()
    shares = [skill_batches(args, prompts, 2, rank, 2) for rank in (0, 1)]
    lengths = [
        int(column) + 1
        for share in shares
        for step in share
        for batch in step
        for column in batch.columns
    ]
    assert sorted(lengths) == list(range(1, 12))
    for step in (0, 1):
        weights = [b.weight * len(b.rows) for share in shares for b in share[step]]
        assert sum(weights) == pytest.approx(1)


def test_a_resumed_run_is_bit_exact(hf_dir, make_actor, tmp_path):
    changes = {"grader_skill_coef": 1.0}
    actor = make_actor(hf_dir, **changes)
    for step in range(2):
        actor.train(step, make_rollout(step) | {"grading_prompts": [[1, 2, 3], [4, 5]]})
    actor.save(str(tmp_path / "checkpoint"))
    more = [make_rollout(step) | {"grading_prompts": [[7, 8], [9] * step]} for step in (2, 3)]
    straight = [actor.train(step, data) for step, data in zip((2, 3), more, strict=True)]
    assert straight[0]["train/grader_skill_kl"] > 0, "held to the start, not to the checkpoint"
    resumed = make_actor(hf_dir, str(tmp_path / "checkpoint"), **changes)
    assert [resumed.train(step, data) for step, data in zip((2, 3), more, strict=True)] == straight


def train_rank(rank, world, store, hf_dir, changes, data):
    actor = Actor(actor_args(**changes), rank, world, store)
    actor.load(hf_dir)
    return actor.train(0, data)


@pytest.mark.stack
def test_two_ranks_are_one_process(hf_dir, other_dir, make_actor):
    changes = {"ref_load": other_dir, "grader_skill_coef": 1.0, "adam_eps": 1e-3}
    data = silent_rollout()
    expected = make_actor(hf_dir, **changes).train(0, data)
    first, second = run_ranks(2, train_rank, hf_dir, changes, data)
    assert first == second and not isinstance(first, Exception), first
    assert first == pytest.approx(expected, rel=1e-4, abs=1e-7)


class TestGradingPrompts:
    def args(self, **more) -> Namespace:
        settings = {"grader_mode": "direct", "grader_skill_coef": 1.0, "grader_skill_share": 0.5}
        return Namespace(seed=1, hf_checkpoint=MODEL, **settings | more)

    def samples(self, status: str = "graded") -> list[Sample]:
        found = []
        for index in range(8):
            record = made(f"p{index}", (5, 3, -4), (True,) * 3, answer="Rest.", status=status)
            grading = json.loads(json.dumps(record.to_json()))
            one = Sample(index=index, prompt="", metadata={"grading": grading})
            one.tokens = [0] * 200
            found.append(one)
        return found

    def test_end_where_the_verdict_begins(self):
        prompts = grading_prompts(self.args(), self.samples(), 0)
        opening = ChatTokenizer(MODEL).encode('{"criteria_met":')
        assert all(prompt[-len(opening) :] == opening for prompt in prompts)
        assert len({tuple(prompt) for prompt in prompts}) == len(prompts) > 1

    def test_are_those_that_the_grader_gets(self, tmp_path):
        template = tmp_path / "template.txt"
        template.write_text("<<conversation>>|<<answer>>|<<rubric_item>>")
        samples = self.samples()
        samples[0].metadata["grading"]["answer"] = "Rest.\n"  # as it is written, for a template
        args = self.args(grader_template=str(template), grader_system="Be strict.")
        tokenizer = Tokenizer.from_file(f"{MODEL}/tokenizer.json")
        prompts = grading_prompts(args, samples, 0)
        texts = tokenizer.decode_batch(prompts)
        assert texts and all("Be strict." in text and "|Rest." in text for text in texts)
        own = grading_prompts(self.args(), samples, 0)
        assert own == grading_prompts(self.args(), self.samples(), 0)  # our own prompt strips it

    def test_name_the_criterion_in_the_reply_where_the_grader_does(self):
        args = self.args(grader_criterion_in_reply=True)
        tokenizer = Tokenizer.from_file(f"{MODEL}/tokenizer.json")
        texts = [tokenizer.decode(prompt) for prompt in grading_prompts(args, self.samples(), 0)]
        openings = {
            f'\n\n{{"criteria_met": {{"[{criterion.points:g}] {criterion.text}":'
            for criterion in rubric(5, 3, -4)
        }
        assert texts and all(text.endswith(tuple(openings)) for text in texts)

    @pytest.mark.parametrize("share", [0.15, 0.25, 1.0])
    def test_cost_nearly_their_share_of_the_tokens(self, share):
        prompts = grading_prompts(self.args(grader_skill_share=share), self.samples(), 0)
        tokens = sum(map(len, prompts))
        longest = max(map(len, prompts))
        is_all = len(prompts) == 24
        assert tokens <= share * 8 * 200
        assert is_all or tokens > share * 8 * 200 - 2 * longest

    def test_are_the_same_again_and_others_in_the_next_rollout(self):
        first, again, following = (
            grading_prompts(self.args(), self.samples(), rollout) for rollout in (3, 3, 4)
        )
        assert first == again != following

    def test_are_none_where_it_is_off_or_nothing_was_graded(self):
        assert grading_prompts(self.args(grader_skill_coef=0.0), self.samples(), 0) == []
        assert grading_prompts(self.args(), self.samples("ungraded"), 0) == []
