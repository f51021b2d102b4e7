"""The actor against transformers, and against itself cut up in every way it may be."""

import math
import os

import psutil
import pytest
import torch
from doubles.processes import listeners
from doubles.ranks import actor_args, make_checkpoint, make_rollout, new_store, run_ranks
from safetensors.torch import load_file

from rubric_rl.common.errors import UserError
from rubric_rl.cpu.actor import Actor, TrainingError
from rubric_rl.cpu.micro_batches import make_micro_batches
from rubric_rl.cpu.model import response_logits


@pytest.fixture(scope="module")
def untied_dir(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("untied"), tied=False, seed=1)


def weights(actor):
    return {name: parameter.detach().clone() for name, parameter in actor.model.named_parameters()}


def near(left, right, tolerance):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        message = f"{name}: {(tensor - right[name]).abs().max():.1e} apart"
        torch.testing.assert_close(tensor, right[name], rtol=tolerance, atol=tolerance, msg=message)


def transformers_step(hf_dir, data, args):
    """GRPO's first step written down anew, sample by sample, on transformers' Qwen3.

    Returns loss, gradient norm, weights.
    """
    from transformers import Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(hf_dir, dtype=torch.float32)
    loss = 0.0
    names = ("tokens", "response_lengths", "rewards", "loss_masks")
    columns = [data[name] for name in names]
    for tokens, length, reward, mask in zip(*columns, strict=True):
        unmasked = sum(mask)
        if unmasked == 0:
            continue
        logits = model(torch.tensor([tokens])).logits[0, -length - 1 : -1]
        logits = logits / args.rollout_temperature
        distribution = torch.distributions.Categorical(logits=logits)
        log_probs = distribution.log_prob(torch.tensor(tokens[-length:]))
        # 1: on the first step no token can be clipped.
        ratio = (log_probs - log_probs.detach()).exp()
        per_token = -ratio * reward - args.entropy_coef * distribution.entropy()
        of_sample = (per_token * torch.tensor(mask)).sum() / unmasked
        loss = loss + of_sample / args.global_batch_size
    loss.backward()
    parameters = list(model.parameters())
    norm = torch.nn.utils.clip_grad_norm_(parameters, args.clip_grad)
    vectors = [p for p in parameters if p.dim() == 1]
    matrices = [p for p in parameters if p.dim() > 1]
    groups = [
        {"params": matrices, "weight_decay": args.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (args.adam_beta1, args.adam_beta2)
    torch.optim.AdamW(groups, lr=args.lr, betas=betas, eps=args.adam_eps).step()
    after = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return loss.item(), norm.item(), after


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(hf_dir, untied_dir, make_actor, tied):
    from transformers import Qwen3ForCausalLM

    source = hf_dir if tied else untied_dir
    actor = make_actor(source)
    inputs = torch.randint(0, 101, (2, 40), generator=torch.Generator().manual_seed(3))
    rows = torch.arange(2).repeat_interleave(40)
    columns = torch.arange(40).repeat(2)
    with torch.no_grad():
        ours = response_logits(actor.model, actor.shape, inputs, rows, columns)
        theirs = Qwen3ForCausalLM.from_pretrained(source, dtype=torch.float32)(
            inputs
        ).logits.flatten(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert theirs.std() > 0.5  # a flat model would agree with anything


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_is_the_step_of_transformers(hf_dir, untied_dir, make_actor, tied, tmp_path):
    source, data = hf_dir if tied else untied_dir, make_rollout()
    actor = make_actor(
        source, adam_eps=1e-3
    )  # so large that Adam's first step is more than the gradient's sign
    loss, norm, expected = transformers_step(source, data, actor.args)
    metrics = actor.train(0, data)
    assert metrics["train/loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert metrics["train/ppo_kl"] == 0 and metrics["train/pg_clipfrac"] == 0
    actor.export_hf(str(tmp_path / "out"))
    near(load_file(tmp_path / "out" / "model.safetensors"), expected, 2e-6)


def test_the_cut_into_micro_batches_does_not_matter(hf_dir, make_actor):
    data, results = make_rollout(), []
    for budget in (1, 40, 10_000):
        actor = make_actor(hf_dir, max_tokens_per_gpu=budget, adam_eps=1e-3)
        results.append((actor.train(0, data), weights(actor)))
    for metrics, after in results[1:]:
        assert metrics == pytest.approx(results[0][0], rel=1e-5, abs=1e-7)
        near(after, results[0][1], 1e-6)


@pytest.mark.parametrize("per_token", [False, True])
def test_a_removed_sample_only_counts_in_the_denominator(hf_dir, make_actor, per_token):
    data = make_rollout()
    full = make_actor(hf_dir, calculate_per_token_loss=per_token).train(0, data)
    kept = {name: values[:5] + values[6:] for name, values in data.items()}
    actor = make_actor(hf_dir, calculate_per_token_loss=per_token, global_batch_size=7)
    rest = actor.train(0, kept)
    tokens = sum(map(sum, kept["loss_masks"]))
    factor = tokens / (tokens + 1) if per_token else 7 / 8
    assert all(map(math.isfinite, full.values()))
    for name in ("train/pg_loss", "train/entropy_loss", "train/grad_norm"):
        assert full[name] == pytest.approx(rest[name] * factor, rel=1e-5)


def test_a_rollout_of_removed_samples_alone_changes_no_more_than_weight_decay(hf_dir, make_actor):
    data = make_rollout()
    data["loss_masks"] = [[0] * len(mask) for mask in data["loss_masks"]]
    actor = make_actor(hf_dir, weight_decay=0.0)
    before = weights(actor)
    metrics = actor.train(0, data)
    near(weights(actor), before, 0.0)
    assert metrics["train/loss"] == 0 and metrics["train/grad_norm"] == 0


def test_several_steps_use_the_log_probs_from_before_the_first(hf_dir, make_actor):
    data = make_rollout(1, count=16)
    halves = [
        {name: values[:8] for name, values in data.items()},
        {name: values[8:] for name, values in data.items()},
    ]
    actor = make_actor(hf_dir)
    [[*second]] = make_micro_batches(actor.args, halves[1], 0, 1)
    before = [actor._log_probs(actor.model, batch) for batch in second]
    first_alone = actor.train(0, halves[0])
    moved = sum(
        ((old - actor._log_probs(actor.model, batch)) * batch.weights).sum().item()
        for old, batch in zip(before, second, strict=True)
    )
    together = make_actor(hf_dir).train(0, data)
    assert first_alone["train/ppo_kl"] == 0 and abs(moved) > 1e-4
    assert together["train/ppo_kl"] == pytest.approx(
        moved / 2, rel=1e-4
    )  # the mean of the two steps
    assert together["train/step"] == 1 and first_alone["train/step"] == 0


def test_old_log_probs_can_be_the_engines(hf_dir, make_actor):
    data = make_rollout()
    metrics = make_actor(hf_dir, use_rollout_logprobs=True).train(0, data)
    assert metrics["train/ppo_kl"] != 0
    with pytest.raises(
        UserError, match="use_rollout_logprobs: the rollout brought no log-probabilities"
    ):
        make_actor(hf_dir, use_rollout_logprobs=True).train(0, data | {"rollout_log_probs": None})


def test_the_kl_loss_is_zero_against_itself_and_pulls_towards_another(
    hf_dir, untied_dir, make_actor, tmp_path
):
    data, other = make_rollout(), make_checkpoint(tmp_path / "other", seed=7)
    assert (
        make_actor(hf_dir, use_kl_loss=True, ref_load=hf_dir).train(0, data)["train/kl_loss"] == 0
    )
    actor = make_actor(
        hf_dir, use_kl_loss=True, ref_load=other, kl_loss_coef=10.0, kl_loss_type="k2", lr=1e-3
    )
    kl = [actor.train(i, data | {"rewards": [0.0] * 8})["train/kl_loss"] for i in range(4)]
    assert kl[0] > kl[1] > kl[2] > kl[3] > 0
    with pytest.raises(UserError, match=r"config.json differs from"):
        make_actor(hf_dir, use_kl_loss=True, ref_load=untied_dir)
    with pytest.raises(UserError, match="use_kl_loss needs ref_load"):
        make_actor(hf_dir, use_kl_loss=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_is_bit_exact(make_actor, tmp_path, dtype):
    source = make_checkpoint(tmp_path / "source", dtype=dtype)
    changes = {"lr_warmup_iters": 2, "lr_decay_style": "cosine"}
    actor = make_actor(source, **changes)
    for rollout in range(2):
        actor.train(rollout, make_rollout(rollout))
    actor.save(str(tmp_path / "checkpoint"))
    straight = [actor.train(rollout, make_rollout(rollout)) for rollout in (2, 3)]
    expected = weights(actor)
    actor = make_actor(source, str(tmp_path / "checkpoint"), **changes)
    assert [actor.train(rollout, make_rollout(rollout)) for rollout in (2, 3)] == straight
    near(weights(actor), expected, 0.0)
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"actor_tp0.pt", "hf"}
    exported = load_file(tmp_path / "checkpoint" / "hf" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in exported.values()} == {f"torch.{dtype}"}
    with pytest.raises(UserError, match=r"actor_tp0.pt: no such file"):
        make_actor(source, str(tmp_path), **changes)
    with pytest.raises(UserError, match="was saved for another network"):
        make_actor(
            make_checkpoint(tmp_path / "untied", tied=False),
            str(tmp_path / "checkpoint"),
            **changes,
        )


def test_what_is_not_finite_stops_the_run_and_changes_nothing(hf_dir, make_actor):
    data = make_rollout()
    data["rewards"][0] = float("nan")
    actor = make_actor(hf_dir)
    before = weights(actor)
    with pytest.raises(
        TrainingError, match="rollout 3, step 0: loss nan, gradient norm nan; resume from"
    ):
        actor.train(3, data)
    near(weights(actor), before, 0.0)


def train_ranks(rank, world, store, hf_dir, out, changes, rollouts):
    actor = Actor(actor_args(**changes), rank, world, store)
    actor.load(hf_dir)
    metrics = [actor.train(i, rollout) for i, rollout in enumerate(rollouts)]
    actor.save(out)
    return metrics


@pytest.mark.stack
@pytest.mark.parametrize("tp", [1, 2])
def test_two_ranks_are_one_process(untied_dir, hf_dir, make_actor, tmp_path, tp):
    source = untied_dir if tp == 2 else hf_dir
    changes = {"adam_eps": 1e-3, "clip_grad": 0.1, "use_kl_loss": True, "ref_load": source}
    rollouts = [make_rollout(seed) for seed in range(2)]
    actor = make_actor(source, **changes)
    expected = [actor.train(i, rollout) for i, rollout in enumerate(rollouts)]
    actor.export_hf(str(tmp_path / "one"))
    changes["tensor_model_parallel_size"] = tp
    first, second = run_ranks(2, train_ranks, source, str(tmp_path / "two"), changes, rollouts)
    assert first == second and not isinstance(first, Exception), first
    for ours, theirs in zip(first, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7)
    near(
        load_file(tmp_path / "two/hf/model.safetensors"),
        load_file(tmp_path / "one/model.safetensors"),
        2e-6,
    )
    assert len(list((tmp_path / "two").glob("actor_tp*.pt"))) == tp
    if tp == 2:
        with pytest.raises(
            UserError, match="was saved with tensor_model_parallel_size 2, not 1; use 2"
        ):
            make_actor(source, str(tmp_path / "two"), use_kl_loss=False)


def listen(rank, world, store, hf_dir):
    """The addresses that a rank listens on after its first step."""
    actor = Actor(actor_args(), rank, world, store)
    actor.load(hf_dir)
    actor.train(0, make_rollout())
    return {address for _, address, _ in listeners([psutil.Process()])}


@pytest.mark.stack
def test_ranks_listen_on_loopback_only(hf_dir):
    assert run_ranks(2, listen, hf_dir) == [{"127.0.0.1"}, {"127.0.0.1"}]


def fail_on_second(rank, world, store, hf_dir, how):
    actor = Actor(actor_args(distributed_timeout_minutes=0.05), rank, world, store)
    actor.load(hf_dir)
    actor.train(0, make_rollout())
    if rank == 1 and how == "dies":
        os._exit(3)
    if rank == 1:
        raise ValueError("the second rank has a problem of its own")
    actor.train(1, make_rollout(1))


@pytest.mark.stack
@pytest.mark.parametrize("how", ["dies", "raises"])
def test_a_rank_that_fails_does_not_leave_the_others_hanging(hf_dir, how):
    first, second = run_ranks(2, fail_on_second, hf_dir, how, timeout=60)
    assert isinstance(first, RuntimeError) and "gloo" in str(first)
    assert second is None if how == "dies" else "a problem of its own" in str(second)


def test_a_tensor_parallel_size_that_cannot_be_is_refused():
    with pytest.raises(
        UserError, match="tensor_model_parallel_size 2 does not divide 1 training processes"
    ):
        Actor(actor_args(tensor_model_parallel_size=2), 0, 1, new_store())
